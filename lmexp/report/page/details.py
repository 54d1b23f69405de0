"""What the page tells of one run: how its config differs, the end of its log, the command that repeats it.

A config says nothing secret by design (mirrors.py refuses passwords in it); where it would be copied to, and how
it is launched, is left out all the same. A log is the user's own and may name folders, so a page that is sent
away takes them along; what looks like a password or a key is blotted out of both. Of many runs, the ones on the
frontier, those that ended without a result, and the best ones get their details: MOST_DETAILS in all.
"""

import json
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lmexp.analysis.frontier import frontier, numbers
from lmexp.analysis.table import Study
from lmexp.runs.columns import higher_is_better
from lmexp.runs.directory import RunDir
from lmexp.units import printable

MOST_DETAILS = 300
"""Runs with a config and the end of a log in the page."""
LOG_LINES, LOG_CHARACTERS, LOG_BYTES = 40, 4000, 65_536
"""The end of a log: lines, letters, and bytes read from the disk."""
NOT_TOLD = ("schema_version", "run", "logger", "launcher")
"""Sections of a config that do not tell what was trained."""
SECRETS = (
    re.compile(r"(?<=//)[^/\s:@]+:[^/\s@]+(?=@)"),  # http://me:secret@host
    re.compile(r"(?i)(?<=bearer )\S+"),
    re.compile(
        r"(?i)\b\w*(?:api_?key|password|passwd|secret|auth_?token|access_?token|hf_token)\w*[\"']?\s*[=:]\s*\S+"
    ),
    re.compile(r"\b(?:hf|ghp|gho|sk|wandb_v1)[_-][A-Za-z0-9_-]{16,}"),
)


def details(study: Study, quality: str, cost: str) -> dict[str, Any]:
    """Return the configs' common part once, and for each run told of what differs, its log's end and its command."""
    told = _told(study, quality, cost)
    configs = {run_id: _flat_config(study.runs[run_id]) for run_id in told}
    common = _common(list(configs.values()))
    runs = {
        run_id: {
            "config": {key: value for key, value in configs[run_id].items() if key not in common},
            "log": _log_end(study.runs[run_id]),
            "command": _command(study.runs[run_id]),
        }
        for run_id in told
    }
    return {"common": common, "runs": runs, "left_out": len(study.runs) - len(told)}


def _told(study: Study, quality: str, cost: str) -> list[str]:
    """Return the runs that get details: the frontier's, those without a result, then the best."""
    table = study.table
    on = frontier(table, quality, cost).to_numpy(dtype=bool)
    done = (table["state"] == "done").to_numpy(dtype=bool, na_value=False)
    values = numbers(table, quality)
    lost = np.nan_to_num(-values if higher_is_better(quality) else values, nan=np.inf)
    order = np.lexsort((lost, done, ~on))
    return list(dict.fromkeys(str(run) for run in table["run_id"].iloc[order]))[:MOST_DETAILS]


def _flat_config(run: RunDir) -> dict[str, Any]:
    """Return a run's config as dotted keys with plain values, or nothing where it cannot be read."""
    try:
        text = (run.path / "config.yaml").read_text(encoding="utf-8")
        config = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return {}
    if not isinstance(config, dict):
        return {}
    return _flat({key: value for key, value in config.items() if key not in NOT_TOLD})


def _flat(config: Mapping[Any, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = without_secrets(
                value if isinstance(value, str) else json.dumps(value, default=str)
            )
    return found


def _common(configs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the keys that every config has with one value."""
    known = [config for config in configs if config]
    if len(known) < 2 or len(known) < len(configs):
        return {}
    first, *others = known
    return {key: value for key, value in first.items() if all(key in other and other[key] == value for other in others)}


def _log_end(run: RunDir) -> str:
    """Return the last lines of a log, without what moves a cursor and without secrets."""
    try:
        with run.log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - LOG_BYTES, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.rsplit("\r", 1)[-1] for line in text.rstrip().split("\n")[-LOG_LINES:]]
    return "\n".join(printable(without_secrets(line)) for line in lines)[-LOG_CHARACTERS:]


def _command(run: RunDir) -> str:
    """Return the command that trains the same config in a new folder, from where the report was made."""
    here = Path.cwd()
    path = run.path.relative_to(here) if run.path.is_relative_to(here) else run.path
    again = shlex.quote(f"again/{run.name}")
    return f"mkdir -p {again} && cp {shlex.quote(str(path / 'config.yaml'))} {again}/ && python -m lmexp.worker {again}"


def without_secrets(text: str) -> str:
    """Return a text with what looks like a password or a key blotted out."""
    for pattern in SECRETS:
        text = pattern.sub("[left out]", text)
    return text

"""The details of single runs on the page: how the config differs, the end of the log, the command that repeats the run.

Configs contain no secrets by design (runs/mirrors refuses passwords); the sections on logging and launching are left
out all the same. Logs may contain names of folders, which become part of the page. What looks like a password or a key
is replaced in both. At most MAX_DETAILS runs have details: those on the frontier, those without a result, and the best.
"""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from lmexp.analysis.frontier import frontier, is_done, numbers
from lmexp.analysis.table import Study
from lmexp.files import lines_of, open_regular
from lmexp.report.page.answers import answers
from lmexp.runs.columns import higher_is_better
from lmexp.runs.differences import flat_config
from lmexp.runs.directory import RunDir
from lmexp.runs.redact import without_secrets
from lmexp.units import printable

MAX_DETAILS = 300
"""Runs whose details are in the page."""
LOG_LINES, LOG_CHARACTERS, LOG_BYTES = 40, 4000, 65_536
"""The end of a log: its lines, its characters, and the bytes that are read from the disk."""


def details(study: Study, quality: str, cost: str, here: Path | None = None) -> dict[str, Any]:
    """Return what all configs share, and for each detailed run: its differing keys, the end of its log, its command.

    The command is to be typed in the folder `here` [default: the current one].
    """
    here = here or Path.cwd()
    detailed = _detailed_runs(study, quality, cost)
    configs = {run_id: _flat_config(study.runs[run_id]) for run_id in detailed}
    common = _common(list(configs.values()))
    runs = {
        run_id: {
            "config": {key: value for key, value in configs[run_id].items() if key not in common},
            "log": _log_end(study.runs[run_id]),
            "command": _command(study.runs[run_id], here),
            "answers": answers(study.runs[run_id]),
        }
        for run_id in detailed
    }
    return {"common": common, "runs": runs, "left_out": len(study.runs) - len(detailed)}


def _detailed_runs(study: Study, quality: str, cost: str) -> list[str]:
    """Return the runs that get details: first those of the frontier, then those without a result, then the best."""
    table = study.table
    on_frontier = frontier(table, quality, cost).to_numpy(dtype=bool)
    done = is_done(table)
    values = numbers(table, quality)
    losses = np.nan_to_num(-values if higher_is_better(quality) else values, nan=np.inf)
    order = np.lexsort((losses, done, ~on_frontier))
    return list(dict.fromkeys(str(run) for run in table["run_id"].iloc[order]))[:MAX_DETAILS]


def _flat_config(run: RunDir) -> dict[str, Any]:
    """Return the config of a run as dotted keys with text values; empty if it cannot be read."""
    return {
        key: without_secrets(value if isinstance(value, str) else json.dumps(value, default=str))
        for key, value in flat_config(run).items()
    }


def _common(configs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the keys that have the same value in every config."""
    known = [config for config in configs if config]
    if len(known) < 2 or len(known) < len(configs):
        return {}
    first, *others = known
    return {key: value for key, value in first.items() if all(key in other and other[key] == value for other in others)}


def _log_end(run: RunDir) -> str:
    """Return the last lines of a log, without secrets and without characters that move a cursor."""
    try:
        with open_regular(run.log) as file:
            file.seek(max(file.seek(0, os.SEEK_END) - LOG_BYTES, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.rsplit("\r", 1)[-1] for line in lines_of(text.rstrip())[-LOG_LINES:]]
    lines = without_secrets("\n".join(lines)).split("\n")
    return "\n".join(map(printable, lines))[-LOG_CHARACTERS:]


def _command(run: RunDir, here: Path) -> str:
    """Return the command that trains the same config in a new folder, to be typed in the folder `here`."""
    path = run.path.relative_to(here) if run.path.is_relative_to(here) else run.path
    again = shlex.quote(f"again/{run.name}")
    return f"mkdir -p {again} && cp {shlex.quote(str(path / 'config.yaml'))} {again}/ && python -m lmexp.worker {again}"

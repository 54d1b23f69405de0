"""A copy of a study's runs that anybody may see: what a report needs of each run, and nothing that names the machine.

A copied run has its config, its record, its curve and its scores. It has no log, no predictions (they hold texts of the
data) and no weights. The name of the machine is null in the record. The sections `logger` and `launcher` of the
config, with their addresses and shell lines, are the defaults. In every text, an absolute path is cut to its last part
(`.../corpus.txt`), and what looks like a password or a key is left out. The copy of a sweep is a sweep's folder like
any other, so every command that reads runs can read it.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import yaml

from lmexp.config.launchers import LocalLauncher
from lmexp.config.yaml_files import read_yaml
from lmexp.errors import UserError
from lmexp.files import read_bytes, write_atomically, write_json
from lmexp.runs.directory import CURVE, SCORES, RunDir, read_scores, runs_in
from lmexp.runs.forecasts import FOLDER, read_forecasts
from lmexp.runs.manifest import Manifest, read_manifest, write_manifest
from lmexp.runs.redact import without_secrets
from lmexp.runs.state import State

PRIVATE_COLUMNS = ("host",)
"""Columns of a record that name the machine."""
_PATH = re.compile(r"(?:file:/+|(?<![\w/.~<-])~?/(?!/))(?:[^\s/'\"]+/+)*([^\s/'\"]+)/*")
"""An absolute path within a text. The path in a web address does not match, because a host name is before it."""
_ALONE = re.compile(r"~?(?:/[^/\n]+)+/?")
"""A text that is nothing but an absolute path; only such a path may contain spaces."""


def without_places(value: Any) -> Any:
    """Return a value without absolute paths and secrets in its texts, nested ones and keys of mappings too."""
    if isinstance(value, str):
        if _ALONE.fullmatch(value):
            return f".../{Path(value).name}"
        return without_secrets(_PATH.sub(r".../\1", value))
    if isinstance(value, dict):
        return {without_places(key): without_places(of) for key, of in value.items()}
    return [without_places(each) for each in value] if isinstance(value, list | tuple) else value


def write_public_copy(sweep: Path, target: Path, all_runs: bool = False) -> Path:
    """Copy the sweep in the folder `sweep` into a folder of its name in `target`, and return that.

    A run that another sweep ran first is copied into that sweep's folder, as it lies in the outputs. `all_runs` also
    copies the runs in the sweep's folder that its last command did not contain.

    Raises UserError if the manifest cannot be read.
    """
    root = sweep.resolve()
    copy = target / root.name
    copy.mkdir(parents=True, exist_ok=True)
    manifest = read_manifest(sweep)
    if manifest:
        write_manifest(copy, Manifest.model_validate(without_places(manifest.model_dump(mode="json"))))
    paths = [Path(os.path.normpath(root / cell.path)) for cell in manifest.cells] if manifest else []
    if all_runs or not manifest:
        paths += [run.path.resolve() for run in runs_in(root)]
    for path in dict.fromkeys(paths):
        if path.is_dir():  # a sweep that was stopped early has not made all of them
            _copy_run(RunDir(path), RunDir(target / path.parent.name / path.name))
    for file in read_forecasts(sweep):
        text = read_bytes(file.path).decode() if file.forecast else ""
        if text and without_places(text) == text:  # a forecast with a changed text would not match its seal
            (copy / FOLDER).mkdir(exist_ok=True)
            write_atomically(copy / FOLDER / file.path.name, text)
    return copy


def _copy_run(run: RunDir, copy: RunDir) -> None:
    if copy.path.exists():
        return
    copy.path.mkdir(parents=True)
    try:
        config = read_yaml(run.path / "config.yaml")
    except UserError:  # the report says of such a run what is known without it
        config = None
    if isinstance(config, dict):
        config |= {"logger": {"name": "none"}, "launcher": LocalLauncher().model_dump(mode="json")}
        text = yaml.safe_dump(without_places(config), sort_keys=False, allow_unicode=True)
        write_atomically(copy.path / "config.yaml", text)
    private = dict.fromkeys(PRIVATE_COLUMNS)
    record, reached = (
        [without_places(row) | {name: None for name in private if name in row} for row in rows]
        for rows in (run.read_record(), run.read_milestones())
    )
    if reached:
        copy.write_milestones(reached)
    if record:
        copy.write_record(record)
    if points := run.read_curve():
        write_atomically(copy.path / CURVE, "".join(json.dumps(point, allow_nan=False) + "\n" for point in points))
    if scores := read_scores(run.path):
        write_json(copy.path / SCORES, without_places(scores))
    copy.write_state(_public_state(run.read_state()))


def _public_state(state: State) -> State:
    """Return the state of a run without machine and process. A running run becomes queued: nothing trains the copy."""
    name, reason = state.state, state.reason
    if name == "running":
        name, reason = "queued", "it was being trained when this was published"
    return State(
        state=name, reason=without_places(reason), attempts=state.attempts, tokens=state.tokens, share=state.share
    )

"""Finished runs at an address that several people share: `push` and `pull`.

    SWEEP/runs/NAME/SHA256        a file of a run, named by the hash of its content
    SWEEP/runs/NAME/SHA256.json   a run: which files it has; written last, and named by the hash of its content too
    SWEEP/sweep/SHA256.json       which runs and axes the sweep of one person has
    SWEEP/forecasts/SHA256.json   a sealed forecast

A file's name depends on its content, so no file is ever replaced, and two people may push at the same moment. A push
that was killed leaves no run, because the list of files is missing. Two results of one run id are two runs here.

Anybody may have written what is pulled. Names, sizes, hashes and the form of records are checked before a run is put
into the sweep's folder, and nothing is imported. Logs are not shared, because they say much about a machine.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmexp.config.identity import ids_of
from lmexp.config.schema import RunConfig
from lmexp.config.trust import is_shipped, targets_in
from lmexp.config.yaml_files import read_yaml
from lmexp.errors import UserError, nearest, reason_of
from lmexp.files import MAX_BYTES, digest_of, flush_to_disk, hash_text, read_bytes, read_json
from lmexp.messages import Say, say_first, silent
from lmexp.runs.columns import COLUMNS, FAMILIES
from lmexp.runs.directory import CONFLICTS, MAX_REASON, MILESTONES, RECORD, SCORES, RunDir, read_scores
from lmexp.runs.find import runs_of
from lmexp.runs.forecasts import FOLDER, MAX_FILES, add_forecast, read_forecasts
from lmexp.runs.links import check_links, check_sweep_links
from lmexp.runs.manifest import Cell, Manifest, read_manifest, write_manifest
from lmexp.runs.record import is_row
from lmexp.runs.scores import add_scores
from lmexp.runs.state import RESULTS, State
from lmexp.runs.store import Store

CONFIG, FINAL = "config.yaml", "checkpoints/final"
MAX_RUNS, MAX_ROWS, MAX_SWEEPS = 100_000, 10_000, 1000
MAX_TEXT_BYTES, MAX_MANIFEST_BYTES = 2_000_000, 50_000_000
"""The most bytes of a config or of a run's list of files, and of a sweep's list of runs."""
_RUN = r"[a-z0-9_][a-z0-9._-]{0,99}"
_FILE = (
    r"^(config\.yaml|record\.json|milestones\.json|metrics\.jsonl|scores\.json|predictions(-[\w.+-]{1,100})?\.jsonl"
    rf"|{FINAL}/(model\.safetensors|config\.yaml|(target_)?tokenizer\.json))$"
)


class _SharedFile(BaseModel):
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, lt=10**13)]


class SharedRun(BaseModel):
    """A finished run at an address. Keys that a later version adds are ignored."""

    model_config = ConfigDict(frozen=True)
    schema_version: Literal[1] = 1
    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{4,64}$")]
    name: Annotated[str, Field(pattern=f"^{_RUN}$")]
    """The name of its directory."""
    state: Literal["done", "oom", "diverged", "timeout"]
    reason: Annotated[str, Field(max_length=MAX_REASON)] | None = None
    finished: Annotated[str, Field(max_length=40)] | None = None
    """When it ended, as its record says."""
    files: dict[Annotated[str, Field(pattern=_FILE)], _SharedFile]

    @property
    def result(self) -> str:
        """What tells two results of one run apart: the hash of the record, or without one the state."""
        record = self.files.get(RECORD)
        return record.sha256 if record else self.state

    def text(self) -> str:
        """Return the content of its file."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


@dataclass
class Pushed:
    """The result of a push."""

    pushed: list[str] = field(default_factory=list)
    """Names of the runs that were written."""
    present: list[str] = field(default_factory=list)
    """Names of the runs that were there already."""
    unfinished: int = 0
    """Number of runs without a result, which are not copied."""
    conflicts: list[str] = field(default_factory=list)
    """Names of the runs of which the address also has another result."""
    forecasts: int = 0
    """Number of sealed forecasts that were written."""
    n_bytes: int = 0


@dataclass
class Pulled:
    """The result of a pull."""

    folder: Path
    pulled: list[str] = field(default_factory=list)
    """Names of the runs that are new here."""
    completed: list[str] = field(default_factory=list)
    """Names of the runs here that got scores, predictions or weights."""
    present: list[str] = field(default_factory=list)
    """Names of the runs that are complete here already."""
    begun: list[str] = field(default_factory=list)
    """Names of the runs that have begun here without a result, and were left alone."""
    conflicts: list[Path] = field(default_factory=list)
    """Folders of the other results of runs that are finished here."""
    refused: dict[str, str] = field(default_factory=dict)
    """Names of the runs and forecasts that failed a check, with the reason."""
    forecasts: int = 0
    """Number of sealed forecasts that are new here."""
    n_bytes: int = 0


def push(folder: Path, address: str, weights: bool = False, say: Say = silent) -> Pushed:
    """Copy the finished runs of the sweep in `folder` to an address, and return which were copied.

    Files that are there already are not written again. `weights` also copies the final weights.

    Raises UserError for an address that cannot be used, and for a folder without runs.
    """
    store = Store(address)
    sweep = _sweep_name(folder)
    if store.folder and (store.folder / sweep).resolve() == folder.resolve():
        raise UserError(f"{address} holds the runs themselves; name a folder outside the outputs")
    runs = [run for run in runs_of(folder) if run.path.is_dir()]
    known = store.sizes(sweep)
    result = Pushed()

    def one(run: RunDir) -> int | None:
        state = run.read_state()
        if state.state not in RESULTS:
            return None
        check_links(run.path)
        shared, contents = _describe(run, state, weights)
        return _push_run(store, sweep, shared, contents, known, result)

    if manifest := read_manifest(folder):
        cells = [cell.model_copy(update={"path": cell.path.rpartition("/")[2]}) for cell in manifest.cells]
        text = manifest.model_copy(update={"cells": cells, "command": []}).model_dump_json()
        name = f"{sweep}/sweep/{hash_text(text)}.json"
        if known.get(name) != len(text.encode()):
            store.write(name, text.encode())
    for file in read_forecasts(folder):
        content = b"" if file.problem else read_bytes(file.path)
        name = f"{sweep}/{FOLDER}/{_sha256(content)}.json"
        if content and known.get(name) != len(content):
            store.write(name, content)
            result.forecasts += 1
    with ThreadPoolExecutor(store.threads) as pool:
        sent = list(pool.map(one, runs))
    result.unfinished = sum(each is None for each in sent)
    result.n_bytes = sum(each or 0 for each in sent)
    lines = [f"{name} has another result there as well; both are kept" for name in result.conflicts]
    say_first(lines, "`lmexp push --json` lists all", say)
    return result


def _describe(run: RunDir, state: State, weights: bool) -> tuple[SharedRun, dict[str, bytes | Path]]:
    """Return the list of files of a finished run, and their contents by name."""
    contents: dict[str, bytes | Path] = {}
    for file in sorted([*run.path.iterdir(), *(run.final.iterdir() if weights and run.final.is_dir() else [])]):
        name = file.relative_to(run.path).as_posix()
        if re.match(_FILE, name) and file.is_file():
            contents[name] = file if name.startswith(FINAL) else read_bytes(file)
    rows = run.read_record()
    config = read_yaml(run.path / CONFIG)
    shared = SharedRun.model_validate(
        {
            "run_id": config["run"]["id"],
            "name": run.name,
            "state": state.state,
            "reason": state.reason or None,
            "finished": rows[-1].get("finished") if rows else None,
            "files": {
                name: {
                    "sha256": digest_of(content).hex() if isinstance(content, Path) else _sha256(content),
                    "size": content.stat().st_size if isinstance(content, Path) else len(content),
                }
                for name, content in contents.items()
            },
        }
    )
    return shared, contents


def _push_run(
    store: Store,
    sweep: str,
    shared: SharedRun,
    contents: dict[str, bytes | Path],
    known: dict[str, int],
    result: Pushed,
) -> int:
    """Write the missing files of a run, its list of files last, and return the number of bytes written."""
    place, text = f"{sweep}/runs/{shared.name}", shared.text()
    name, sent = f"{place}/{hash_text(text)}.json", 0
    if known.get(name) == len(text.encode()):
        result.present.append(shared.name)
    else:
        for file, content in contents.items():
            about = shared.files[file]
            if known.get(f"{place}/{about.sha256}") != about.size:
                store.write(f"{place}/{about.sha256}", content)
                sent += about.size
        store.write(name, text.encode())
        result.pushed.append(shared.name)
    others = re.compile(rf"{re.escape(place)}/[0-9a-f]{{64}}\.json")
    for other in (other for other in known if others.fullmatch(other) and other != name):
        there = _read_run(store, other, known[other])
        if isinstance(there, SharedRun) and there.result != shared.result:
            result.conflicts.append(shared.name)
            break
    return sent


def pull(folder: Path, address: str, weights: bool = False, say: Say = silent) -> Pulled:
    """Copy the finished runs of a sweep from an address into its folder here, which may be new.

    A run that is finished here stays as it is. If the address has the same result, the run gets the scores and
    predictions that it lacks, and with `weights` the final weights. A different result is kept in
    `conflicts/NAME-HASH`. A run that has begun here and has no result is left alone. If a run is not here and the
    address has several results of it, the one that ended first becomes the run.

    Raises UserError for an address that cannot be used, and if it has no runs of this sweep.
    """
    store = Store(address)
    sweep = _sweep_name(folder)
    sizes = store.sizes(sweep)
    listed = [name for name in sizes if re.fullmatch(rf"{re.escape(sweep)}/runs/{_RUN}/[0-9a-f]{{64}}\.json", name)]
    if not listed:
        raise UserError(f"there are no runs of '{sweep}' at {address}.{nearest(sweep, store.folders())}")
    if len(listed) > MAX_RUNS:
        raise UserError(f"{address} has {len(listed):,} runs of '{sweep}', more than the {MAX_RUNS:,} that are read")
    result = Pulled(folder)
    with ThreadPoolExecutor(store.threads) as pool:
        read = list(pool.map(lambda name: _read_run(store, name, sizes[name]), listed))
    there = [each for each in read if isinstance(each, SharedRun)]
    result.refused = {name: each for name, each in zip(listed, read, strict=True) if isinstance(each, str)}
    folder.mkdir(parents=True, exist_ok=True)
    check_sweep_links(folder)
    with FileLock(folder / ".pull.lock"):
        for left in folder.glob(".pull-*"):
            shutil.rmtree(left)  # of a pull that was killed
        _merge_sweeps(store, sweep, sizes, folder)
        _add_forecasts(store, sweep, sizes, result)
        manifest = read_manifest(folder)
        paths = {cell.run_id: folder / cell.path for cell in manifest.cells} if manifest else {}
        for shared in sorted(there, key=lambda each: (each.finished or "~", each.result, each.text())):
            run = RunDir(Path(os.path.normpath(paths.get(shared.run_id, folder / shared.name))))
            try:
                _pull_run(store, f"{sweep}/runs/{shared.name}", shared, run, sizes, weights, result)
            except (_Refused, FileNotFoundError) as error:
                result.refused[shared.name] = reason_of(error) if isinstance(error, OSError) else str(error)
    refused = [f"warning: {name} was not pulled: {reason}" for name, reason in result.refused.items()]
    say_first(refused, "`lmexp pull --json` lists all", say)
    kept = "has another result there; yours stays, and the other one is in"
    lines = [f"{path.name.rpartition('-')[0]} {kept} {path}" for path in result.conflicts]
    say_first(lines, f"all are in {folder / CONFLICTS}", say)
    return result


class _Refused(Exception):
    """Something at the address failed a check."""


def _read_run(store: Store, name: str, size: int) -> SharedRun | str:
    """Return the run that a file lists, or what is wrong with the file."""
    if size > MAX_TEXT_BYTES:
        return f"its list of files is too large ({size:,} bytes)"
    content = store.read(name)
    if _sha256(content) != Path(name).stem:
        return "its list of files is damaged"
    try:
        shared = SharedRun.model_validate_json(content)
    except ValidationError as error:
        return f"its list of files is wrong: {error.errors()[0]['msg']}"
    if (
        shared.name != name.split("/")[2]
        or CONFIG not in shared.files
        or (shared.state == "done") != (RECORD in shared.files)
    ):
        return "its list of files is not that of a finished run"
    return shared


def _pull_run(
    store: Store, place: str, shared: SharedRun, run: RunDir, sizes: dict[str, int], weights: bool, result: Pulled
) -> None:
    """Put a run from an address into the sweep's folder; see `pull`."""
    wanted = {name: of for name, of in shared.files.items() if weights or not name.startswith(FINAL)}
    if not run.path.exists():
        with _fetched(store, place, shared, wanted, sizes, result) as draft:
            draft.write_state(State(state=shared.state, reason=shared.reason, attempts=1))
            draft.path.rename(run.path)
        flush_to_disk(run.path.parent)
        result.pulled.append(shared.name)
        return
    state = run.read_state()
    if state.state not in RESULTS:
        if not state.never_started:
            result.begun.append(shared.name)
            return
        with run.idle() as idle, _fetched(store, place, shared, wanted, sizes, result) as draft:
            if idle is None or not idle.never_started:
                result.begun.append(shared.name)
                return
            for file in sorted(draft.path.iterdir(), key=lambda file: file.name == RECORD):  # the record comes last
                file.replace(run.path / file.name)
            run.write_state(State(state=shared.state, reason=shared.reason, attempts=1))
        result.pulled.append(shared.name)
        return
    if _result_of(run, state) != shared.result:
        other = run.path.parent / CONFLICTS / f"{shared.name}-{hash_text(shared.result, 12)}"
        if not other.exists():
            other.parent.mkdir(exist_ok=True)
            with _fetched(store, place, shared, wanted, sizes, result) as draft:
                draft.write_state(State(state=shared.state, reason=shared.reason, attempts=1))
                draft.path.rename(other)
            result.conflicts.append(other)
            return
        run = RunDir(other)
    lacked = _complete(store, place, shared, run, wanted, sizes, result)
    (result.completed if lacked else result.present).append(shared.name)


def _complete(
    store: Store,
    place: str,
    shared: SharedRun,
    run: RunDir,
    wanted: dict[str, _SharedFile],
    sizes: dict[str, int],
    result: Pulled,
) -> bool:
    """Give a finished run what it lacks of the same result, and return whether that was anything."""
    missing = {name: of for name, of in wanted.items() if not (run.path / name).exists() and name != MILESTONES}
    scores = wanted.get(SCORES)
    if scores and SCORES not in missing and _sha256(read_bytes(run.path / SCORES)) != scores.sha256:
        missing[SCORES] = scores
    if not missing:
        return False
    check_links(run.path)
    before = read_scores(run.path)
    with _fetched(store, place, shared, missing, sizes, result) as draft:
        later = {task: of for task, of in (read_scores(draft.path) or {}).items() if task not in (before or {})}
        if before is not None:
            for task, of in later.items():
                add_scores(run, task, of["scores"], of.get("details") or {})
        for file in draft.path.iterdir():
            if file.is_file() and file.name != SCORES:
                file.replace(run.path / file.name)
        if draft.final.is_dir() and not run.final.exists():
            run.checkpoints.mkdir(exist_ok=True)
            draft.final.rename(run.final)
    return bool(later) or set(missing) != {SCORES}


@contextmanager
def _fetched(
    store: Store,
    place: str,
    shared: SharedRun,
    files: dict[str, _SharedFile],
    sizes: dict[str, int],
    result: Pulled,
) -> Iterator[RunDir]:
    """Yield a hidden run directory with these files of a run, all of them checked. Raises _Refused."""
    draft = RunDir(Path(tempfile.mkdtemp(prefix=".pull-", dir=result.folder)) / shared.name)
    try:
        draft.path.mkdir()
        for name, about in files.items():
            is_weights = name.startswith(FINAL)
            limit = MAX_TEXT_BYTES if name == CONFIG else MAX_BYTES
            if sizes.get(f"{place}/{about.sha256}") != about.size or (about.size > limit and not is_weights):
                raise _Refused(f"{name} is missing there, or has another size than it should")
            (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
        store.fetch({draft.path / name: f"{place}/{about.sha256}" for name, about in files.items()})
        for name, about in files.items():
            file = draft.path / name
            if digest_of(file).hex() != about.sha256:
                raise _Refused(f"{name} is damaged: its content has another hash than its name")
            flush_to_disk(file)
            result.n_bytes += about.size
        _check_content(draft, shared)
        yield draft
    finally:
        shutil.rmtree(draft.path.parent)


def _check_content(draft: RunDir, shared: SharedRun) -> None:
    """Raise _Refused unless the config is that of the run, and records and scores have their form."""
    for name in (RECORD, MILESTONES):
        if (draft.path / name).exists():
            try:
                rows = read_json(draft.path / name)["rows"]
                good = 0 < len(rows) <= MAX_ROWS and all(map(is_row, rows))
            except (OSError, ValueError, KeyError, TypeError):
                good = False
            if not good or any(row["run_id"] != shared.run_id or not _has_known_columns(row) for row in rows):
                raise _Refused(f"{name} has no rows of this run")
    if (draft.path / SCORES).exists() and read_scores(draft.path) is None:
        raise _Refused(f"{SCORES} has no scores")
    if not (draft.path / CONFIG).exists():
        return
    try:
        config = read_yaml(draft.path / CONFIG)
        is_of_run = isinstance(config, dict) and config["run"]["id"] == shared.run_id
        if is_of_run and all(map(is_shipped, targets_in(config))):  # other code is never imported just to check a hash
            is_of_run = shared.run_id in ids_of(RunConfig.model_validate(config))
    except (UserError, ValidationError, LookupError, TypeError, ValueError, RecursionError):
        is_of_run = False
    if not is_of_run:
        raise _Refused("its config does not give its run id: it was changed, or another version of lmexp made it")


def _has_known_columns(row: dict[str, Any]) -> bool:
    return all(name in COLUMNS or name.startswith(tuple(FAMILIES)) for name in row)


def _merge_sweeps(store: Store, sweep: str, sizes: dict[str, int], folder: Path) -> None:
    """Add the cells and axes of the sweeps at an address to the manifest of the one here; what is here comes first."""
    names = [name for name in sizes if re.fullmatch(rf"{re.escape(sweep)}/sweep/[0-9a-f]{{64}}\.json", name)]
    here = merged = read_manifest(folder)
    for name in sorted(names)[:MAX_SWEEPS]:
        content = store.read(name) if sizes[name] <= MAX_MANIFEST_BYTES else b""
        if _sha256(content) != Path(name).stem:
            continue
        try:
            other = Manifest.model_validate_json(content)
        except ValidationError:
            continue
        cells = [cell for cell in other.cells if re.fullmatch(_RUN, cell.path)]
        other = other.model_copy(update={"cells": cells, "command": []})  # a command from elsewhere is not this user's
        merged = _merged(merged, other) if merged else other
    if merged is not None and merged != here:
        write_manifest(folder, merged)


def _add_forecasts(store: Store, sweep: str, sizes: dict[str, int], result: Pulled) -> None:
    """Put the sealed forecasts of an address beside the sweep here; those that fail a check are refused."""
    names = [name for name in sizes if re.fullmatch(rf"{re.escape(sweep)}/{FOLDER}/[0-9a-f]{{64}}\.json", name)]
    for name in sorted(names)[:MAX_FILES]:
        content = store.read(name) if sizes[name] <= MAX_TEXT_BYTES else b""
        try:
            if _sha256(content) != Path(name).stem:
                raise ValueError("its content has another hash than its name, or is too large")
            result.forecasts += add_forecast(result.folder, content)
        except ValueError as error:
            result.refused[f"{FOLDER}/{Path(name).stem[:12]}"] = str(error)


def _merged(mine: Manifest, other: Manifest) -> Manifest:
    known = {cell.run_id for cell in mine.cells}
    new: list[Cell] = [cell for cell in other.cells if cell.run_id not in known]
    axes = {axis: list(values) for axis, values in mine.axes.items()}
    for axis, values in other.axes.items():
        axes[axis] = [*axes.get(axis, []), *(value for value in values if value not in axes.get(axis, []))]
    skipped = [*mine.skipped, *(cell for cell in other.skipped if cell not in mine.skipped)]
    return mine.model_copy(update={"cells": [*mine.cells, *new], "axes": axes, "skipped": skipped})


def _result_of(run: RunDir, state: State) -> str:
    return _sha256(read_bytes(run.path / RECORD)) if state.state == "done" else state.state


def _sweep_name(folder: Path) -> str:
    name = folder.absolute().name
    if not re.fullmatch(r"[\w+][\w.+-]{0,199}", name):
        raise UserError(f"'{name}' is no name of a sweep's folder")
    return name


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

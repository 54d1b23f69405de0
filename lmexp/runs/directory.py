"""A run directory: the one place where a run's files are named, written and read.

    config.yaml     the resolved config, which is enough to run it again
    state.json      what the run is doing: see runs/state.py
    metrics.jsonl   the curve, one JSON object in each line, append-only
    record.json     the row or rows of the record, written once at the end
    milestones.json the rows of the milestones reached so far; they go into record.json
    scores.json     scores of the final weights, with details; they join the rows when the record is read
    predictions.jsonl  what the final weights predict of each validation example: see runs/predictions.py
    log.txt         everything that the run printed
    checkpoints/    last.ckpt and, with milestones, trunk.ckpt during training, then final/

Readers need no lock: files are replaced as a whole, and a torn last line of the curve is dropped.
"""

import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from lmexp.config.launchers import LauncherConfig
from lmexp.config.schema import SCHEMA_VERSION, RunConfig
from lmexp.config.yaml_files import read_yaml
from lmexp.errors import UserError
from lmexp.files import clock_of, flush_to_disk, open_regular, read_json, write_atomically, write_json
from lmexp.runs.links import check_links
from lmexp.runs.record import Row, is_number, is_row
from lmexp.runs.state import FAILURE_READER, RESULTS, STALE_SECONDS, STATE_READER, Failure, State, StateName

STORES = ".tokens"
"""The folder of token stores, beside the sweeps' folders."""
CONFLICTS = "conflicts"
"""The folder, in a sweep's folder, of other results of runs that were finished here as well; see runs/share.py."""
RECORD, MILESTONES = "record.json", "milestones.json"
"""The rows of a finished run, and those that it has reached on its way."""
CURVE = "metrics.jsonl"
"""The points of the curve."""
WEIGHTS = "model.safetensors"
"""The final weights, in `checkpoints/final/`."""
SCORES = "scores.json"
"""Scores of the final weights; see runs/scores.py."""
PREDICTIONS = "predictions.jsonl"
"""What the final weights predict of each example; see runs/predictions.py."""
STATES_OF_TRAINING = ("last.ckpt", "trunk.ckpt")
"""Checkpoints in `checkpoints/` from which a run goes on; see train/checkpoint.py."""
MAX_REASON = 2000
"""Characters of a state's reason that are read: tables and messages show it."""
MAX_CHANGE_SECONDS = 0.5
"""How long a process that trains nothing holds a run's lock while it changes the state."""
LAUNCHER_READER: TypeAdapter[LauncherConfig] = TypeAdapter(LauncherConfig)
T = TypeVar("T")


@dataclass(frozen=True)
class RunDir:
    """A run directory at `path`."""

    path: Path

    @property
    def name(self) -> str:
        """The directory's name: slug and hash."""
        return self.path.name

    @property
    def log(self) -> Path:
        """Everything that the run printed."""
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        """The folder of its weights."""
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        """The finished model: safetensors, config, tokenizer."""
        return self.checkpoints / "final"

    def note_job(self, job: str) -> None:
        """Write the scheduler's job of the run into its state. No-op while a process trains it: its job has done so."""
        with self.idle() as state:
            if state is not None:
                self.update_state(job=job)

    def last_saved(self) -> float | None:
        """Return when the last checkpoint was written, in seconds since the epoch; None if there is none."""
        times = []
        for name in STATES_OF_TRAINING:
            with suppress(OSError):
                times.append((self.checkpoints / name).stat().st_mtime)
        return max(times, default=None)

    def forget_progress(self) -> None:
        """Delete the state of training and the rows of milestones, so that the run starts over."""
        for file in (*(self.checkpoints / name for name in STATES_OF_TRAINING), self._milestones):
            file.unlink(missing_ok=True)

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> "RunDir":
        """Make the directory with its config and a queued state.

        It is filled under a hidden name and then renamed, so that no reader ever sees half of it. The
        hidden name is the same for each attempt, so a draft that a killed process left is reused and then removed.
        Raises FileExistsError if it exists already, OSError if it cannot be written.
        """
        draft = path.with_name(f".{path.name}.draft")
        if draft.is_symlink():  # a stranger's; lmexp makes folders
            draft.unlink()
        draft.mkdir(parents=True, exist_ok=True)
        run = cls(draft)
        try:
            # Two processes that make it share the draft. The second waits, and has the lock of the finished run then.
            with (draft / ".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not (path / "config.yaml").exists():
                    run.write_config(config)
                    run.write_state(State())
                    draft.rename(path)  # over an empty folder at most
                    return cls(path)
        except OSError as error:
            if not path.exists():
                raise
            raise FileExistsError(path) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        raise FileExistsError(path)

    def read_config(self) -> RunConfig:
        """Return the resolved config. Raises UserError if it is missing or has another schema.

        A model or a task from outside lmexp is imported, because its own section checks its keys; that of code which
        the user does not trust is a UserError.
        """
        return self.parse_config(RunConfig.model_validate)

    def read_launcher(self) -> LauncherConfig:
        """Return the launcher's section of the config, and import nothing. Raises UserError if it cannot be read."""
        return self.parse_config(lambda config: LAUNCHER_READER.validate_python(config["launcher"]))

    def parse_config(self, parse: Callable[[Any], T]) -> T:
        """Return what `parse` makes of the config as plain mappings; nothing else is imported. Raises UserError."""
        file = self.path / "config.yaml"
        if not file.exists():
            raise UserError(f"{self.path} is not a run directory: it has no config.yaml")
        unreadable = f"{file} cannot be read as a config of schema version {SCHEMA_VERSION}"
        try:
            plain = read_yaml(file)
        except (UserError, RecursionError) as error:
            raise UserError(f"{unreadable}: {str(error).splitlines()[0]}") from None
        try:
            return parse(plain)  # a UserError of this says itself what is wrong, as with code that is not trusted
        except (ValidationError, LookupError, TypeError, RecursionError) as error:
            raise UserError(f"{unreadable}: {str(error).splitlines()[0]}") from None

    def write_config(self, config: RunConfig) -> None:
        """Write the resolved config."""
        write_atomically(self.path / "config.yaml", dump_config(config))

    def read_state(self) -> State:
        """Return the state; a missing or unreadable one counts as queued, and its reason says so.

        A run that is done but has no readable record counts as failed, so that it can be trained again.
        """
        try:
            state = self._read_state()
        except (ValueError, AttributeError, RecursionError, OSError):
            return State(reason="state.json could not be read")
        if state.state == "done" and not self._read_rows(self._record):
            return replace(state, state="failed", reason="it was done, but its record.json is missing or unreadable")
        return state

    def set_aside_damaged_state(self) -> str | None:
        """Rename a damaged state.json, before it is written again, and return its new name; None if it is fine."""
        try:
            self._read_state()
        except OSError:
            return None
        except (ValueError, AttributeError, RecursionError):
            file = self.path / "state.json"
            return file.replace(file.with_suffix(".json.damaged")).name
        return None

    def _read_state(self) -> State:
        try:
            known = read_json(self.path / "state.json")
        except FileNotFoundError:
            return State()
        state = STATE_READER.validate_python({k: v for k, v in known.items() if k in State.__dataclass_fields__})
        return replace(state, reason=state.reason[:MAX_REASON]) if state.reason else state

    def write_state(self, state: State) -> None:
        """Replace the state."""
        write_json(self.path / "state.json", asdict(state))

    def update_state(self, **changes: Any) -> State:
        """Change some fields of the state and return the new state."""
        state = replace(self.read_state(), **changes)
        self.write_state(state)
        return state

    @contextmanager
    def idle(self) -> Iterator[State | None]:
        """Lock the run, so that no process trains it, and yield its state; yield None if a process trains it now."""
        state = self.read_state()
        lock = None if self._trains_elsewhere(state) else self.lock(patience=MAX_CHANGE_SECONDS)
        if lock is None:
            yield None
            return
        with lock:
            yield self.read_state()

    def settle(self, **changes: Any) -> State | None:
        """Change the state of a run that is not being trained, and return it; None if a process trains it now.

        A state that is a result stays. A run with a record becomes done, whatever its state says.
        """
        with self.idle() as state:
            if state is None or state.state in RESULTS:
                return state
            if self.read_record():  # its process was killed between writing record and state
                changes = {"state": "done", "reason": None, "pid": None}
            return self.update_state(**changes)

    def stop_waiting(self, why: str) -> State | None:
        """Give a run up that has not ended and is not being trained, and return its state; see `settle`.

        A run that never started stays queued: nothing of it was cancelled.
        """
        name: StateName = "queued" if self.read_state().never_started else "cancelled"
        return self.settle(state=name, reason=why, pid=None, job=None)

    def report_failure(self, rank: int, outcome: StateName, reason: str) -> None:
        """Report why a process other than the first ended; of several reports the first one stays."""
        draft = self.path / f".failure.json.{rank}"
        write_json(draft, asdict(Failure(rank, outcome, reason, time.time())))
        with suppress(FileExistsError):
            os.link(draft, self._failure)
        draft.unlink()

    def read_failure(self) -> Failure | None:
        """Return the report of a process that failed, or None."""
        try:
            return FAILURE_READER.validate_python(read_json(self._failure))
        except (ValueError, RecursionError, OSError):
            return None

    def clear_failure(self, before: float | None = None) -> None:
        """Remove the report of an earlier attempt, or only one that was written before a time; see `now`."""
        with suppress(FileNotFoundError):
            if before is None or self._failure.stat().st_mtime < before:
                self._failure.unlink()

    @property
    def _failure(self) -> Path:
        return self.path / ".failure.json"

    def lock(self, patience: float = 0.0) -> IO[str] | None:
        """Lock the run for this process, until the returned file is closed or the process ends.

        Returns None if another process holds the lock for `patience` seconds. A process that only checks whether the
        run is alive shares it for a moment. Whatever writes into a run locks it first, so a run with a link that leads
        out of the outputs is refused here, with a UserError.
        """
        return self._flock(fcntl.LOCK_EX, patience)

    def _flock(self, kind: int, patience: float) -> IO[str] | None:
        check_links(self.path)
        # NFS grants a shared lock only on a file that is open for reading.
        file, deadline = (self.path / ".lock").open("a+"), time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                return file
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.close()
                    return None
                time.sleep(0.02)

    def is_alive(self, state: State) -> bool:
        """Whether a process trains the run now: on this machine its lock tells, on another one its heartbeat."""
        if state.state == "running" and state.host not in (None, socket.gethostname()):
            return self._trains_elsewhere(state)
        if not self.path.is_dir():
            return False
        # Processes that check at the same time share the lock, so none takes another one for the run's process. Only a
        # state that does not say "running" leaves a doubt: a process that changes the state has the lock for a moment.
        patience = 0.0 if state.state == "running" else MAX_CHANGE_SECONDS
        try:
            lock = self._flock(fcntl.LOCK_SH, patience)
        except (PermissionError, UserError):  # without permission to write, only the heartbeat is left to go by
            return state.state == "running" and self._has_heartbeat(state)
        if lock is not None:
            lock.close()
        return lock is None

    def look(self) -> tuple[State, bool]:
        """Return the state, and whether a process trains the run now.

        The state is read again after the check: a process that is gone may have ended in between, with a result.
        """
        state = self.read_state()
        while not (alive := self.is_alive(state)) and (now := self.read_state()) != state:
            state = now
        return state, alive

    def read_lost(self) -> tuple[State, bool]:
        """Return the state, and whether the run is lost: the state says "running", and its process is gone."""
        state = self.read_state()
        if state.state != "running":
            return state, False
        state, alive = self.look()
        return state, state.state == "running" and not alive

    def _trains_elsewhere(self, state: State) -> bool:
        """Whether a process on another machine has written a heartbeat lately."""
        elsewhere = state.state == "running" and state.host not in (None, socket.gethostname())
        return elsewhere and self._has_heartbeat(state)

    def _has_heartbeat(self, state: State) -> bool:
        """Whether the heartbeat is recent; one from the future is none, whatever clock has written it."""
        return abs(self.now() - (state.heartbeat or 0)) < STALE_SECONDS

    def now(self) -> float:
        """Return the time by the clock of the run's disk, in seconds since the epoch.

        All times in the state are by this clock: those of the machines that train and watch a run may differ by hours.
        """
        return clock_of(self.path)

    def append_point(self, point: dict[str, Any]) -> None:
        """Append a point to the curve with a single write."""
        with (self.path / CURVE).open("ab") as file:
            file.write((json.dumps(point, allow_nan=False) + "\n").encode())

    def flush_curve(self) -> None:
        """Wait until the curve is on the disk: no checkpoint may survive a power cut that its curve does not."""
        with suppress(FileNotFoundError):
            flush_to_disk(self.path / CURVE, self.path)

    def read_log(self) -> str:
        """Return what the run has printed so far; empty if log.txt is missing or is no regular file."""
        try:
            with open_regular(self.log) as file:
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def read_curve(self) -> list[dict[str, Any]]:
        """Return the points of the curve; lines that are no points, such as one torn by a kill, are dropped."""
        try:
            with open_regular(self.path / CURVE) as file:
                lines = file.read().split(b"\n")[:-1]
        except OSError:
            return []
        return points_in(lines)

    def keep_curve_up_to(self, tokens: int) -> None:
        """Drop the points after `tokens`, because a resumed run writes them again."""
        kept = [point for point in self.read_curve() if point.get("tokens", 0) <= tokens]
        write_atomically(self.path / CURVE, "".join(json.dumps(point, allow_nan=False) + "\n" for point in kept))

    def write_milestones(self, rows: list[Row]) -> None:
        """Write the rows of the milestones that a run has reached on its way, atomically."""
        write_json(self._milestones, {"schema_version": SCHEMA_VERSION, "rows": rows})

    def read_milestones(self) -> list[Row]:
        """Return the rows of the milestones that a run has reached on its way; none after its end."""
        return self._read_rows(self._milestones)

    @property
    def _record(self) -> Path:
        return self.path / RECORD

    @property
    def _milestones(self) -> Path:
        return self.path / MILESTONES

    def write_record(self, rows: list[Row]) -> None:
        """Write the record, atomically; from then on it holds the rows of milestones."""
        write_json(self._record, {"schema_version": SCHEMA_VERSION, "rows": rows})
        self._milestones.unlink(missing_ok=True)

    def read_record(self) -> list[Row]:
        """Return the rows of the record, the last one with the scores of scores.json; none without a record."""
        rows = self._read_rows(self._record)
        if not rows:
            return []
        known = read_scores(self.path) or {}
        later = {f"score/{task}/{metric}": v for task, of in known.items() for metric, v in of["scores"].items()}
        return [*rows[:-1], rows[-1] | later]

    def _read_rows(self, file: Path) -> list[Row]:
        """Return the rows in a file as they were written; none if it is missing or damaged."""
        try:
            rows: list[Row] = read_json(file)["rows"]
            return rows if all(map(is_row, rows)) else []
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return []


def points_in(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return the points of a curve in the lines of a metrics.jsonl; lines that are none are dropped."""
    points = []
    for line in lines:
        with suppress(ValueError, RecursionError):
            point = json.loads(line)
            if isinstance(point, dict) and all(map(is_number, point.values())):
                points.append(point)
    return points


def read_scores(path: Path) -> dict[str, Any] | None:
    """Return the content of scores.json by task; it is empty if the file is missing, None if damaged."""
    try:
        known: dict[str, Any] = read_json(path / SCORES)
        good = all(is_number(value) for of in known.values() for value in of["scores"].values())
        return known if good else None
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def dump_config(config: RunConfig) -> str:
    """Return a config as YAML, in the order of the schema."""
    return yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)


def runs_in(folder: Path) -> list[RunDir]:
    """Return the run directories in a sweep's folder, sorted by name."""
    return [RunDir(file.parent) for file in sorted(folder.glob("[!.]*/config.yaml"))]

"""A run directory: the one place where a run's files are named, written and read.

    config.yaml     the resolved config: enough to run it again
    state.json      what is happening: see State
    metrics.jsonl   the curve, one JSON object a line, append-only
    record.json     the row or rows, once, when they are true
    log.txt         all that the run printed
    checkpoints/    last.ckpt while it runs, then final/

Readers need no lock: files are replaced whole, and a torn last line of the curve is dropped.
"""

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, get_args

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from lmexp.config.schema import SCHEMA_VERSION, RunConfig
from lmexp.errors import UserError
from lmexp.files import read_json, write_atomically, write_json
from lmexp.runs.record import Row, is_number, is_row

StateName = Literal["queued", "running", "done", "failed", "oom", "diverged", "timeout", "preempted", "cancelled"]
STATES: tuple[str, ...] = get_args(StateName)
RESULTS = {"done", "oom", "diverged", "timeout"}
"""States that are an answer: running the sweep again leaves them as they are."""
STORES = ".tokens"
"""The folder of token stores, beside the sweeps' folders."""
STALE_SECONDS = 60.0
"""A running state whose heartbeat is older than this has lost its process."""


@dataclass(frozen=True)
class State:
    """What a run is doing. Times are seconds since the epoch."""

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)  # of the check when it is read

    state: StateName = "queued"
    reason: str | None = None
    attempts: int = 0
    host: str | None = None
    pid: int | None = None
    heartbeat: float | None = None
    started: float | None = None
    finished: float | None = None
    tokens: int = 0
    share: float | None = None
    """Share of the budget that is spent."""
    train_loss: float | None = None


_STATE = TypeAdapter(State)


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
        """All that the run printed."""
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        """Where weights are kept."""
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        """The finished model: safetensors, config, tokenizer."""
        return self.checkpoints / "final"

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> "RunDir":
        """Make the directory, exclusively, with its config and a queued state.

        It is filled under a hidden name and then renamed, so that nobody meets it half made.
        Raises FileExistsError when it is there already; OSError when it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.parent / f".{path.name}.{os.getpid()}"
        draft.mkdir()
        try:
            run = cls(draft)
            run.write_config(config)
            run.write_state(State())
            try:
                draft.rename(path)
            except OSError as error:  # a folder that is not empty cannot be renamed over
                raise (FileExistsError(path) if path.exists() else error) from None
        except BaseException:
            for file in draft.iterdir():
                file.unlink()
            draft.rmdir()
            raise
        return cls(path)

    def read_config(self) -> RunConfig:
        """Return the resolved config. Raises UserError when it is missing or not of this schema."""
        file = self.path / "config.yaml"
        try:
            return RunConfig.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(f"{self.path} is not a run directory: it has no config.yaml") from None
        except (yaml.YAMLError, UnicodeDecodeError, ValidationError, RecursionError, OSError) as error:
            raise UserError(
                f"{file} cannot be read as a config of schema version {SCHEMA_VERSION}: {str(error).splitlines()[0]}"
            ) from None

    def write_config(self, config: RunConfig) -> None:
        """Write the resolved config."""
        write_atomically(self.path / "config.yaml", dump_config(config))

    def read_state(self) -> State:
        """Return the state; one that is missing or unreadable counts as queued, with the reason said."""
        try:
            known = read_json(self.path / "state.json")
            return _STATE.validate_python({k: v for k, v in known.items() if k in State.__dataclass_fields__})
        except FileNotFoundError:
            return State()
        except (ValueError, AttributeError, RecursionError, OSError):
            return State(reason="state.json could not be read")

    def write_state(self, state: State) -> None:
        """Replace the state."""
        write_json(self.path / "state.json", asdict(state))

    def update_state(self, **changes: Any) -> State:
        """Change some fields of the state and return it."""
        state = replace(self.read_state(), **changes)
        self.write_state(state)
        return state

    def lock(self, patience: float = 0.0) -> IO[str] | None:
        """Take the run for this process, until the file is closed or the process is gone.

        Returns None if another has it and keeps it for `patience` seconds (who only looks has it for a moment).
        """
        file, deadline = (self.path / ".lock").open("a"), time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.close()
                    return None
                time.sleep(0.02)

    def is_alive(self, state: State) -> bool:
        """Whether a process trains the run now: here by its lock, elsewhere by its heartbeat."""
        if state.state == "running" and state.host not in (None, socket.gethostname()):
            return time.time() - (state.heartbeat or 0) < STALE_SECONDS
        if not self.path.is_dir():
            return False
        lock = self.lock()
        if lock is not None:
            lock.close()
        return lock is None

    def append_point(self, point: dict[str, Any]) -> None:
        """Append a point to the curve, in one write."""
        with (self.path / "metrics.jsonl").open("ab") as file:
            file.write((json.dumps(point, allow_nan=False) + "\n").encode())

    def read_curve(self) -> list[dict[str, Any]]:
        """Return the points of the curve; what is no point (a line torn by a kill, say) is dropped."""
        try:
            lines = (self.path / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
        except OSError:
            return []
        points = []
        for line in lines:
            with suppress(ValueError, RecursionError):
                point = json.loads(line)
                if isinstance(point, dict) and all(map(is_number, point.values())):
                    points.append(point)
        return points

    def keep_curve_up_to(self, tokens: int) -> None:
        """Drop the points after `tokens`: a resumed run writes them again."""
        kept = [point for point in self.read_curve() if point.get("tokens", 0) <= tokens]
        write_atomically(
            self.path / "metrics.jsonl", "".join(json.dumps(point, allow_nan=False) + "\n" for point in kept)
        )

    def write_record(self, rows: list[Row]) -> None:
        """Write the record, once, atomically."""
        write_json(self.path / "record.json", {"schema_version": SCHEMA_VERSION, "rows": rows})

    def read_record(self) -> list[Row]:
        """Return the rows of the record; none when there is no record (yet)."""
        try:
            rows = read_json(self.path / "record.json")["rows"]
            return rows if rows and all(map(is_row, rows)) else []
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return []


def dump_config(config: RunConfig) -> str:
    """Return a config as YAML, in the order of the schema."""
    return yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)


def runs_in(folder: Path) -> list[RunDir]:
    """Return the run directories right below a sweep's folder, by name."""
    return [RunDir(file.parent) for file in sorted(folder.glob("[!.]*/config.yaml"))]

"""A mirror: a copy of a run's curve and record in another tool, which may fail without harm.

The files in the run directory are the truth. At its first failure a mirror says so in one line, and is silent from then
on. A mirror always holds the whole run: opened on a resumed run, it drops what an earlier attempt left in the run
directory, and receives the curve so far first. So `sync` opens a mirror on a finished run and finishes it (sync.py).

Each tool is one class, a `Copy`: wandb.py, tensorboard.py, mlflow.py and trackio.py beside this file, or a class from
outside. All of them say the same of a run, and take it from here: `describe` for the run, `named` for the points of its
curve, `files_of` for its files. Only rank 0 opens a mirror.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from lmexp.config.failures import explain
from lmexp.config.flat import flat
from lmexp.config.schema import LoggerConfig, RunConfig
from lmexp.errors import UserError
from lmexp.messages import Say
from lmexp.runs.columns import QUALITIES, column
from lmexp.runs.directory import RunDir
from lmexp.runs.manifest import read_manifest
from lmexp.runs.record import Row

T = TypeVar("T")
Point = Mapping[str, Any]
"""A point of the curve, with the names that `named` gives."""

AXES = ("tokens", "step", "flops", "seconds")
"""What a point is plotted against; its other numbers are measurements."""
CONNECT_SECONDS = 10.0
"""How long a mirror may wait for its server before the first step."""


def print_line(line: str) -> None:
    """Print to the run's log, at once."""
    print(line, flush=True)


@dataclass(frozen=True)
class Description:
    """What a mirror says of a run in addition to its curve and its record; the same in every tool."""

    id: str
    """The run's hash."""
    name: str
    """The swept values in words."""
    sweep: str
    """The sweep that ran it first."""
    question: str | None
    """The question of that sweep, if it has one."""
    tags: tuple[str, ...]
    """Model, family, task and precision, then `logger.tags`; each once."""
    config: dict[str, Any]
    """The config with dotted keys, without what is null."""
    job_type: str = "train"


@dataclass(frozen=True)
class File:
    """A file or a folder that goes to a tool that keeps files, if `logger.artifacts` names its kind."""

    kind: Literal["model", "report"]
    name: str
    """Letters, digits and `-_.`, at most 80."""
    path: Path


def describe(config: RunConfig, run: RunDir) -> Description:
    """Return what a mirror says of a run; a sweep whose manifest cannot be read has no question."""
    who, model = config.run, config.model
    assert who is not None, "a run's config names its run"
    sweep = None
    with suppress(UserError):
        sweep = read_manifest(run.path.parent)
    own = config.logger.tags if isinstance(config.logger, LoggerConfig) else []
    tags = [model.name, model.family, config.task.name, config.precision.name, *own]
    settings = flat(config.model_dump(mode="json", by_alias=True))
    return Description(
        id=who.id,
        name=who.slug,
        sweep=who.sweep,
        question=sweep.question if sweep else None,
        tags=tuple(dict.fromkeys(tag for tag in tags if tag)),
        config={key: value for key, value in settings if value not in (None, {})},
    )


def metric_name(name: str) -> str:
    """Return the name of a measurement in every tool: `val/` for what evaluations measure, `train/` for the others.

    `loss` in metrics.jsonl is the validation loss, so it becomes `val/loss`; `train_loss` becomes `train/loss`.
    """
    return f"val/{name}" if name in QUALITIES else f"train/{name.removeprefix('train_')}"


def named(point: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of metrics.jsonl with the names that the tools show, and without what is null; axes keep theirs."""
    return {name if name in AXES else metric_name(name): value for name, value in known(point).items()}


def best_of(metric: str) -> Literal["min", "max"] | None:
    """Return which value of a curve is its best; None for what has no good direction, and for training metrics."""
    kind, _, name = metric.partition("/")
    better = column(name).better if kind == "val" else None
    return {"lower": "min", "higher": "max", None: None}[better]


def files_of(config: RunConfig, run: RunDir) -> list[File]:
    """Return the files that `logger.artifacts` asks for of a finished run: its weights, or nothing."""
    logger = config.logger
    asked = isinstance(logger, LoggerConfig) and "model" in logger.artifacts
    return [File("model", run.name, run.final.resolve())] if asked and run.final.is_dir() else []


class Copy:
    """One tool's copy of a run. A class of your own derives from this; any of its methods may raise anything."""

    place: str = ""
    """Where it is: a folder or an address."""
    kept_offline: str | None = None
    """Why it is on the disk only, if it should be online."""

    def __init__(self, config: RunConfig, run: RunDir) -> None:
        """Open the copy of a run. Keys beside the logger's `_target_` arrive as further keyword arguments."""

    def log(self, point: Point) -> None:
        """Add a point of the curve, such as {"step": 5, "tokens": 1280, "train/loss": 5.1}."""
        raise NotImplementedError

    def add_file(self, file: File, record: Row) -> None:
        """Add a file of a finished run, before `finish`; called only if `logger.artifacts` asks for it."""
        raise NotImplementedError

    def finish(self, record: Row | None, exit_code: int) -> None:
        """Add the record, if there is one, and close. The exit code is 0 for a run that is done."""


class Mirror:
    """A copy of a run that cannot harm it; without a copy, nothing."""

    stopped: str | None = None
    """Why it stopped, where it did."""

    def __init__(
        self,
        title: str,
        copy: Callable[[], Copy] | None = None,
        say: Say = print_line,
        files: Callable[[], list[File]] = list,
    ) -> None:
        self._title, self._say, self._files = title, say, files
        self._copy = self._guarded(copy) if copy else None

    @property
    def place(self) -> str | None:
        """Where the copy is, if there is one: a folder or an address."""
        return self._copy.place if self._copy else None

    @property
    def kept_offline(self) -> str | None:
        """Why the copy is on the disk only, where it was asked to be online."""
        return self._copy.kept_offline if self._copy else None

    def log(self, point: Mapping[str, Any]) -> None:
        """Add a point of the curve, as it is in metrics.jsonl."""
        copy = self._copy
        if copy and self.stopped is None:
            self._guarded(lambda: copy.log(named(point)))

    def finish(self, record: Row | None, exit_code: int) -> None:
        """Add the record, if the run has one, and close with the process's exit code.

        A mirror that stopped is closed too: W&B would otherwise do it, slowly, when the process ends.
        """
        copy = self._copy
        if copy and record and exit_code == 0 and self.stopped is None:
            self._guarded(lambda: self._add_files(copy, record))
        if copy:
            self._guarded(lambda: copy.finish(record, exit_code))

    def _add_files(self, copy: Copy, record: Row) -> None:
        for file in self._files():
            copy.add_file(file, record)

    def _guarded(self, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except Exception as error:
            if self.stopped is None:
                self.stopped = explain(error)
                self._say(f"the {self._title} mirror stopped: {self.stopped}; the run goes on")
            return None


def known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is null."""
    return {name: value for name, value in values.items() if value is not None}


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Keep the numbers."""
    return {
        name: value for name, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }


def measured(point: Point) -> dict[str, float]:
    """Keep the numbers of a point that are not axes."""
    return {name: value for name, value in numbers(point).items() if name not in AXES}


def final_numbers(record: Row) -> dict[str, float]:
    """Keep the numbers of a record, under names of their own: the curve has a `loss` too."""
    return {f"record/{name}": value for name, value in numbers(record).items()}

"""What starts runs: one interface, for this machine, Slurm, Ray, and launchers of your own.

An engine needs nothing of a run but its directory, and reports only whether a process has ended. The queue reads what
became of the run from its state file, so runs of every engine end alike.

A launcher of your own is one class that derives from Engine, in any module that can be imported:

    class MyLauncher(Engine[MyHandle]):
        def __init__(self, sweep: Sweep, python: str = "python") -> None:
            self.python = python

        def start(self, runs: Sequence[PlannedRun]) -> Iterator[MyHandle]:
            for planned in runs:
                yield MyHandle(subprocess.Popen([self.python, "-m", "lmexp.worker", str(planned.run.path)]))

        def stop(self, handles: Sequence[MyHandle]) -> None: ...

A file in conf/launcher/ names it, and sets its arguments: `{_target_: my_study.launchers.MyLauncher, python: python3}`.
All other methods have defaults that suit runs that end with their coordinator.
"""

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from lmexp.config.code import load_target
from lmexp.config.launchers import LauncherSection, OutsideLauncher
from lmexp.errors import UserError
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.runs.state import State, StateName


class Handle(Protocol):
    """A started run."""

    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal, or None while the run is running or waiting."""

    @property
    def job(self) -> str | None:
        """The scheduler's job that has the run, as in its state: `slurm:12_3`; None if no scheduler has it."""
        return None


H = TypeVar("H", bound=Handle)


class Engine(ABC, Generic[H]):
    """Starts runs and stops them."""

    outlives_coordinator: ClassVar[bool] = False
    """Whether runs that it has started, or that wait in its scheduler, go on after the command has ended."""

    def __init__(self, sweep: Sweep) -> None:
        """Raises UserError if a package is missing, or if the place that runs should start in cannot be reached."""

    @abstractmethod
    def start(self, runs: Sequence[PlannedRun]) -> Iterable[H]:
        """Start reserved runs in order; handles yielded before an error stay valid."""

    @abstractmethod
    def stop(self, handles: Sequence[H]) -> None:
        """End runs with all their processes, and return when they are gone.

        SIGTERM to a worker makes it save a checkpoint first.
        """

    def reserve(self, planned: PlannedRun) -> bool:
        """Reserve room for a run that starts next; False if there is none now."""
        return True

    def release(self, handle: H) -> None:
        """Free the room of a run that has ended; its handle is not used again."""

    def adopt(self, planned: PlannedRun, state: State) -> H | None:
        """Return a handle of a run that an earlier coordinator gave to a scheduler, if the scheduler still has it."""
        return None

    def why(self, handle: H) -> tuple[StateName, str] | None:
        """Return state and reason of a run that ended without writing them, if the engine knows them."""
        return None

    def close(self) -> None:
        """Release what the engine holds; it is not used again."""

    @classmethod
    def cancel(cls, jobs: Sequence[str]) -> None:
        """Cancel jobs, named as in the states of their runs, that no coordinator watches any more.

        Raises UserError if the scheduler cannot be reached from here.
        """


def load_engine(launcher: LauncherSection) -> type[Engine[Any]]:
    """Import the engine class of a launcher.

    Raises UserError if the class comes from outside lmexp and the user has not allowed it, or if it is no whole Engine.
    """
    if isinstance(launcher, OutsideLauncher):
        loaded = load_target(launcher.target, "launcher")
        if not (isinstance(loaded, type) and issubclass(loaded, Engine)):
            raise UserError(f"the launcher {launcher.target} must be a class that derives from {__name__}.Engine")
        if missing := sorted(loaded.__abstractmethods__):
            raise UserError(f"the launcher {launcher.target} must define {' and '.join(missing)}")
        return loaded
    module, _, name = launcher.engine.rpartition(".")
    engine: type[Engine[Any]] = getattr(importlib.import_module(module), name)
    return engine


def open_engine(sweep: Sweep) -> Engine[Any]:
    """Return the engine of a sweep.

    Raises UserError if its package is missing, if its cluster cannot be reached, or if it does not take the arguments
    that the config gives it.
    """
    launcher = sweep.examples[0].config.launcher
    engine = load_engine(launcher)
    arguments = launcher.arguments if isinstance(launcher, OutsideLauncher) else {}
    try:
        inspect.signature(engine).bind(sweep, **arguments)
    except TypeError as problem:
        raise UserError(f"launcher={launcher.name}: {engine.__name__}: {problem}") from None
    return engine(sweep, **arguments)

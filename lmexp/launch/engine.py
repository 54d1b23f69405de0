"""What starts runs: one interface, for this machine, Slurm, Ray, and launchers of your own.

An engine needs nothing of a run but its directory, and reports only whether a process has ended. The queue reads what
became of the run from its state file, so runs of every engine end alike.

A launcher of your own is one class, named by `launcher._target_`, with at least `start`, `stop`, and a typed `Config`
for the keys beside `_target_`:

    class MyLauncher(Engine[MyHandle]):
        class Config(LauncherSection):
            target: str = Field(alias="_target_")
            name: str = "mine"

        def start(self, runs):
            return [MyHandle(subprocess.Popen([sys.executable, "-m", "lmexp.worker", planned.run.path]))
                    for planned in runs]

        def stop(self, handles): ...

All other methods have defaults that suit runs that end with their coordinator.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from lmexp.config.launchers import LauncherSection
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.runs.directory import State, StateName


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
    """Import the engine of a launcher."""
    module, _, name = launcher.engine.rpartition(".")
    engine: type[Engine[Any]] = getattr(importlib.import_module(module), name)
    return engine


def open_engine(sweep: Sweep) -> Engine[Any]:
    """Return the engine of a sweep. Raises UserError if its package is missing or its cluster cannot be reached."""
    return load_engine(sweep.examples[0].config.launcher)(sweep)

"""What starts runs: one interface, for this machine, Slurm and Ray.

An engine needs nothing of a run but its directory, and says only whether a process has ended. What became of the run
is read from its state file by the queue, so every engine's runs end alike.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from lmexp.resolve.planned import PlannedRun
from lmexp.runs.directory import State, StateName


class Handle(Protocol):
    """A started run."""

    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs or waits for its turn."""

    @property
    def job(self) -> str | None:
        """The scheduler's job that has the run, as in its state: `slurm:12_3`; None on this machine."""


H = TypeVar("H", bound=Handle)


class Engine(Protocol[H]):
    """Starts runs and stops them."""

    def adopt(self, planned: PlannedRun, state: State) -> H | None:
        """Return a handle of a run that an earlier coordinator has handed over to a scheduler, which still has it."""

    def reserve(self, planned: PlannedRun) -> bool:
        """Take a place for a run that is to be started next; False while there is none."""

    def start(self, runs: Sequence[PlannedRun]) -> Iterable[H]:
        """Start runs that have places, in order; those that were started before an error have been given out."""

    def release(self, handle: H) -> None:
        """A run has ended: its place is free, and its handle is asked no more."""

    def why(self, handle: H) -> tuple[StateName, str] | None:
        """Return state and reason of a run that ended without a word, where the engine knows them."""

    def stop(self, handles: Sequence[H]) -> None:
        """End runs with all their processes, and return when they are gone; those that can, save first."""

    def close(self) -> None:
        """Nothing more will be asked."""

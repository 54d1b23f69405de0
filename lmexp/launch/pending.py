"""Where the queue gets its runs from: a list, or a search that decides as it goes."""

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from lmexp.resolve.planned import PlannedRun
from lmexp.runs.directory import RESULTS, WAITING, RunDir, State


class Source(Protocol):
    """Gives out runs and hears what became of them."""

    def peek(self) -> PlannedRun | None:
        """Return the run that is next to start, None while there is none; the same until it is popped."""

    def pop(self) -> PlannedRun:
        """Give out the run that peek showed."""

    def put_back(self, planned: PlannedRun) -> None:
        """Take back a run that is to be started once more."""

    def has_answer(self, planned: PlannedRun, state: State) -> bool:
        """Whether a run is not to be started (again), for it has ended with a result."""

    def ended(self, planned: PlannedRun, state: State) -> None:
        """Hear what became of a run that was given out."""

    def hopeless(self, planned: PlannedRun) -> str | None:
        """Return why a run that is under way is not worth finishing, or None."""

    @property
    def rest(self) -> list[PlannedRun]:
        """The runs that are known and not given out."""

    @property
    def exhausted(self) -> bool:
        """Whether nothing will come any more, once all that was given out has ended."""


class Listed:
    """Runs in their order."""

    def __init__(self, runs: Iterable[PlannedRun]) -> None:
        self._left = deque(runs)

    def peek(self) -> PlannedRun | None:
        """Return the next run; those that wait for another one's weights let others pass."""
        for _ in range(len(self._left)):
            if _is_ready(self._left[0]):
                return self._left[0]
            self._left.rotate(-1)
        return None

    def pop(self) -> PlannedRun:
        """Give out the next run."""
        return self._left.popleft()

    def put_back(self, planned: PlannedRun) -> None:
        """Take back a run; it comes last."""
        self._left.append(planned)

    def has_answer(self, planned: PlannedRun, state: State) -> bool:
        """Whether its state is a result."""
        return state.state in RESULTS

    def ended(self, planned: PlannedRun, state: State) -> None:
        """A list does not change its mind."""

    def hopeless(self, planned: PlannedRun) -> str | None:
        """A list wants all its runs."""

    @property
    def rest(self) -> list[PlannedRun]:
        """The runs that are left."""
        return list(self._left)

    @property
    def exhausted(self) -> bool:
        """Whether none is left."""
        return not self._left


def _is_ready(planned: PlannedRun) -> bool:
    """Whether a run can start, or has nothing to wait for any more: the one whose weights it needs has ended."""
    if planned.needs is None:
        return True
    state = planned.needs.run.read_state()
    return state.state not in WAITING


def is_pending(planned: PlannedRun) -> bool:
    """Whether a run is still to be done: new, or ended without a result."""
    state = planned.run.read_state()
    return state.state not in RESULTS and not planned.run.is_alive(state)


def enqueue(planned: PlannedRun) -> None:
    """Make the run's directory, or set an earlier attempt back to queued; its checkpoint stays."""
    if not (planned.run.path / "config.yaml").exists():
        with suppress(FileExistsError):  # another coordinator made it just now
            RunDir.create(planned.run.path, planned.config)
        return
    with planned.run.idle() as state:
        if state is None or state.state in RESULTS:  # another coordinator has been faster
            return
        # The run is the same, but what cannot change its result may not be: logger, price, how often it is saved.
        planned.run.write_config(planned.config)
        planned.run.set_aside_damaged_state()
        if planned.run.read_record():  # only its state was lost
            planned.run.update_state(state="done", reason=None, pid=None)
        elif state.state != "queued":
            planned.run.update_state(state="queued", reason=None, pid=None)

"""Where the queue gets its runs from: a fixed list, or a search that chooses them from earlier results."""

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from lmexp.resolve.planned import PlannedRun
from lmexp.runs.directory import RunDir
from lmexp.runs.state import RESULTS, WAITING, State


class Source(Protocol):
    """Yields runs to start, and learns their outcomes."""

    def peek(self) -> PlannedRun | None:
        """Return the run to start next, the same until it is popped; None if there is none now."""

    def pop(self) -> PlannedRun:
        """Remove and return the run that peek returned."""

    def put_back(self, planned: PlannedRun) -> None:
        """Return a run to the source, to be started again."""

    def has_answer(self, planned: PlannedRun, state: State) -> bool:
        """Whether a run has a result, so that it is not started again."""

    def ended(self, planned: PlannedRun, state: State) -> None:
        """Learn the outcome of a run that was popped."""

    def hopeless(self, planned: PlannedRun) -> str | None:
        """Return why a run that is under way should be stopped, or None."""

    @property
    def rest(self) -> list[PlannedRun]:
        """The runs that are known and not popped yet."""

    @property
    def exhausted(self) -> bool:
        """Whether no further run will come, apart from those that are put back."""


class Listed:
    """A fixed list of runs, in their order."""

    def __init__(self, runs: Iterable[PlannedRun]) -> None:
        self._left = deque(runs)

    def peek(self) -> PlannedRun | None:
        """Return the next run whose weights, if it starts from another run's, are ready."""
        for _ in range(len(self._left)):
            if _is_ready(self._left[0]):
                return self._left[0]
            self._left.rotate(-1)
        return None

    def pop(self) -> PlannedRun:
        """Remove and return the next run."""
        return self._left.popleft()

    def put_back(self, planned: PlannedRun) -> None:
        """Append a run to the end of the list."""
        self._left.append(planned)

    def has_answer(self, planned: PlannedRun, state: State) -> bool:
        """Whether its state is a result."""
        return state.state in RESULTS

    def ended(self, planned: PlannedRun, state: State) -> None:
        """No-op: a fixed list ignores outcomes."""

    def hopeless(self, planned: PlannedRun) -> str | None:
        """Return None: a fixed list needs all its runs."""

    @property
    def rest(self) -> list[PlannedRun]:
        """The runs that are left."""
        return list(self._left)

    @property
    def exhausted(self) -> bool:
        """Whether none is left."""
        return not self._left


def _is_ready(planned: PlannedRun) -> bool:
    """Whether a run can start: the run whose weights it needs, if any, has ended."""
    if planned.needs is None:
        return True
    state = planned.needs.run.read_state()
    return state.state not in WAITING


def is_pending(planned: PlannedRun) -> bool:
    """Whether a run has no result yet and nobody is training it."""
    if planned.run.read_state().state in RESULTS:
        return False
    state, alive = planned.run.look()
    return not alive and state.state not in RESULTS


def enqueue(planned: PlannedRun) -> None:
    """Make the run's directory, or set an earlier attempt back to queued; its checkpoint stays."""
    if not (planned.run.path / "config.yaml").exists():
        with suppress(FileExistsError):  # another coordinator has just made it
            RunDir.create(planned.run.path, planned.config)
        return
    with planned.run.idle() as state:
        if state is None or state.state in RESULTS:  # another coordinator was faster
            return
        # The run is the same, but settings that cannot change its result may differ: logger, price, checkpoint.every.
        planned.run.write_config(planned.config)
        planned.run.set_aside_damaged_state()
        if planned.run.read_record():  # only the state was lost
            planned.run.update_state(state="done", reason=None, pid=None)
        elif state.state != "queued":
            planned.run.update_state(state="queued", reason=None, pid=None)

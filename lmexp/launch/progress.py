"""Progress of a running sweep: what is done, what runs, and how much time and how many tokens are left."""

import time
from collections.abc import Sequence

from rich.live import Live

from lmexp.config.checks import may_be_compiled
from lmexp.launch.time_left import Taken, seconds_left, taken
from lmexp.messages import MAX_LINES
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.runs.state import State
from lmexp.runs.status import progress_text
from lmexp.terminal import Terminal, progress_seconds
from lmexp.units import counted, duration, si

LOOK_SECONDS = 0.5
"""How often the states of the running runs are read for the live lines of a terminal."""


class SweepProgress:
    """Prints a line for each run that ends, and the progress of the runs under way.

    On a terminal, each run under way has a live line. Without one, as in CI, under nohup and in a job of Slurm, a few
    plain lines are printed at least every 30 seconds.
    """

    def __init__(self, console: Terminal, sweep: Sweep) -> None:
        runs = sweep.runs
        self.console, self._sweep = console, sweep
        self._weights = {} if sweep.search else _weights(runs)
        """Work of each run; each trial of a search counts 1."""
        self._waiting = dict(self._weights)
        """Work of the runs that have not ended, in their order; empty for a search."""
        self._taken: list[Taken] = []
        """What the runs took that have ended."""
        self._slots = 1
        """The most runs that were seen under way at once."""
        self._tokens = {planned.run.name: planned.horizon.spent_tokens for planned in runs}
        """Tokens of the runs that have not ended; None if the budget is a time."""
        self.ended_runs = 0
        self._started: dict[str, float] = {}
        """When runs were started, by the monotonic clock."""
        self._live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None
        self._every = LOOK_SECONDS if self._live else progress_seconds()
        self._looked = 0.0 if self._live else time.monotonic()

    @property
    def total(self) -> int:
        """How many runs the sweep has, as far as is known."""
        search = self._sweep.search
        if search is None:
            return len(self._sweep.runs)
        return max(search.spec.trials - len(self._sweep.skipped), self.ended_runs)

    @property
    def has_started(self) -> bool:
        """Whether a run was started, or found to be done."""
        return bool(self._started) or self.ended_runs > 0

    def __enter__(self) -> "SweepProgress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._live:
            self._live.stop()

    def started(self, planned: PlannedRun) -> None:
        """A run was started."""
        self._started[planned.run.name] = time.monotonic()

    def ended(self, planned: PlannedRun, state: State) -> None:
        """Print the outcome of a run."""
        self.ended_runs += 1
        self._tokens.pop(planned.run.name, None)
        self._waiting.pop(planned.run.name, None)
        earlier = planned.run.name not in self._started
        says_time = state.state == "done" or state.is_pruned  # a failed run does not say how long another one takes
        if not earlier and says_time and (known := taken(self._work(planned), state)):
            self._taken.append(known)
        self.console.print_line(
            f"{self.ended_runs}/{self.total}  {planned.run.name}  {_outcome(planned, state, earlier)}"
        )

    def again(self, planned: PlannedRun, why: str) -> None:
        """Print that a run will be started again, and why."""
        self.console.print_line(f"{planned.run.name} is started again: {why}")

    def waiting(self, running: Sequence[PlannedRun]) -> None:
        """Show the progress of the runs under way, once in each interval."""
        if time.monotonic() - self._looked < self._every:
            return
        self._looked = time.monotonic()
        states = [(planned, planned.run.read_state()) for planned in running]
        left = [self._tokens_left(states), self._seconds_left(states)]
        if self._live:
            lines = [_running(planned, state) for planned, state in states]
            lines.append(", ".join([f"{self.ended_runs}/{self.total} runs", *filter(None, left)]))
            self._live.update("\n".join(lines), refresh=True)
            return
        for planned, state in states[:MAX_LINES]:
            since_start = time.monotonic() - self._started[planned.run.name]
            self.console.print_line(f"{planned.run.name}  {_progress_of(planned, state, since_start)}")
        if len(states) > MAX_LINES:
            self.console.print_line(f"and {counted(len(states) - MAX_LINES, 'more run')} under way")
        if len(states) != 1 or self.total > 1:
            self.console.print_line(", ".join([f"{self.ended_runs}/{self.total} runs have ended", *filter(None, left)]))

    def _tokens_left(self, states: Sequence[tuple[PlannedRun, State]]) -> str:
        known = [tokens for tokens in self._tokens.values() if tokens is not None]
        if not known or len(known) < len(self._tokens):
            return ""
        return f"{si(sum(known) - sum(state.tokens for _, state in states))} tokens left"

    def _seconds_left(self, states: Sequence[tuple[PlannedRun, State]]) -> str:
        """Return how long the rest takes, by the runs seen so far; empty as long as that cannot be estimated.

        How long runs wait in a scheduler's queue is not known: they count as runs that start when another one ends.
        """
        names = {planned.run.name for planned, _ in states}
        in_queue = [self._work(planned) for planned, state in states if state.state == "queued" and state.job]
        running = [
            (self._work(planned), state) for planned, state in states if not (state.job and state.state == "queued")
        ]
        self._slots = max(self._slots, len(running))
        if self._sweep.search:
            later = [1.0] * (self.total - self.ended_runs - len(states))
        else:
            later = [work for name, work in self._waiting.items() if name not in names]
        left = seconds_left(running, [*in_queue, *later], self._taken, self._slots)
        return "" if left is None else f"about {duration(left)} left"

    def _work(self, planned: PlannedRun) -> float:
        return self._weights.get(planned.run.name, 1.0)


def _outcome(planned: PlannedRun, state: State, earlier: bool) -> str:
    if state.state == "done":
        rows = planned.run.read_record()
        loss = f"loss {rows[-1]['loss']:.4f}" if rows and rows[-1].get("loss") is not None else "no record"
        took = (state.finished or 0) - (state.started or 0)
        return f"{loss}, {'done before' if earlier else duration(took)}"
    if state.state == "running":
        return "is being run by another process"
    return f"{state.state}: {state.reason}"


def _weights(runs: Sequence[PlannedRun]) -> dict[str, float]:
    """Return the work of each run: in FLOPs, or in seconds if all budgets are times, or 1 each."""
    for each in ([planned.horizon.spent_flops for planned in runs], [planned.horizon.seconds for planned in runs]):
        if all(each):
            return {planned.run.name: size for planned, size in zip(runs, each, strict=True) if size}
    return {planned.run.name: 1.0 for planned in runs}


def _running(planned: PlannedRun, state: State) -> str:
    share = state.share or 0.0
    loss = f", train loss {state.train_loss:.3f}" if state.train_loss is not None else ""
    return f"  {planned.run.name}  {share:.0%}{loss}"


def _progress_of(planned: PlannedRun, state: State, since_start: float) -> str:
    """Return what a run does now, and its progress; `since_start` is the number of seconds since its start."""
    if state.state == "queued":
        waits = f"waits in its scheduler's queue as {state.job}" if state.job else "is starting"
        return f"{waits}, {duration(since_start)}"
    if not state.steps:
        compiles = may_be_compiled(planned.config, planned.device.kind)
        what = "prepares or compiles its first step" if compiles else "prepares its first step"
        return f"{what}, {duration(since_start)}"
    return progress_text(state)

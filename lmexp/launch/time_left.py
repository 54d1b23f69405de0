"""How long the rest of a sweep takes, from the runs that have ended and from those under way.

A run takes its start-up (imports, compiling, the first step), which does not depend on its length, and then time in
proportion to its work. Both are measured: no estimate is made before a run has shown its speed.
"""

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lmexp.runs.state import State
from lmexp.runs.status import seconds_left as seconds_left_of_run

ALIKE = 0.1
"""The distance of two runs is the logarithm of the ratio of their work; distances closer than this count as equal."""


@dataclass(frozen=True)
class Taken:
    """What a run took, or will take by its present speed."""

    work: float
    """In FLOPs, or in another unit that all runs of the sweep share."""
    seconds: float
    """From its start to its end."""
    startup: float | None = None
    """Seconds before training; None if that is unknown."""


def taken(work: float, state: State) -> Taken | None:
    """Return what a run took from its start to its end, or will take; None if its state does not say it yet.

    An attempt that continued an earlier one trained only a part of the run, so its end does not say how long a whole
    run takes.
    """
    train, is_first = state.seconds_per_budget, state.attempts <= 1
    if state.started is None:
        return None
    startup = None
    if train is not None and state.measured_from is not None:
        before = (state.measured_share or 0.0) * train if is_first else 0.0  # trained before the first heartbeat
        startup = max(state.measured_from - state.started - before, 0.0)
    if state.finished is not None and is_first:
        return Taken(work, max(state.finished - state.started, 0.0), startup)
    return None if train is None or startup is None else Taken(work, startup + train, startup)


def seconds_left(
    running: Iterable[tuple[float, State]], waiting: Iterable[float], ended: Sequence[Taken], slots: int
) -> float | None:
    """Return how long the rest of a sweep takes; None if nothing has shown it yet.

    Args:
        running: work and state of each run that has a process.
        waiting: work of each run that starts later, in their order.
        ended: what earlier runs took.
        slots: how many runs are under way at once; each further run starts when one of them ends.
    """
    running = list(running)
    known = [*ended, *(one for one in (taken(work, state) for work, state in running) if one is not None)]
    if not known or not running:
        return None
    ends = [_left(state, _expected(work, known)) for work, state in running]
    ends += [0.0] * (slots - len(ends))
    heapq.heapify(ends)
    for work in waiting:
        heapq.heapreplace(ends, ends[0] + _expected(work, known))
    return max(ends)


def _left(state: State, whole: float) -> float:
    """Return the seconds that a run under way still takes; `whole` is what a run of its work takes."""
    measured = seconds_left_of_run(state)
    if measured is not None:
        return measured
    spent = (state.heartbeat or 0.0) - (state.started or 0.0) if state.state == "running" else 0.0
    return min(max(whole - spent, 0.0), (1 - (state.share or 0.0)) * whole)


def _expected(work: float, known: Sequence[Taken]) -> float:
    """Return the seconds of a run: those of the known runs whose work is nearest to its own, scaled to its work.

    Small models need more time per FLOP than large ones, so the mean over all known runs would be too far off.
    """
    startups = [one.startup for one in known if one.startup is not None]
    startup = sum(startups) / len(startups) if startups else 0.0
    distances = [abs(math.log(work / one.work)) for one in known]
    near = [one for one, distance in zip(known, distances, strict=True) if distance <= min(distances) + ALIKE]
    return sum(_scaled(one, work, min(startup, one.seconds)) for one in near) / len(near)


def _scaled(one: Taken, work: float, startup: float) -> float:
    return startup + (one.seconds - startup) * work / one.work

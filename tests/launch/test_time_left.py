"""The time left of a sweep counts start-up as start-up, and says nothing before a run has shown its speed."""

import heapq
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lmexp.launch.time_left import Taken, seconds_left, taken
from lmexp.runs.state import MIN_MEASURED_SECONDS, State

STARTUP, BEAT = 5.0, 2.0


def states(works: list[float], slots: int, pace: float, now: float) -> tuple[list[State | None], float]:
    """Return the state of each run at a time, None before its start, and when the last run ends.

    Each run takes a start-up, then seconds in proportion to its work; the first heartbeat comes a while after a step.
    """
    free, last = [0.0] * slots, 0.0
    all_states: list[State | None] = []
    for work in works:
        begin = heapq.heappop(free)
        trains, end = begin + STARTUP, begin + STARTUP + work * pace
        heapq.heappush(free, end)
        last = max(last, end)
        first = min(trains + BEAT, end)
        share = min(max((now - trains) / (work * pace), 0.0), 1.0)
        seen: dict[str, Any] = (
            {"measured_from": first, "measured_share": (first - trains) / (work * pace)} if now >= first else {}
        )
        times: dict[str, Any] = {"started": begin, "heartbeat": min(now, end), "share": share, "attempts": 1, **seen}
        state = State("done", finished=end, **times) if now >= end else State("running", **times)
        all_states.append(state if now >= begin else None)
    return all_states, last


@given(
    st.lists(st.floats(1.0, 50.0), min_size=1, max_size=12),
    st.integers(1, 3),
    st.floats(0.5, 5.0),
    st.floats(0.05, 0.99),
)
def test_where_runs_take_a_startup_and_time_in_proportion_to_their_work_the_estimate_is_the_truth(
    works: list[float], slots: int, pace: float, share: float
):
    _, end = states(works, slots, pace, 0.0)
    now = share * end
    at, _ = states(works, slots, pace, now)
    runs = list(zip(works, at, strict=True))
    ended = [one for work, state in runs if state and state.finished and (one := taken(work, state))]
    running = [(work, state) for work, state in runs if state and not state.finished]
    waiting = [work for work, state in runs if state is None]
    shown = [state for _, state in [*running, *runs] if state and state.seconds_per_budget]
    assume(running and shown)
    assert seconds_left(running, waiting, ended, min(slots, len(works))) == pytest.approx(end - now, rel=1e-6)


def test_before_a_run_has_shown_its_speed_nothing_is_said():
    starting = State("running", attempts=1, started=0.0, heartbeat=30.0)
    begun = State(
        "running", attempts=1, started=0.0, heartbeat=30.0 + MIN_MEASURED_SECONDS / 2, measured_from=30.0, share=0.1
    )
    for state in (starting, begun):
        assert seconds_left([(1.0, state)], [1.0], [], 1) is None


def test_a_run_is_as_fast_as_those_whose_work_is_nearest_to_its_own():
    ended = [Taken(1.0, 30.0), Taken(100.0, 300.0), Taken(100.0, 500.0)]
    starting = State("running", attempts=1, started=0.0, heartbeat=0.0)
    assert seconds_left([(100.0, starting)], [], ended, 1) == pytest.approx(400)
    assert seconds_left([(1.0, starting)], [50.0], ended, 1) == pytest.approx(30 + 200)


def test_the_end_of_an_attempt_that_continued_another_does_not_say_how_long_a_run_takes():
    times: dict[str, Any] = {
        "started": 0.0,
        "measured_from": 10.0,
        "measured_share": 0.8,
        "share": 1.0,
        "heartbeat": 20.0,
    }
    assert taken(1.0, State("done", attempts=2, finished=25.0, **times)) == Taken(1.0, pytest.approx(60.0), 10.0)
    assert taken(1.0, State("done", attempts=2, finished=25.0, started=0.0)) is None
    left = seconds_left([(1.0, State("running", attempts=2, **times | {"share": 0.9}))], [], [], 1)
    assert left == pytest.approx(10)

"""A state tells how long a run has taken, and whether a search gave it up."""

import pytest

from lmexp.runs.state import PRUNED, RESULTS, STATES, WAITING, State


def test_a_run_counts_the_seconds_of_all_its_attempts():
    assert State().spent == 0
    assert State(earlier=5.0).spent == 5
    assert State(earlier=5.0, started=100.0, heartbeat=103.0).spent == 8
    assert State(earlier=5.0, started=100.0, heartbeat=103.0, finished=110.0).spent == 15


def test_a_clock_that_was_set_back_takes_no_seconds_away():
    assert State(earlier=5.0, started=100.0, finished=90.0).spent == 5


@pytest.mark.parametrize(
    ("state", "is_pruned"),
    [
        (State(state="cancelled", reason=f"{PRUNED}25 % of its budget"), True),
        (State(state="cancelled", reason="the sweep was stopped"), False),
        (State(state="cancelled"), False),
        (State(state="failed", reason=f"{PRUNED}25 %"), False),
    ],
)
def test_only_a_search_prunes(state: State, is_pruned: bool):
    assert state.is_pruned is is_pruned


def test_no_state_is_both_a_result_and_still_waiting():
    assert not RESULTS & WAITING and set(STATES) > (RESULTS | WAITING)

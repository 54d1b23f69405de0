"""A law of loss against a cost is fitted to the runs that no other beats on both."""

import numpy as np
import pytest

from lmexp.analysis.scaling.cost import MIN_RUNS, on_frontier, warnings
from lmexp.analysis.scaling.points import Points
from lmexp.errors import UserError

DOLLARS = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 16.0])
LOSSES = np.array([3.0, 2.8, 2.6, 2.4, 2.2, 2.9])
POINTS = Points(np.ones(6), np.ones(6), 100 * DOLLARS, LOSSES, np.arange(6).astype(str), costs={"dollars": DOLLARS})


@pytest.mark.parametrize("cost", ["dollars", "flops", "train_flops"])
def test_a_run_that_a_cheaper_one_beats_is_left_out(cost: str):
    assert on_frontier(POINTS, cost).loss.tolist() == [3.0, 2.8, 2.6, 2.4, 2.2]


def test_a_cost_that_was_not_measured_gets_the_nearest():
    with pytest.raises(UserError, match=r"no run has 'dollar' as a cost. Did you mean 'dollars'"):
        on_frontier(POINTS, "dollar")


def test_too_few_runs_on_the_frontier_are_refused():
    assert MIN_RUNS == 5
    with pytest.raises(UserError, match="4 of 4 runs are on the frontier"):
        on_frontier(POINTS.where(np.arange(6) < 4), "dollars")


def test_a_frontier_of_little_range_is_warned_of():
    assert warnings(on_frontier(POINTS, "dollars"), "dollars") == ()
    (warning,) = warnings(POINTS.where(DOLLARS < 8), "dollars")
    assert "spans 0.6 decades of dollars" in warning

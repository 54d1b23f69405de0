"""A curve gives the cost at which it first reaches a level, and nothing beyond its points."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.analysis.versus.curves import Curve, log_speedup

COSTS = np.array([1.0, 2.0, 4.0, 8.0])


@given(st.floats(0.05, 2.0), st.floats(1.0, 8.0))
def test_on_a_power_law_it_is_exact(exponent: float, cost: float):
    curve = Curve.of(COSTS, 5 * COSTS**-exponent)
    level = float(np.log(5 * cost**-exponent))
    level = max(level, float(curve.levels[-1]))  # rounding
    assert np.exp(curve.cost_at(level)) == pytest.approx(cost, rel=1e-6)


def test_points_may_come_in_any_order_and_those_of_equal_cost_count_by_their_mean():
    curve = Curve.of(np.array([4.0, 1.0, 4.0]), np.array([1.0, 3.0, 2.0]))
    assert curve.costs == pytest.approx(np.log([1, 4])) and curve.levels == pytest.approx(np.log([3, 1.5]))


def test_a_level_outside_the_curve_has_no_cost():
    curve = Curve.of(COSTS, 4 / COSTS)
    assert np.isnan(curve.cost_at(np.log(4.1))), "it was better than that from its first point on"
    assert np.isnan(curve.cost_at(np.log(0.4))), "it never gets there"


def test_the_first_time_counts_if_the_curve_rises_again():
    curve = Curve.of(COSTS, np.array([4.0, 2.0, 3.0, 1.0]))
    assert curve.cost_at(np.log(2.0)) == np.log(2.0)


def test_more_of_an_accuracy_is_better():
    base = Curve.of(COSTS, np.array([0.1, 0.2, 0.3, 0.4]), higher_is_better=True)
    arm = Curve.of(COSTS / 2, np.array([0.1, 0.2, 0.3, 0.4]), higher_is_better=True)
    assert np.exp(log_speedup(base, arm, -0.35)) == pytest.approx(2)

"""Intervals from refits: Student's t times a standard error that ignores a few refits that broke."""

import numpy as np
import pytest
from scipy import stats

from lmexp.analysis.scaling.bootstrap import FEW_UNITS, around, margin, unit_indices


def test_points_of_one_unit_share_its_index():
    assert unit_indices(np.array(["b", "a", "b"])).tolist() == [1, 0, 1]


@pytest.mark.parametrize("n", [FEW_UNITS, 1000])
def test_with_many_units_it_is_the_interval_of_a_normal_estimate(n: int):
    refits = np.random.default_rng(0).normal(5.0, 2.0, size=200_000)
    assert margin(np.array(5.0), refits, n) == pytest.approx(stats.t.ppf(0.975, n - 1) * 2, rel=0.01)


def test_a_few_broken_refits_of_a_bootstrap_change_nothing():
    refits = np.random.default_rng(0).normal(size=1000)
    broken = np.concatenate([refits, [np.inf] * 20])
    assert margin(np.array(0.0), broken, 500) == pytest.approx(margin(np.array(0.0), refits, 500), rel=0.05)


def test_with_few_units_the_interval_of_a_mean_is_nearly_students():
    """Leaving out one value moves a mean by its deviation over n - 1: the jackknife is then the standard error."""
    values = np.random.default_rng(1).normal(size=60)
    refits = (values.sum() - values) / 59
    expected = stats.t.ppf(0.975, 59) * values.std(ddof=1) / np.sqrt(60)
    assert margin(np.array(values.mean()), refits, 60) == pytest.approx(expected, rel=0.03)


def test_a_refit_that_is_infinite_makes_the_interval_of_a_jackknife_so():
    assert margin(np.array(0.0), np.array([0.1, -0.1, np.inf]), 3) == np.inf


def test_where_one_unit_holds_the_law_the_interval_is_wider():
    even, uneven = np.tile([1.0, -1.0], 10), np.array([np.sqrt(20.0)] + [0.0] * 19)
    assert (even**2).sum() == pytest.approx((uneven**2).sum())
    assert margin(np.array(0.0), uneven, 20) > 3 * margin(np.array(0.0), even, 20)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_an_end_of_an_interval_that_no_float_can_hold_is_infinite_without_a_warning_of_numpy():
    low, high = around(2.0, [0.0, np.log(2), 800.0, np.inf])
    assert low.tolist() == [2.0, 1.0, 0.0, 0.0] and high.tolist() == [2.0, 4.0, np.inf, np.inf]

"""Seeds: intervals, noise floors and sample sizes agree with the textbooks and with simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lmexp.analysis.effects.noise import (
    LEVEL,
    holm,
    margin_of_two,
    p_value,
    pooled,
    power,
    seeds_needed,
    smallest_difference,
    spread,
    unexplained,
)


@pytest.mark.parametrize(
    ("effect", "paired", "seeds"),
    # Cohen 1988, table 2.4.1, two-tailed .05, power .80; one sample as G*Power has it.
    [(0.2, False, 394), (0.5, False, 64), (0.8, False, 26), (1.0, False, 17),
     (0.2, True, 199), (0.5, True, 34), (0.8, True, 15), (1.0, True, 10)],
)  # fmt: skip
def test_sample_sizes_are_those_of_the_tables(effect, paired, seeds):
    assert seeds_needed(effect, 1.0, paired) == seeds
    assert seeds_needed(-effect * 0.01, 0.01, paired) == seeds


def test_the_number_of_seeds_is_the_fewest_with_the_power():
    for effect in (0.05, 0.3, 0.9, 2.0, 7.0, 30.0):
        for paired in (False, True):
            n = seeds_needed(effect, 1.0, paired)
            assert power(effect, n, paired) >= 0.8 and (n == 2 or power(effect, n - 1, paired) < 0.8)


def test_extremes_have_an_answer():
    assert seeds_needed(1e9, 1.0) == 2 and seeds_needed(1.0, 0.0) == 2
    assert seeds_needed(1e-9, 1.0) is None
    assert smallest_difference(1, 1.0) is None and 11 < smallest_difference(2, 1.0, paired=True) < 12
    with pytest.raises(ValueError, match="other than 0"):
        seeds_needed(0.0, 1.0)


def test_the_smallest_difference_is_the_inverse():
    assert seeds_needed(smallest_difference(12, 0.3), 0.3) == 12


def test_power_is_what_simulated_tests_find():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (20_000, 6)), rng.normal(1.5, 1, (20_000, 6))
    found = (stats.ttest_ind(a, b, axis=1).pvalue < 0.05).mean()
    assert power(1.5, 6) == pytest.approx(found, abs=4 * math.sqrt(0.25 / 20_000))


def test_a_mean_has_students_interval():
    values = [3.0, 3.1, 2.9, 3.3]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = spread(values)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert spread([3.0]).half is None


def test_pooled_noise_covers_the_truth_95_times_in_100():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        noise = pooled([rng.normal(mean, 0.02, n) for mean, n in ((3, 2), (2, 3), (5, 1), (1, 2))])
        assert noise.df == 4 and noise.cells == 3
        covered += noise.low <= 0.02 <= noise.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)
    assert pooled([[1.0], [2.0]]) is None


def test_p_values_are_scipys_and_holm_is_holms():
    values = [0.01, 0.03, -0.02, 0.05]
    error = float(stats.sem(values))
    assert p_value(float(np.mean(values)), error, 3) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


TABLES = st.lists(st.lists(st.none() | st.integers(-9, 9), min_size=4, max_size=4), min_size=1, max_size=6)


@given(TABLES)
def test_what_arms_and_seeds_leave_unexplained_is_the_residual_of_a_regression_on_both(table):
    values = np.array([[math.nan if value is None else float(value) for value in row] for row in table])
    arm, seed = np.nonzero(np.isfinite(values))
    design = np.hstack([np.eye(len(values))[arm], np.eye(4)[seed]])
    left = len(arm) - (int(np.linalg.matrix_rank(design)) if len(arm) else 0)
    found = unexplained(values)
    if left == 0:
        assert found is None
        return
    y = values[arm, seed]
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    assert found is not None and found[1] == left
    assert found[0] == pytest.approx(math.sqrt(float(residual @ residual) / left), abs=1e-6)


def test_two_runs_of_one_setting_differ_by_more_than_the_margin_in_5_percent_of_cases():
    draw = np.random.default_rng(0)
    runs = draw.normal(size=(1000, 7))
    beyond = [abs(a - b) > margin_of_two(pooled([seeds])) for a, b, *seeds in runs]
    assert np.mean(beyond) == pytest.approx(LEVEL, abs=3 * math.sqrt(LEVEL * (1 - LEVEL) / 1000))

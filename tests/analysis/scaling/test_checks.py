"""What a design cannot tell is refused or said."""

import numpy as np
import pytest

from lmexp.analysis.scaling.checks import edge, flops_per_token, price_of, refusals, size_of, warnings
from lmexp.analysis.scaling.points import Points


def points(params, tokens, factor=6.0, units=None) -> Points:
    params, tokens = np.broadcast_arrays(np.asarray(params, float), np.asarray(tokens, float))
    params, tokens = params.ravel(), tokens.ravel()
    names = np.arange(len(params)).astype(str) if units is None else units
    return Points(params, tokens, factor * params * tokens, np.full(len(params), 3.0), names)


SIZES = np.geomspace(1e6, 1e8, 7)
FULL = points(SIZES[:, None], SIZES[:, None] * np.array([5, 20, 80]))


def test_a_full_grid_is_neither_refused_nor_warned_of():
    assert refusals(FULL) == () and warnings(FULL) == ()


def test_all_runs_at_one_ratio_are_refused():
    (why,) = refusals(points(SIZES, 20 * SIZES))
    assert "D/N" in why


def test_runs_on_any_line_of_ratios_are_refused():
    assert refusals(points(SIZES, 3 * SIZES**1.3)) and refusals(points(SIZES, 1e9))


@pytest.mark.parametrize("sizes", [1, 2])
def test_one_or_two_sizes_are_refused(sizes: int):
    few = SIZES[:sizes]
    (why,) = refusals(points(few[:, None], few[:, None] * np.array([5, 20, 80])))
    assert f"{sizes} size" in why


def test_few_sizes_little_compute_and_few_ratios_are_said():
    few = np.geomspace(1e6, 3e6, 4)
    said = " ".join(warnings(points(few[:, None], few[:, None] * np.array([18, 22]))))
    assert "Only 4 sizes" in said and "1.0 decades" in said and "4 of 4 sizes have fewer than 3 ratios" in said


def test_milestones_of_a_trunk_are_said():
    said = " ".join(warnings(points(FULL.params, FULL.tokens, units=(FULL.params // 1).astype(str))))
    assert "21 points come from 7 independent units" in said


def test_mixed_conventions_are_said_and_the_largest_runs_count():
    factor = np.where(FULL.flops < np.median(FULL.flops), 14.0, 7.0)
    mixed = points(FULL.params, FULL.tokens, factor)
    assert "7 to 14 N D" in " ".join(warnings(mixed))
    assert flops_per_token(mixed) == pytest.approx(7)
    largest = mixed.params[np.argmax(mixed.flops)]
    assert price_of(mixed).at(largest) == pytest.approx(7 * largest)


def test_the_price_of_a_token_is_the_power_of_the_size_that_the_runs_have():
    counted = points(FULL.params, FULL.tokens, 30 * FULL.params**-0.1)
    assert price_of(counted) == pytest.approx((30, 0.9)) and str(price_of(counted)) == "C = 30 N^0.9 D"
    assert price_of(FULL) == pytest.approx((6, 1)) and str(price_of(FULL)) == "C = 6 N D"


def test_an_optimum_outside_of_the_sizes_run_is_a_guess():
    assert edge(FULL, 1e7) == ""
    assert "above the largest" in edge(FULL, 2e8) and "below the smallest" in edge(FULL, 1e5)


def test_nearly_equal_sizes_are_one():
    assert size_of(np.array([2e6, 1e6, 1.005e6, 4e6])).tolist() == [1, 0, 0, 2]


def test_scattered_sizes_do_not_become_one():
    assert size_of(np.geomspace(1e7, 1e9, 5000)).max() > 200

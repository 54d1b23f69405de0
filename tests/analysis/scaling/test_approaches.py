"""Approaches 1 and 2 find the optimum of a known law, as far off as is known of them."""

import numpy as np
import pytest

from lmexp.analysis.scaling.approaches import MIN_IN_ENVELOPE, Approach, approach_1, approach_2, bias, budget_groups
from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, chinchilla
from lmexp.analysis.scaling.points import Points

HOFFMANN = PUBLISHED_LAWS["hoffmann_rounded"].theta
BUDGETS = (1e17, 1e18, 1e19, 1e20, 1e21)


def grid(
    theta: np.ndarray, width: float, sizes: int = 15, off: float = 1.0, noise: float = 0.0, seed: int = 0
) -> Points:
    """Return isoFLOP runs of a law: sizes from 1/width to width of each budget's best size, times `off`."""
    best = chinchilla.optimum(theta, np.array(BUDGETS)).params
    around = np.exp(np.linspace(-np.log(width), np.log(width), sizes)) * off
    params = (best[:, None] * around).ravel()
    flops = np.repeat(BUDGETS, sizes)
    tokens = flops / (6 * params)
    loss = chinchilla.loss(theta, params, tokens)
    loss = loss * np.exp(np.random.default_rng(seed).normal(0, noise, len(loss)))
    return Points(params, tokens, flops, loss, np.arange(len(loss)).astype(str))


def test_the_bias_of_approach_2_is_the_published_one():
    # FITTING.md: D* at 1e24 off by -2.9 % for a centred +-8x grid, by -23 % for alpha/beta = 3 at +-16x.
    found = bias(grid(HOFFMANN, 8), chinchilla, HOFFMANN, 1e24)
    assert found is not None and found.tokens == pytest.approx(-0.029, abs=0.0005)
    uneven = np.array([1.69, 406.4, 410.7, 0.465, 0.155])
    found = bias(grid(uneven, 16), chinchilla, uneven, 1e24)
    assert found is not None and found.tokens == pytest.approx(-0.23, abs=0.005)


def test_approach_2_has_no_bias_where_the_law_is_even_and_the_grid_centred():
    even = np.array([1.69, 400.0, 400.0, 0.31, 0.31])
    found = bias(grid(even, 8), chinchilla, even, 1e24)
    assert found is not None and abs(found.tokens) < 1e-9
    off_centre = bias(grid(even, 8, off=3), chinchilla, even, 1e24)
    assert off_centre is not None and abs(off_centre.tokens) > 0.02


@pytest.mark.parametrize("sizes", [5, 9])
def test_the_interval_of_approach_2_holds_what_it_would_find_without_noise(sizes: int):
    exact = approach_2(grid(HOFFMANN, 4, sizes))
    assert isinstance(exact, Approach)
    held = 0
    for seed in range(40):
        fitted = approach_2(grid(HOFFMANN, 4, sizes, noise=0.003, seed=seed))
        assert isinstance(fitted, Approach)
        value, low, high = fitted.exponent
        assert low < value < high
        held += bool(low < exact.line[0] < high)
    assert held >= 35  # of 40 at 95 %; the chance of fewer is below 1 %


def test_intervals_of_approach_2_hold_for_milestones_of_one_trunk_per_size():
    from benchmarks.approach_2 import coverage

    slopes, sizes_held = coverage(40)
    assert slopes >= 35 and sizes_held >= 35  # of 40 at 95 %; taken for separate runs, 31 of the sizes were held


def test_the_interval_shrinks_with_the_noise():
    wide, narrow = (approach_2(grid(HOFFMANN, 4, sizes=9, noise=noise)) for noise in (0.004, 0.0004))
    assert isinstance(wide, Approach) and isinstance(narrow, Approach)
    # Not by a tenth: what a parabola misses of the law stays.
    assert np.ptp(narrow.exponent[1:]) < np.ptp(wide.exponent[1:]) / 3


def test_tokens_and_parameters_use_the_budget_up():
    found = approach_2(grid(HOFFMANN, 4))
    assert isinstance(found, Approach)
    assert float(found.params(1e22).value * found.tokens(1e22).value) == pytest.approx(1e22 / 6)


def test_a_budget_whose_best_size_was_not_run_has_no_vertex():
    points = grid(HOFFMANN, 4)
    best = chinchilla.optimum(HOFFMANN, points.flops).params
    found = approach_2(points.where((points.flops < 5e20) | (points.params > 1.3 * best)))
    assert isinstance(found, Approach) and found.n_budgets == 4
    assert any("edge" in warning for warning in found.warnings)


def test_what_has_no_budgets_in_common_has_no_parabolas():
    points = grid(HOFFMANN, 4)
    spread = np.exp(np.linspace(0, 12, len(points)))
    scattered = Points(points.params, points.tokens, 1e17 * spread, points.loss, points.unit)
    found = approach_2(scattered)
    assert isinstance(found, str) and "No budget with 5 sizes at equal FLOPs" in found


def test_budgets_are_told_apart_and_small_differences_are_not():
    points = grid(HOFFMANN, 4, sizes=7)
    wobbled = points.flops * np.exp(np.random.default_rng(1).uniform(-0.05, 0.05, len(points)))
    groups = budget_groups(Points(points.params, points.tokens, wobbled, points.loss, points.unit))
    assert [sorted(group) for group in groups] == [list(range(7 * i, 7 * i + 7)) for i in range(5)]


def test_the_envelope_of_many_sizes_finds_the_exponent():
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e10, 25), np.geomspace(1e8, 3e12, 40)))
    points = Points(n, d, 6 * n * d, chinchilla.loss(HOFFMANN, n, d), np.arange(len(n)).astype(str))
    found = approach_1(points)
    assert isinstance(found, Approach)
    assert found.line[0] == pytest.approx(0.28 / 0.62, abs=0.01)
    truth = chinchilla.optimum(HOFFMANN, 1e21).params
    assert float(found.params(1e21).value) == pytest.approx(float(truth), rel=0.05)


def test_an_envelope_has_no_interval_and_says_its_bias_on_the_grid():
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e8, 1e10, 12), np.geomspace(1e9, 3e12, 40)))
    exact = chinchilla.loss(HOFFMANN, n, d)
    points = Points(n, d, 6 * n * d, exact * np.exp(0.01 * np.sin(np.arange(len(n)))), np.arange(len(n)).astype(str))
    noisy, clean = (approach_1(Points(n, d, 6 * n * d, loss, points.unit)) for loss in (points.loss, exact))
    assert isinstance(noisy, Approach) and isinstance(clean, Approach)
    assert np.isnan([*noisy.params(1e23)[1:], *noisy.exponent[1:]]).all()
    off = bias(points, chinchilla, HOFFMANN, 1e23, approach_1)
    truth = float(chinchilla.optimum(HOFFMANN, 1e23).params)
    assert off is not None and off.params == pytest.approx(float(clean.params(1e23).value) / truth - 1)
    assert abs(off.params) > 0.01  # twelve sizes jump


def test_few_sizes_have_no_envelope():
    found = approach_1(grid(HOFFMANN, 4, sizes=5))
    assert isinstance(found, str) and str(MIN_IN_ENVELOPE) in found

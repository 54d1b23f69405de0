"""The optimum: the published one, never worse than others', exact on exact laws, whatever the units or the order."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from lmexp.analysis.scaling.bootstrap import bootstrap
from lmexp.analysis.scaling.laws import chinchilla, extra, kaplan
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.solver import condition, descend_from_each, robust_delta, solve
from lmexp.analysis.scaling.surface import Surface
from tests.analysis.scaling.designs import grid

PUBLIC = Path(__file__).parents[4] / "shared/data/chinchilla_points.csv"
exponents = st.floats(0.2, 0.7)


def ones(surface: Surface) -> np.ndarray:
    return np.ones(len(surface))


def public_points() -> Points:
    if not PUBLIC.exists():
        pytest.skip("the public points of Chinchilla are not here")
    params, tokens, flops, loss = np.loadtxt(PUBLIC, delimiter=",", skiprows=1).T
    return Points(params, tokens, flops, loss, np.arange(len(loss)).astype(str))


def best_of_lbfgs(surface: Surface, weights: np.ndarray, delta: float, starts: int, seed: int) -> float:
    """Return the least objective that L-BFGS finds from random starts, by our gradient, E kept from falling below 0."""
    draws = np.random.default_rng(seed)
    bounds = [(0 if name == "E" else None, None) for name in surface.names]
    best = np.inf
    for _ in range(starts):
        start = {
            "E": draws.uniform(0, 2.5), "a": draws.uniform(-3, 2), "b": draws.uniform(-3, 2),
            "alpha": draws.uniform(0, 1.2), "beta": draws.uniform(0, 1.2), "g": draws.uniform(-1, 0.5),
        }  # fmt: skip

        def value_and_slope(at: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope, _ = surface.derivatives(at[None], weights[None], delta)
            return value[0] * 1e3, slope[0] * 1e3  # so that its tolerances do not stop it early

        with np.errstate(all="ignore"):
            found = minimize(
                value_and_slope, [start[name] for name in surface.names], jac=True, method="L-BFGS-B", bounds=bounds,
                options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-10},
            )  # fmt: skip
        best = min(best, found.fun / 1e3)
    return best


def test_the_optimum_on_chinchillas_points_is_the_published_one():
    surface = Surface.of(chinchilla, public_points())
    found, _ = solve(surface, ones(surface), 1e-3)
    floor, a, b, alpha, beta = surface.theta(found.parameters)[0]
    assert f"{floor:.5f} {a:.2f} {b:.1f} {alpha:.6f} {beta:.6f}" == "1.78389 442.16 1271.8 0.342626 0.342002"
    assert f"{found.objective[0]:.8f}" == "0.00084009"


@given(
    floor=st.floats(0.5, 2.5), size_part=st.floats(0.2, 2), data_part=st.floats(0.2, 2), alpha=exponents, beta=exponents
)
@settings(max_examples=25, deadline=None)
def test_a_law_without_noise_is_recovered_to_1e_6(floor, size_part, data_part, alpha, beta):
    theta = np.array([floor, size_part * 2e8**alpha, data_part * 4e9**beta, alpha, beta])
    surface = Surface.of(chinchilla, grid(theta=theta))
    found, _ = solve(surface, ones(surface))
    np.testing.assert_allclose(surface.theta(found.parameters)[0], theta, rtol=1e-6)


@given(gamma=st.floats(0.5, 1.5), alpha=st.floats(0.3, 0.6), beta=st.floats(0.3, 0.6))
@settings(max_examples=8, deadline=None)
def test_the_extra_exponent_is_recovered_to_1e_6(gamma, alpha, beta):
    theta = np.array([1.8, 2e8**alpha, 1.2 * 4e9**beta, alpha, beta, gamma])
    surface = Surface.of(extra, grid(extra, theta))
    found, _ = solve(surface, ones(surface))
    np.testing.assert_allclose(surface.theta(found.parameters)[0], theta, rtol=1e-6)


@given(
    n_scale=st.floats(1e12, 1e15), part=st.floats(0.2, 5), alpha_n=st.floats(0.05, 0.2), alpha_d=st.floats(0.05, 0.2)
)
@settings(max_examples=12, deadline=None)
def test_kaplans_law_is_recovered_to_1e_6(n_scale, part, alpha_n, alpha_d):
    d_scale = part * 4e9 * (n_scale / 2e8) ** (alpha_n / alpha_d)  # so that both terms count among the runs
    theta = np.array([n_scale, d_scale, alpha_n, alpha_d])
    surface = Surface.of(kaplan, grid(kaplan, theta))
    found, _ = solve(surface, ones(surface))
    np.testing.assert_allclose(surface.theta(found.parameters)[0], theta, rtol=1e-6)


@pytest.mark.parametrize("law", [chinchilla, extra, kaplan], ids=lambda law: law.name)
@pytest.mark.parametrize("delta", [1e-3, 1e-2])
def test_no_start_of_many_ends_lower(law, delta):
    runs = grid(noise=0.01, seed=0)
    weights = np.random.default_rng(0).multinomial(len(runs), np.full(len(runs), 1 / len(runs))).astype(float)
    surface = Surface.of(law, runs)
    found, _ = solve(surface, weights, delta)
    assert found.objective[0] <= best_of_lbfgs(surface, weights, delta, starts=12, seed=0) * (1 + 1e-9)


def deviation(theta: np.ndarray, points: Points) -> float:
    """Return the sum of absolute deviations of Chinchilla's law, written out here; theta holds E, ln A, ln B, ..."""
    floor, a, b, alpha, beta = theta
    loss = floor + np.exp(a - alpha * np.log(points.params)) + np.exp(b - beta * np.log(points.tokens))
    return np.abs(np.log(loss / points.loss)).sum() if floor >= 0 and loss.min() > 0 else np.inf


@pytest.mark.parametrize("delta", [1e-6, 1e-12])
def test_a_tiny_delta_gives_least_absolute_deviations(delta):
    runs = grid(noise=0.01)
    surface = Surface.of(chinchilla, runs)
    found, _ = solve(surface, ones(surface), delta)
    floor, a, b, alpha, beta = surface.theta(found.parameters)[0]
    ours = deviation(np.array([floor, np.log(a), np.log(b), alpha, beta]), runs)
    assert (np.abs(surface.residual(found.parameters[:1])) < 1e-9).sum() >= 4  # at a kink
    draws = np.random.default_rng(0)
    for _ in range(2):  # scipy's simplex needs no derivative; it starts next to the optimum, and from where it ended
        start = np.array([floor, np.log(a), np.log(b), alpha, beta]) * draws.normal(1, 0.01, 5)
        for _ in range(3):
            best = minimize(deviation, start, (runs,), "Nelder-Mead", options={"maxfev": 4000, "xatol": 1e-12})
            start = best.x
        assert ours <= best.fun * (1 + 1e-9)


def test_a_smaller_delta_never_has_a_larger_sum_of_absolute_deviations_on_chinchillas_points():
    """Below a delta of 1e-3 the sum of absolute deviations can only fall, down to the least."""
    surface = Surface.of(chinchilla, public_points())
    sums = []
    for delta in (1e-3, 1e-4, 1e-5, 1e-9):
        found, _ = solve(surface, ones(surface), delta)
        sums.append(np.abs(surface.residual(found.parameters[:1])).sum())
    assert sums == sorted(sums, reverse=True) and f"{sums[-1]:.5f}" == "0.94951"


@pytest.mark.slow
def test_refits_at_a_tiny_delta_are_the_optima_found_from_nothing():
    surface = Surface.of(chinchilla, grid(noise=0.01))
    optima, delta = solve(surface, ones(surface), 1e-8)
    weights = np.random.default_rng(0).exponential(size=(3, len(surface)))
    warm = descend_from_each(surface, weights, optima.parameters[:3], delta)
    cold = [solve(surface, row, delta)[0].objective[0] for row in weights]
    np.testing.assert_allclose(warm.objective, cold, rtol=1e-4)


SEEDS = [
    pytest.param(range(3), marks=pytest.mark.slow, id="3"),
    pytest.param(range(40), marks=[pytest.mark.long, pytest.mark.timeout(1200)], id="40"),
]


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("law", [chinchilla, extra, kaplan], ids=lambda law: law.name)
def test_no_start_of_forty_ends_lower_in_any_study(law, seeds):
    for seed in seeds:
        draws = np.random.default_rng(seed)
        runs = grid(
            noise=10 ** draws.uniform(-3, -1.3), seed=seed, sizes=draws.integers(4, 9), ratios=draws.integers(3, 7)
        )
        weights, delta = draws.exponential(size=len(runs)), 10 ** draws.uniform(-3.5, -1.5)
        surface = Surface.of(law, runs)
        found, _ = solve(surface, weights, delta)
        assert found.objective[0] <= best_of_lbfgs(surface, weights, delta, starts=40, seed=seed) * (1 + 1e-9), seed


def test_a_refit_of_the_bootstrap_is_the_optimum_that_is_found_from_nothing():
    surface = Surface.of(chinchilla, grid(noise=0.01))
    optima, delta = solve(surface, ones(surface))
    weights = np.random.default_rng(0).exponential(size=(20, len(surface)))
    warm = descend_from_each(surface, weights, optima.parameters[:3], delta)
    cold = [solve(surface, row, delta)[0].objective[0] for row in weights]
    np.testing.assert_allclose(warm.objective, cold, rtol=1e-9)


@given(size_unit=st.floats(1e-9, 1e9), token_unit=st.floats(1e-9, 1e9))
@settings(max_examples=15, deadline=None)
def test_the_units_of_parameters_and_tokens_change_the_coefficients_and_nothing_else(size_unit, token_unit):
    runs = grid(noise=0.01)
    scaled = Points(runs.params * size_unit, runs.tokens * token_unit, runs.flops, runs.loss, runs.unit)
    (here, delta), (there, other) = (
        solve(s, ones(s)) for s in (Surface.of(chinchilla, runs), Surface.of(chinchilla, scaled))
    )
    np.testing.assert_allclose(there.parameters[0], here.parameters[0], rtol=1e-6)  # of the centred problem
    assert other == pytest.approx(delta, rel=1e-6)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_points_changes_nothing(seed):
    runs = grid(noise=0.01)
    order = np.random.default_rng(seed).permutation(len(runs))
    shuffled = Points(*(getattr(runs, name)[order] for name in ("params", "tokens", "flops", "loss", "unit")))
    (here, delta), (there, other) = (
        solve(s, ones(s)) for s in (Surface.of(chinchilla, runs), Surface.of(chinchilla, shuffled))
    )
    np.testing.assert_allclose(there.parameters[0], here.parameters[0], rtol=1e-6)
    assert other == pytest.approx(delta, rel=1e-9)


def test_more_points_than_the_grid_looks_at_end_at_the_same_law():
    surface = Surface.of(chinchilla, grid(sizes=50, ratios=60))
    found, _ = solve(surface, ones(surface))
    np.testing.assert_allclose(surface.theta(found.parameters)[0], [1.8172, 482.01, 2085.43, 0.3478, 0.3658], rtol=1e-6)


def test_delta_is_of_the_residuals_and_an_outlier_hardly_moves_the_fit():
    runs = grid(noise=0.005, sizes=8, ratios=8)
    loss = runs.loss.copy()
    loss[5] *= 1.5
    spoiled = Surface.of(chinchilla, Points(runs.params, runs.tokens, runs.flops, loss, runs.unit))
    found, delta = solve(spoiled, ones(spoiled))
    assert delta == pytest.approx(robust_delta(spoiled.residual(found.parameters[:1])[0], ones(spoiled)), rel=1e-4)
    assert 1.345 * 0.003 < delta < 1.345 * 0.007
    clean, _ = solve(Surface.of(chinchilla, runs), np.ones(len(runs)))
    assert abs(spoiled.theta(found.parameters)[0, 0] - spoiled.theta(clean.parameters)[0, 0]) < 0.03


def test_one_ratio_for_all_runs_shows_in_the_condition_number():
    runs = grid(noise=0.005)
    line = Points(runs.params, 20 * runs.params, 120 * runs.params**2, runs.loss, runs.unit)
    good, bad = Surface.of(chinchilla, runs), Surface.of(chinchilla, line)
    assert condition(good, solve(good, ones(good))[0].parameters[:1]) < 1e5
    assert condition(bad, solve(bad, ones(bad))[0].parameters[:1]) > 1e9


def test_the_same_seed_draws_the_same_refits():
    surface = Surface.of(chinchilla, grid(noise=0.01))
    optima, delta = solve(surface, ones(surface))
    once, again, other = (
        bootstrap(surface, np.arange(len(surface)), optima.parameters[:1], delta, 20, seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(once, again)
    assert not np.allclose(once, other)

"""What a fit answers, with what certainty, and when it refuses."""

import numpy as np
import pytest

from lmexp.analysis.scaling.bootstrap import margin, unit_indices
from lmexp.analysis.scaling.fit import fit, fit_law
from lmexp.analysis.scaling.holdout import largest
from lmexp.analysis.scaling.law_fit import LawFit
from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, chinchilla, extra, kaplan, overtraining, power
from lmexp.analysis.scaling.points import Points
from lmexp.errors import UserError
from tests.analysis.scaling.designs import grid

EPOCH = PUBLISHED_LAWS["epoch"].theta


def changed(points: Points, **columns: object) -> Points:
    """Return points with other columns."""
    names = ("params", "tokens", "flops", "loss", "unit", "precision", "costs")
    return Points(**({name: getattr(points, name) for name in names} | columns))


@pytest.fixture(scope="module")
def fitted():
    return fit(grid(noise=0.005, sizes=8, ratios=6), bootstraps=200)


def test_the_extra_exponent_stands_beside_chinchillas_law_always():
    found = fit(grid(noise=0.005), laws=["chinchilla"], bootstraps=100)
    assert set(found.laws) == {"chinchilla", "extra"}


def test_every_estimate_lies_in_its_interval_and_has_the_shape_that_was_asked_for(fitted):
    law = fitted.laws["chinchilla"]
    table = law.loss(np.array([[1e8], [1e9]]), [1e9, 1e10, 1e11])
    assert table.value.shape == table.low.shape == table.high.shape == (2, 3)
    best = law.optimum([1e20, 1e22])
    for estimate in (table, law.prediction(1e9, 1e10), *best, *law.for_serving(2.6, 1e10)):
        assert (estimate.low <= estimate.value).all() and (estimate.value <= estimate.high).all()
    np.testing.assert_allclose(6 * best.params.value * best.tokens.value, [1e20, 1e22])


def test_the_interval_widens_away_from_the_runs(fitted):
    near, far = (fitted.laws["chinchilla"].loss(*at) for at in [(2e8, 4e9), (1e12, 1e13)])
    assert (far.high - far.low) / far.value > 3 * (near.high - near.low) / near.value


def test_a_single_run_is_less_certain_than_the_mean_of_many(fitted):
    law = fitted.laws["chinchilla"]
    mean, single = law.loss(2e8, 4e9), law.prediction(2e8, 4e9)
    assert single.low < mean.low < mean.high < single.high
    assert law.residual == pytest.approx(0.005, rel=0.4)


def test_the_spread_between_laws_is_one_where_there_is_one_law_and_more_where_they_differ(fitted):
    assert set(fitted.laws) == {"chinchilla", "extra", "kaplan"}
    assert all(ratio > 1 for ratio in fitted.spread(1e24).values())
    alone = fit(grid(noise=0.005), laws=[kaplan], bootstraps=100)
    assert alone.spread(1e22) == {"params": 1.0, "tokens": 1.0, "loss": 1.0}


def test_the_largest_fifth_of_compute_is_held_out_with_its_ties():
    runs = grid()
    assert largest(runs).sum() == 5 and runs.flops[largest(runs)].min() > runs.flops[~largest(runs)].max()
    tied = changed(runs, flops=np.repeat([1e18, 1e19, 1e20], 8))
    assert largest(tied).sum() == 8


def test_the_hold_out_shows_a_law_that_is_wrong_at_scale():
    found = fit(grid(noise=0.002, sizes=8, ratios=6), bootstraps=100)
    right, wrong = found.laws["chinchilla"].holdout, found.laws["kaplan"].holdout
    assert right.n_points == wrong.n_points == 10
    assert wrong.bias < -3 * abs(right.bias)  # without a floor it predicts too low a loss
    assert wrong.mean_absolute_error > 3 * right.mean_absolute_error
    assert right.coverage >= 0.8


def test_branches_of_a_trunk_are_resampled_together():
    runs = grid(noise=0.0, sizes=8, ratios=6)
    trunk = unit_indices(runs.params.astype(str))
    shared = 0.005 * np.random.default_rng(1).standard_normal(8)[trunk]
    loss = runs.loss * np.exp(shared)
    apart = fit_law(changed(runs, loss=loss), chinchilla, bootstraps=200)
    together = fit_law(changed(runs, loss=loss, unit=trunk.astype(str)), chinchilla, bootstraps=200)
    assert (together.n_units, apart.n_units) == (8, 48)
    widths = [np.ptp(law.intervals["alpha"]) for law in (apart, together)]
    assert widths[1] > 1.5 * widths[0]


def test_with_one_estimator_the_mean_the_margin_of_the_jackknife_is_students():
    values = np.array([1.0, 2.0, 4.0, 7.0, 7.5, 3.0, 2.5, 6.0, 5.5, 1.5])
    left = np.array([np.delete(values, i).mean() for i in range(10)])
    kurtosis = 10 * ((values - values.mean()) ** 4).sum() / ((values - values.mean()) ** 2).sum() ** 2
    assert min(2 * 10 / (kurtosis - 1) - 1, 9) == 9  # flat: all degrees of freedom
    by_hand = 2.262157 * values.std(ddof=1) / np.sqrt(10) * np.sqrt(9 / 8)
    assert margin(np.asarray(values.mean()), left, 10) == pytest.approx(by_hand, rel=1e-6)


def test_a_law_in_dollars_leaves_out_runs_without_a_price():
    runs = grid(noise=0.002)
    dollars = (runs.flops / 1e17) ** 0.9
    loss = 1.7 + 2 * dollars**-0.2
    dollars[:3] = np.nan
    found = fit(changed(runs, loss=loss, costs={"dollars": dollars}), laws=["power_dollars"], bootstraps=100)
    law = found.laws["power_dollars"]
    assert law.n_points == len(runs) - 3
    assert law.loss(100.0).value == pytest.approx(1.7 + 2 * 100**-0.2, rel=1e-6)
    with pytest.raises(UserError, match="Did you mean 'dollars'"):
        fit(changed(runs, costs={"dollars": dollars}), laws=[power("dolars")])


@pytest.mark.parametrize("law", [chinchilla, power("flops")], ids=lambda law: law.name)
def test_a_floor_at_its_bound_is_not_identified(law):
    """The runs follow a law with a floor below 0, so that the best E that is allowed is 0."""
    runs = grid(sizes=8, ratios=4)
    below = {"chinchilla": [-0.5, 60, 60, 0.2, 0.2], "power_flops": [-0.5, 60, 0.07]}[law.name]
    inputs = [getattr(runs, name) for name in law.inputs]
    fitted = fit_law(changed(runs, loss=law.loss(below, *inputs)), law, bootstraps=100)
    assert fitted.theta["E"] == 0 and fitted.floor_is_at_bound
    assert fitted.intervals["E"] == (0, np.inf)
    assert "at its bound, 0, and not identified" in fitted.warnings[0]
    assert not fit_law(runs, chinchilla, bootstraps=100).floor_is_at_bound


def test_few_widths_give_a_factor_for_each_precision():
    runs = grid(noise=0.001, sizes=8, ratios=6)
    precision = np.resize(["bf16", "fp32", "fp8"], len(runs))
    factors = {"fp32": 1.0, "bf16": 0.97, "fp8": 0.6}
    effective = runs.params * np.array([factors[name] for name in precision])
    loss = chinchilla.loss(EPOCH, effective, runs.tokens)
    law = fit_law(changed(runs, loss=loss, precision=precision), chinchilla, bootstraps=100)
    assert law.theta["ln_factor_fp8"] == pytest.approx(np.log(0.6), abs=1e-6)
    assert law.theta["ln_factor_bf16"] == pytest.approx(np.log(0.97), abs=1e-6)
    assert "relative to fp32" in law.warnings[0]
    assert law.loss(1e9, 1e10, precision="fp8").value == pytest.approx(chinchilla.loss(EPOCH, 0.6e9, 1e10))
    best, plain = law.optimum(1e22, precision="fp8"), law.optimum(1e22)
    assert best.loss.value > plain.loss.value
    assert 6 * best.params.value * best.tokens.value == pytest.approx(1e22)
    with pytest.raises(UserError, match="no point has precision 'fp9'"):
        law.loss(1e9, 1e10, precision="fp9")


def test_enough_widths_give_the_gamma_of_the_bits():
    runs = grid(sizes=8, ratios=6)
    precision = np.resize(["bf16", "int8", "int4", "int3", "int2"], len(runs))
    bits = np.array([{"bf16": 16}.get(name, int(name[-1])) for name in precision])
    loss = chinchilla.loss(EPOCH, runs.params * (1 - np.exp(-bits / 2.2)), runs.tokens)
    law = fit_law(changed(runs, loss=loss, precision=precision), chinchilla, bootstraps=100)
    assert np.exp(law.theta["ln_gamma_bits"]) == pytest.approx(2.2, rel=1e-6)
    assert "gamma fitted" in law.warnings[0]


def test_over_training_is_recovered_from_few_small_runs():
    """Seven runs with hardly any noise: the true numbers lie in their intervals, and a run of 30 x the ratio too."""
    theta = np.array([1.84, 212.0, 367.0, 0.136])
    params = np.array([1e7, 3e7, 8e7, 2e8, 4e8, 1e7, 3e7])
    tokens = params * np.array([20, 20, 20, 20, 20, 320, 80])
    loss = overtraining.loss(theta, params, tokens) * np.exp(1e-4 * np.random.default_rng(0).standard_normal(7))
    fitted = fit_law(Points(params, tokens, 6 * params * tokens, loss, np.arange(7).astype(str)), overtraining)
    assert isinstance(fitted, LawFit)
    for (low, high), true in zip(fitted.intervals.values(), theta, strict=True):
        assert low < true < high
    far = float(overtraining.loss(theta, 1.4e9, 9e11))
    assert float(fitted.loss(1.4e9, 9e11).value) == pytest.approx(far, rel=2e-3)


def test_a_design_on_one_line_gets_no_number():
    runs = grid(noise=0.005)
    line = changed(runs, tokens=20 * runs.params, flops=120 * runs.params**2)
    found = fit(line, bootstraps=100)
    assert not found.laws
    assert set(found.refusals) == {"chinchilla", "extra", "kaplan"}
    alone = fit_law(line, chinchilla, bootstraps=100)
    assert isinstance(alone, tuple) and "condition number" in alone[0]


def test_too_few_units_get_no_number():
    runs = grid(noise=0.005)
    assert "too few" in fit_law(runs.where(np.arange(len(runs)) < 5), chinchilla)[0]
    assert "too few" in fit_law(changed(runs, unit=np.resize(["a", "b", "c"], len(runs))), extra)[0]


def test_a_loss_that_does_not_fall_gets_no_number():
    runs = grid()
    rising = chinchilla.loss(EPOCH, 3e16 / runs.params, runs.tokens)
    refused = fit_law(changed(runs, loss=rising), chinchilla, bootstraps=100)
    assert isinstance(refused, tuple)


def test_what_fit_cannot_take_is_said():
    runs = grid()
    many = Points(*(np.full(100_001, 1.0) for _ in range(4)), np.full(100_001, "a"))
    with pytest.raises(UserError, match="100,001 points are more than"):
        fit(many)
    with pytest.raises(UserError, match="delta is 0"):
        fit(runs, delta=0.0)
    with pytest.raises(UserError, match="no law 'chinchila'"):
        fit(runs, laws=["chinchila"])
    with pytest.raises(UserError, match="100 or more"):
        fit(runs, bootstraps=3)

"""Intervals beyond the runs are as wide as what the law missed on its own largest runs, and no wider otherwise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lmexp.analysis.scaling.answers import answer
from lmexp.analysis.scaling.fit import fit, fit_law, held_out
from lmexp.analysis.scaling.holdout import largest
from lmexp.analysis.scaling.lack_of_fit import LackOfFit, distance, rate_of, reach_of
from lmexp.analysis.scaling.law_fit import LawFit
from lmexp.analysis.scaling.laws import Law, chinchilla, power
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.readers import points_of_csv
from lmexp.report.export.fit_document import fit_document
from lmexp.report.terminal.fit import notes_of
from tests.analysis.scaling.designs import grid

PUBLIC = Path(__file__).parents[4] / "shared/data"
RATE = 0.01
positive = st.floats(1e-3, 1e3)


def widened(law: LawFit, runs: Points, rate: float = RATE) -> LawFit:
    """Return a fit with a lack of fit beyond its runs."""
    return replace(law, lack_of_fit=LackOfFit(rate, reach_of((runs.params, runs.tokens)), len(law.theta)))


@pytest.fixture(scope="module")
def runs() -> Points:
    return grid(noise=0.005, sizes=5, ratios=4)


@pytest.fixture(scope="module")
def law(runs: Points) -> LawFit:
    fitted = fit_law(runs, chinchilla, bootstraps=100)
    assert isinstance(fitted, LawFit)
    return fitted


def test_the_distance_is_the_largest_of_size_tokens_and_compute_beyond_the_runs():
    reach = reach_of((np.array([1.0, 8.0]), np.array([30.0, 2.0])))
    np.testing.assert_allclose(reach, np.log([8, 30, 30]))
    np.testing.assert_allclose(distance((16.0, 1.0), reach), np.log(2), err_msg="twice the size")
    np.testing.assert_allclose(distance((1.0, 90.0), reach), np.log(3), err_msg="three times the tokens or the compute")
    np.testing.assert_allclose(distance((8.0, 30.0), reach), np.log(8), err_msg="within both, but the compute is new")
    assert distance((1.0, 2.0), reach) == 0
    assert distance((np.array([[5.0], [0.5]]),), (0.0,)).tolist() == [[np.log(5)], [0.0]], "a law of one input"


def test_the_rate_is_the_error_that_the_intervals_do_not_allow_for():
    off, half, away = np.array([0.03, -0.04]), np.array([0.0, 0.0]), np.array([1.0, 2.0])
    assert rate_of(off, half, away) == pytest.approx(np.sqrt((0.03**2 + 0.04**2) / 5))
    z = stats.norm.ppf(0.975)
    assert rate_of(off, np.array([0.02, 0.02]) * z, away) == pytest.approx(np.sqrt((0.0025 - 0.0008) / 5))
    assert rate_of(off, np.array([0.04, 0.04]) * z, away) == 0, "all of it is allowed for"
    assert rate_of(off, np.array([np.inf, 0.0]), away) == 0 == rate_of(off, half, np.zeros(2))


def test_half_the_interval_far_beyond_the_runs_is_students_t_times_the_rate_and_the_distance(runs, law):
    wide = widened(law, runs, rate=0.5)
    at = 100 * runs.params.max(), runs.tokens.min()
    value, low, high = wide.loss(*at)
    expected = stats.t.ppf(0.975, 5) * 0.5 * np.log(100)
    assert np.log(high / value) == pytest.approx(expected) == np.log(value / low)
    noise = stats.t.ppf(0.975, len(runs) - 5) * law.residual
    assert np.log(wide.prediction(*at).high / value) == pytest.approx(np.hypot(expected, noise))
    best = wide.optimum(1e26)
    bare = law.optimum(1e26)
    far = distance((best.params.value, best.tokens.value), reach_of((runs.params, runs.tokens)))
    assert np.log(best.loss.high / best.loss.value) == pytest.approx(stats.t.ppf(0.975, 5) * 0.5 * far)
    assert best.params == bare.params and best.tokens == bare.tokens


@settings(max_examples=40, deadline=None)
@given(size=positive, ratio=positive, rate=st.floats(0, 0.3))
def test_an_interval_holds_its_value_and_is_never_narrower_than_the_resamplings(runs, law, size, ratio, rate):
    at = 1e9 * size, 1e10 * ratio
    wide = widened(law, runs, rate)
    for mine, bare in ((wide.loss(*at), law.loss(*at)), (wide.prediction(*at), law.prediction(*at))):
        assert mine.value == bare.value and mine.low <= bare.low <= mine.value <= bare.high <= mine.high
    points = replace(runs, params=np.full(len(runs), at[0]), tokens=np.full(len(runs), at[1]))
    np.testing.assert_allclose(wide.prediction_of(points).high, wide.prediction(*at).high)


@settings(max_examples=40, deadline=None)
@given(rate=st.floats(0.001, 0.3), times=st.floats(1, 100), more=st.floats(1, 100))
def test_intervals_widen_with_the_distance_and_not_among_the_runs(runs, law, rate, times, more):
    wide, bare = widened(law, runs, rate), law
    at = runs.params.max(), runs.tokens.max()
    near, far = (wide.lack_of_fit.half((at[0] * by, at[1])) for by in (times, times * more))
    assert near <= far + 1e-12
    inside = np.median(runs.params), np.median(runs.tokens)
    assert wide.loss(*inside) == bare.loss(*inside)


@settings(max_examples=2, deadline=None)
@given(sizes=positive, tokens=positive, losses=positive)
def test_the_lack_of_fit_does_not_depend_on_units(sizes, tokens, losses):
    bent = bending(0.02, 0)
    other = replace(bent, params=bent.params * sizes, tokens=bent.tokens * tokens, loss=bent.loss * losses)
    ours, theirs = (extrapolating(points) for points in (bent, other))
    assert ours.lack_of_fit.rate == pytest.approx(theirs.lack_of_fit.rate, rel=1e-3)
    assert ours.holdout.coverage == theirs.holdout.coverage


def extrapolating(points: Points, law: Law = chinchilla) -> LawFit:
    """Return the fit of a law with what held-out runs say of it."""
    fitted = fit_law(points, law, bootstraps=100)
    assert isinstance(fitted, LawFit)
    return held_out(fitted, points)


def bending(slope: float, seed: int, noise: float = 0.003) -> Points:
    """Return runs of a law whose losses bend away from it: by `slope` times the square of ln compute's upper part."""
    points = grid(noise=noise, sizes=8, ratios=6, seed=seed)
    beyond = np.maximum(np.log(points.flops / np.median(points.flops)), 0)
    return replace(points, loss=points.loss * np.exp(slope * beyond))


def test_a_law_that_bends_away_from_its_runs_has_wider_intervals_and_one_that_holds_has_not():
    bent, straight = extrapolating(bending(0.03, 1)), extrapolating(grid(noise=0.003, sizes=8, ratios=6, seed=1))
    at = 3e10, 6e11
    assert bent.lack_of_fit is not None and bent.as_fitted.lack_of_fit is None
    assert bent.holdout.coverage == 1, "with the lack of fit of still smaller runs; without it 0.2"
    assert np.ptp(np.log(bent.prediction(*at)[1:])) > 2 * np.ptp(np.log(bent.as_fitted.prediction(*at)[1:]))
    wide, bare = (np.ptp(np.log(one.prediction(*at)[1:])) for one in (straight, straight.as_fitted))
    assert bare <= wide < 1.1 * bare


def test_a_fit_has_the_lack_of_fit_of_its_laws():
    law = fit(grid(noise=0.003, sizes=6, ratios=4), ["kaplan"], bootstraps=100).laws["kaplan"]
    assert law.lack_of_fit is not None, "without a floor it predicts too low a loss"
    assert law.holdout.bias < 0 and law.lack_of_fit.freedom == 4


def test_a_law_of_one_cost_widens_with_that_cost():
    cost = np.geomspace(1e17, 1e21, 24)
    unknown = np.full(24, np.nan)
    bend = 0.03 * np.maximum(np.log(cost / 1e19), 0)
    noise = 0.002 * np.random.default_rng(0).standard_normal(24)
    loss = (1.7 + 300 * cost**-0.13) * np.exp(bend + noise)
    points = Points(unknown, unknown, cost, loss, np.arange(24).astype(str))
    law = extrapolating(points, power("flops"))
    assert law.lack_of_fit is not None and law.lack_of_fit.reach == (np.log(cost.max()),)
    assert np.ptp(np.log(law.loss(1e23)[1:])) > np.ptp(np.log(law.as_fitted.loss(1e23)[1:]))


def test_an_answer_says_which_part_of_its_intervals_is_lack_of_fit():
    points = bending(0.03, 1)
    runs = [{"params": 3e10, "tokens": 6e11}]
    answered = answer(points, [1e24], bootstraps=100, laws=["overtraining"], runs=runs)
    (law,), (predicted,), (best, *_) = answered.fit.laws.values(), answered.predicted, answered.best
    bare = law.as_fitted.prediction(3e10, 6e11)
    assert predicted.wider == pytest.approx(np.ptp(np.log(predicted.loss[1:])) / np.ptp(np.log(bare[1:])))
    assert predicted.wider > 1.5
    notes = [note for note in notes_of(answered) if "Fitted without its largest runs" in note]
    widest = max(best.wider, predicted.wider)
    assert len(notes) == 1 and f"{widest:.2g} times as wide as the jackknife's" in notes[0]
    document = fit_document(answered)
    assert document["predicted"][0]["wider"] == predicted.wider and document["best"][0]["wider"] == best.wider
    assert document["laws"]["overtraining"]["lack_of_fit"] == law.lack_of_fit.rate


def coverage(studies: list[Points]) -> tuple[float, float]:
    """Return the share of the largest fifth inside intervals of fits to the rest, which alone decide their widths.

    The first is that of the bootstrap or the jackknife, the second that with the lack of fit.
    """
    inside: list[tuple[bool, bool]] = []
    for points in studies:
        held = largest(points)
        law, test = extrapolating(points.where(~held)), points.where(held)
        ends = [one.prediction_of(test) for one in (law.as_fitted, law)]
        inside += zip(*((low <= test.loss) & (test.loss <= high) for _, low, high in ends), strict=True)
    return tuple(np.mean(inside, axis=0))


@pytest.mark.slow
def test_intervals_hold_the_largest_runs_whether_the_law_holds_or_not():
    """Where the law holds, both ways cover. Where the losses bend away, only the one with a lack of fit does."""
    fitted, ours = coverage([grid(noise=0.005, sizes=8, ratios=5, seed=seed) for seed in range(15)])
    assert 0.92 <= fitted <= ours
    fitted, ours = coverage([bending(0.03, seed) for seed in range(15)])
    assert fitted < 0.75 and ours >= 0.9


@pytest.mark.slow
@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the public data is not here")
@pytest.mark.parametrize("name", ["chinchilla", "extra"])
def test_the_largest_runs_of_chinchillas_points_lie_in_the_intervals(name: str):
    """The intervals of the bootstrap held 64 and 68 % of them."""
    points = points_of_csv(PUBLIC / "chinchilla_points.csv", {"unit": "row"})
    law = fit(points, [name], bootstraps=100).laws[name]
    assert law.holdout.coverage >= 0.93
    rest = points.where(~largest(points))
    _, low, high = fit_law(rest, law.law, law.delta, 200).prediction_of(points.where(largest(points)))
    loss = points.loss[largest(points)]
    assert ((low <= loss) & (loss <= high)).mean() < 0.7

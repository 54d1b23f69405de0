"""Nominal 95 % intervals hold the truth 92 to 98 % of the time, in designs that studies have.

With `-s` the tests print the table of docs/fitting.md.
"""

import numpy as np
import pytest
from scipy.stats import binom

from lmexp.analysis.scaling.fit import fit_law
from lmexp.analysis.scaling.law_fit import LawFit
from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, chinchilla
from lmexp.analysis.scaling.points import Points

TRUTH = PUBLISHED_LAWS["epoch"].theta
NOISE = 0.005
"""Standard deviation of ln L from run to run."""
STUDIES = 1500
"""The coverage of one quantity is then known to 0.6 percentage points, one standard error, a fifth of the band."""
FEW_STUDIES = 200
LOWEST, HIGHEST = 0.92, 0.98
"""The band in which the coverage of a 95 % interval must lie."""
BUDGET = 1e22
"""FLOPs, some ten times the largest run's."""


def study(sizes: int, ratios: int, trunks: int, shared: float, seed: int) -> Points:
    """Return runs of `sizes` from 10M to 3B at `ratios` from 5 to 80 tokens a parameter, with noise.

    With `trunks` the ratios of a size are milestones of so many trunks, whose own is `shared` of the variance.
    """
    draws = np.random.default_rng(seed)
    size = np.repeat(np.geomspace(1e7, 3e9, sizes), max(trunks, 1))
    params, ratio = (a.ravel() for a in np.meshgrid(size, np.geomspace(5, 80, ratios), indexing="ij"))
    trunk = np.repeat(np.arange(len(size)), ratios)
    own, common = draws.standard_normal(len(params)), draws.standard_normal(len(size))[trunk]
    noise = NOISE * (np.sqrt(1 - shared) * own + np.sqrt(shared) * common)
    tokens = params * ratio
    loss = chinchilla.loss(TRUTH, params, tokens) * np.exp(noise)
    unit = trunk if trunks else np.arange(len(params))
    return Points(params, tokens, 6 * params * tokens, loss, unit.astype(str))


def covered(points: Points, seed: int) -> dict[str, bool]:
    """Return which quantities of a study's fit have the truth in their interval."""
    fitted = fit_law(points, chinchilla, bootstraps=300, seed=seed)
    if not isinstance(fitted, LawFit):
        return {}
    truth = dict(zip(chinchilla.parameters, TRUTH, strict=True))
    inside = {name: low <= truth[name] <= high for name, (low, high) in fitted.intervals.items()}
    best = chinchilla.optimum(TRUTH, BUDGET)
    for name, (_, low, high) in fitted.optimum(BUDGET)._asdict().items():
        inside[f"optimum's {name}"] = bool(low <= getattr(best, name) <= high)
    for name, at in {"loss among the runs": (2e8, 4e9), "loss beyond them": (1e10, 2e11)}.items():
        true = chinchilla.loss(TRUTH, *at)
        mean, single = fitted.loss(*at), fitted.prediction(*at)
        measured = true * np.exp(NOISE * np.random.default_rng(10**6 + seed).standard_normal())
        inside[name] = bool(mean.low <= true <= mean.high)
        inside[f"one run's {name}"] = bool(single.low <= measured <= single.high)
    return inside


DESIGNS = pytest.mark.parametrize(
    ("design", "sizes", "ratios", "trunks", "shared"),
    [
        ("15 runs", 5, 3, 0, 0.0),
        ("24 runs", 6, 4, 0, 0.0),
        ("80 runs", 8, 10, 0, 0.0),
        ("12 trunks of 4", 6, 4, 2, 0.7),
        ("24 trunks of 4", 6, 4, 4, 0.7),
    ],
)


def counts(design: str, studies: int, *shape: float) -> tuple[dict[str, int], int]:
    """Return how many studies had the truth in each quantity's interval, and how many were fitted at all."""
    found = [covered(study(*shape, seed), seed) for seed in range(studies)]  # type: ignore[arg-type]
    fitted = [inside for inside in found if inside]
    count = {name: sum(inside[name] for inside in fitted) for name in fitted[0]}
    shares = " | ".join(f"{name} {value / len(fitted):.3f}" for name, value in count.items())
    print(f"| {design} | {shares} | refused {studies - len(fitted)}")
    assert len(fitted) >= 0.99 * studies
    return count, len(fitted)


@pytest.mark.long
@pytest.mark.timeout(1800)
@DESIGNS
def test_intervals_of_95_percent_hold_the_truth_92_to_98_percent_of_the_time(design, sizes, ratios, trunks, shared):
    count, fitted = counts(design, STUDIES, sizes, ratios, trunks, shared)
    assert all(LOWEST <= inside / fitted <= HIGHEST for inside in count.values()), count


@pytest.mark.slow
@DESIGNS
def test_a_few_studies_do_not_contradict_that_coverage(design, sizes, ratios, trunks, shared):
    """The short version. By the binomial distribution, sound intervals fail it once in a hundred redraws at most.

    200 studies show an interval that holds the truth less than 80 % of the time; only more of them show one that is
    too wide.
    """
    count, fitted = counts(design, FEW_STUDIES, sizes, ratios, trunks, shared)
    chance = 0.01 / (2 * 5 * len(count))  # both sides, five designs, every quantity
    for name, inside in count.items():
        assert binom.cdf(inside, fitted, LOWEST) > chance, f"{name}: only {inside} of {fitted} hold the truth"
        assert binom.sf(inside - 1, fitted, HIGHEST) > chance, f"{name}: as many as {inside} of {fitted}"

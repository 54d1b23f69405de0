"""The headline's best size is held against the approaches, and a disagreement is said first."""

import numpy as np
import pytest

from lmexp.analysis.scaling.agreement import agreement
from lmexp.analysis.scaling.answers import answer
from lmexp.analysis.scaling.law_fit import Estimate
from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, chinchilla
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.words import headline

EPOCH = PUBLISHED_LAWS["epoch"].theta


def isoflop(best_exponent: float | None) -> Points:
    """Return 9 sizes at 5 budgets: of Chinchilla's law, or of parabolas whose vertex is 1e8 (C/1e19)^exponent."""
    flops = np.repeat(np.geomspace(1e17, 1e21, 5), 9)
    around = np.tile(np.geomspace(1 / 6, 6, 9), 5)
    if best_exponent is None:
        params = chinchilla.optimum(EPOCH, flops).params * around
        loss = chinchilla.loss(EPOCH, params, flops / 6 / params)
    else:
        params = 1e8 * (flops / 1e19) ** best_exponent * around
        loss = 1.7 + (1.1 + 0.06 * np.log(around) ** 2) * (flops / 1e19) ** -0.1
    noisy = loss * np.exp(np.random.default_rng(0).normal(0, 0.001, 45))
    return Points(params, flops / 6 / params, flops, noisy, np.arange(45).astype(str))


def test_sizes_differ_if_the_interval_of_their_ratio_does_not_hold_1():
    trusted = Estimate(*map(np.asarray, (1e9, 0.8e9, 1.25e9)))
    same, apart = (Estimate(*(np.asarray(size * ends) for ends in (1, 0.8, 1.25))) for size in (1.3e9, 1.5e9))
    compared = agreement(1e21, trusted, {"same": same, "apart": apart})
    assert compared.agree == ("same",) and compared.disagree == ("apart",)  # e^(.2231 sqrt 2) = 1.371


def test_an_estimate_without_an_interval_is_not_compared():
    trusted = Estimate(*map(np.asarray, (1e9, 0.8e9, 1.25e9)))
    nothing = Estimate(*map(np.asarray, (1e12, np.nan, np.nan)))
    assert agreement(1e21, trusted, {"approach_1": nothing}).disagree == ()


def test_where_the_law_holds_the_approaches_agree_and_the_headline_says_so():
    found = answer(isoflop(None), [1e21], bootstraps=100)
    assert found.agreement.disagree == () and "approach_2" in found.agreement.agree
    first, second, *_ = headline(found)
    assert first.startswith("At 1e21 FLOPs the best model has") and "approach_2" in second


def test_where_the_law_does_not_hold_the_disagreement_is_the_headline():
    """The vertices lie at 1e8 (C/1e19)^.75, and no law of the form has their exponent at the same curvature."""
    found = answer(isoflop(0.75), [1e21], bootstraps=100)
    vertex = next(row for row in found.best if row.by == "approach_2")
    assert float(vertex.params.value) == pytest.approx(1e8 * 100**0.75, rel=0.05)
    assert "approach_2" in found.agreement.disagree
    assert "the best size is not settled" in headline(found)[0] and "by approach_2" in headline(found)[0]

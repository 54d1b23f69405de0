"""What `fit` answers about a law that is known."""

import numpy as np
import pytest

from lmexp.analysis.scaling.answers import answer, answer_in_cost
from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, chinchilla
from lmexp.analysis.scaling.points import Points
from lmexp.errors import UserError

THETA = PUBLISHED_LAWS["epoch"].theta


def runs(noise: float = 0.002, **more) -> Points:
    """Return 7 sizes at 5 ratios of tokens to parameters, with a little noise."""
    params = np.repeat(np.geomspace(1e7, 1e9, 7), 5)
    tokens = params * np.tile([5, 10, 20, 40, 80], 7)
    loss = chinchilla.loss(THETA, params, tokens) * np.exp(np.random.default_rng(0).normal(0, noise, 35))
    return Points(params, tokens, 6 * params * tokens, loss, np.arange(35).astype(str), **more)


@pytest.fixture(scope="module")
def found():
    return answer(runs(), [1e20, 1e21], served=1e11, bootstraps=100)


def test_the_optimum_of_a_known_law_lies_in_the_interval(found):
    (row,) = (row for row in found.best if row.by == "chinchilla" and row.flops == 1e20)
    truth = chinchilla.optimum(THETA, 1e20)
    for estimate, true in zip((row.params, row.tokens, row.loss), truth, strict=True):
        assert estimate.low < true < estimate.high
    assert row.beyond == pytest.approx(1e20 / (6 * 80 * 1e18))


def test_all_laws_stand_side_by_side_and_what_cannot_be_done_says_why(found):
    assert {row.by for row in found.best} == {"chinchilla", "extra", "kaplan"}
    assert "sizes" in found.refused["approach_1"] and "equal FLOPs" in found.refused["approach_2"]


def test_the_law_that_predicts_best_is_the_one_trusted(found):
    errors = {name: law.holdout.mean_absolute_error for name, law in found.fit.laws.items()}
    assert errors[found.trusted.law.name] == min(errors.values())


def test_a_model_that_serves_is_smaller_and_sees_more_tokens(found):
    best = {(row.by, row.flops): row for row in found.best}
    for row in found.served:
        trained = best[row.by, row.flops]
        assert float(row.params.value) < float(trained.params.value)
        assert float(row.tokens.value) > float(trained.tokens.value)
        assert row.train_flops > row.flops and 0 < row.saved < 1


def test_runs_at_one_ratio_are_refused_with_a_way_out():
    points = runs()
    with pytest.raises(UserError, match=r"one D/N.* --cost train_flops"):
        answer(points.where(np.isclose(points.tokens, 20 * points.params)))


def test_loss_against_a_cost_is_a_power_law_on_the_frontier():
    seconds = np.geomspace(10, 1e4, 12)
    loss = 2 + 3 * seconds**-0.4
    worse = np.append(loss, 4.0)  # a run that paid most for nothing
    n = np.full(13, 1e6)
    points = Points(n, n, n * n, worse, np.arange(13).astype(str), costs={"train_seconds": np.append(seconds, 2e4)})
    found = answer_in_cost(points, "train_seconds", [1e5], bootstraps=100)
    assert len(found.points) == 12
    theta = found.fit.laws["power_train_seconds"].theta
    assert theta["E"] == pytest.approx(2, abs=1e-4) and theta["alpha"] == pytest.approx(0.4, abs=1e-4)
    (row,) = found.bought
    assert float(row.loss.value) == pytest.approx(2 + 3 * 1e5**-0.4, abs=1e-4) and row.beyond == pytest.approx(10)


def test_a_cost_that_was_not_measured_is_refused_with_those_that_were():
    with pytest.raises(UserError, match=r"no run has 'dollars' as a cost.* Measured here: train_flops"):
        answer_in_cost(runs(), "dollars")
    points = runs()
    with pytest.raises(UserError, match="frontier of loss against train_flops: a law takes 5"):
        answer_in_cost(points.where(np.arange(35) < 4), "train_flops")

"""A law of loss against a cost is fitted to the runs that no other beats on both."""

import numpy as np
import pandas as pd
import pytest

from lmexp.analysis.frontier import frontier
from lmexp.analysis.scaling.answers import answer_in_cost
from lmexp.analysis.scaling.cost import MIN_RUNS, on_frontier, warnings
from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, chinchilla
from lmexp.analysis.scaling.points import Points
from lmexp.errors import UserError

DOLLARS = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 16.0])
LOSSES = np.array([3.0, 2.8, 2.6, 2.4, 2.2, 2.9])
POINTS = Points(np.ones(6), np.ones(6), 100 * DOLLARS, LOSSES, np.arange(6).astype(str), costs={"dollars": DOLLARS})


@pytest.mark.parametrize("cost", ["dollars", "flops", "train_flops"])
def test_a_run_that_a_cheaper_one_beats_is_left_out(cost: str):
    assert on_frontier(POINTS, cost).loss.tolist() == [3.0, 2.8, 2.6, 2.4, 2.2]


def test_a_frontier_of_many_runs_is_that_of_the_law_and_not_of_the_lucky():
    """1000 scattered runs with 1 % noise: the best measured ones lie below what any run costs on average."""
    draws = np.random.default_rng(0)
    params, ratio = np.exp(draws.uniform(np.log(1e7), np.log(3e9), 1000)), np.exp(draws.uniform(0, np.log(300), 1000))
    tokens, theta = params * ratio, PUBLISHED_LAWS["epoch"].theta
    loss = chinchilla.loss(theta, params, tokens) * np.exp(0.01 * draws.standard_normal(1000))
    points = Points(params, tokens, 6 * params * tokens, loss, np.arange(1000).astype(str))
    found = answer_in_cost(points, "train_flops", [1e19], bootstraps=100)
    (row,) = found.bought
    assert float(row.loss.value) == pytest.approx(float(chinchilla.optimum(theta, 1e19).loss), rel=3e-3)
    lucky = frontier(pd.DataFrame({"loss": loss, "cost": points.flops}), "loss", "cost").to_numpy()
    assert lucky.sum() < len(found.points)


def test_a_cost_that_was_not_measured_gets_the_nearest():
    with pytest.raises(UserError, match=r"no run has 'dollar' as a cost. Did you mean 'dollars'"):
        on_frontier(POINTS, "dollar")


def test_too_few_runs_on_the_frontier_are_refused():
    assert MIN_RUNS == 5
    with pytest.raises(UserError, match="4 of 4 runs are on the frontier"):
        on_frontier(POINTS.where(np.arange(6) < 4), "dollars")


def test_a_frontier_of_little_range_is_warned_of():
    assert warnings(on_frontier(POINTS, "dollars"), "dollars") == ()
    (warning,) = warnings(POINTS.where(DOLLARS < 8), "dollars")
    assert "spans 0.6 decades of dollars" in warning

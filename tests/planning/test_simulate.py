"""A design judged before it is run: by its information, by rehearsal, and against cheaper ones."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lmexp.analysis.scaling.laws import PUBLISHED_LAWS
from lmexp.analysis.scaling.points import Points
from lmexp.errors import UserError
from lmexp.planning.cheaper import NOT_NEEDED, exchange, replace_rows
from lmexp.planning.simulate import (
    REHEARSALS,
    Assumed,
    _at,
    _coordinates,
    assumed_law,
    design_problems,
    jacobian,
    points_of_plan,
    predict,
    rehearse,
    worse_than_uniform,
)


def grid(sizes: int = 7, budgets: int = 4) -> Points:
    """An isoFLOP design: sizes from 1e6 to 1e8, budgets from 1e15 to 1e17 FLOPs."""
    axes = np.meshgrid(np.geomspace(1e6, 1e8, sizes), np.geomspace(1e15, 1e17, budgets))
    params, flops = (axis.ravel() for axis in axes)
    unit = np.arange(len(params)).astype(str)
    return Points(params=params, tokens=flops / 6 / params, flops=flops, loss=np.ones(len(params)), unit=unit)


HOFFMANN = assumed_law("hoffmann", 0.01)
EXTRA = assumed_law("E=1.5,A=400,B=900,alpha=0.4,beta=0.35,gamma=0.8", 0.01)


@pytest.mark.parametrize("assumed", [HOFFMANN, EXTRA, assumed_law("kaplan", 0.01)], ids=["plain", "extra", "kaplan"])
def test_the_jacobian_is_that_of_the_laws_own_loss(assumed: Assumed):
    points, at = grid(), _coordinates(assumed)
    steps = 1e-6 * np.eye(len(at)) * np.maximum(np.abs(at), 1e-2)

    def log_loss(theta: np.ndarray) -> np.ndarray:
        return np.log(assumed.law.loss(theta[:, None, :], points.params, points.tokens))

    difference = log_loss(_at(assumed, at + steps)) - log_loss(_at(assumed, at - steps))
    numeric = (difference / (2 * np.diag(steps)[:, None])).T
    np.testing.assert_allclose(jacobian(assumed, points), numeric, rtol=1e-4, atol=1e-6)


def test_twice_the_noise_is_twice_the_width_and_four_times_the_runs_half():
    points = grid()
    once = predict(points, HOFFMANN, 1e18)["E"]
    noisy = predict(points, replace(HOFFMANN, noise=0.02), 1e18)["E"]
    assert noisy.high - noisy.value == pytest.approx(2 * (once.high - once.value), rel=1e-6)
    fourfold = replace_rows(points, list(range(len(points))) * 4, np.tile(points.tokens, 4))
    more = predict(fourfold, HOFFMANN, 1e18)["E"]
    assert more.high - more.value == pytest.approx((once.high - once.value) / 2, rel=1e-6)


def test_rows_that_share_a_trunk_tell_less_than_runs_of_their_own():
    points = grid()
    trunks = replace(points, unit=np.array([str(i % 7) for i in range(len(points))]))
    alone, shared = (predict(design, HOFFMANN, 1e18)["loss"] for design in (points, trunks))
    assert shared.high / shared.low > alone.high / alone.low


def test_the_real_fit_and_bootstrap_agree_with_the_information():
    points = grid()
    expected = predict(points, HOFFMANN, 1e18)
    found, fitted = rehearse(points, HOFFMANN, 1e18, expected)
    assert fitted == REHEARSALS
    for name in ("alpha", "beta", "params", "tokens", "loss"):
        assert 0.6 < found[name].rehearsed < 1.7
        assert found[name].covered >= REHEARSALS // 2


def test_a_collinear_design_tells_nothing_and_is_refused():
    sizes = np.geomspace(1e6, 1e8, 8)
    points = Points(
        params=sizes, tokens=20 * sizes, flops=120 * sizes**2, loss=np.ones(8), unit=np.arange(8).astype(str)
    )
    assert design_problems(points)[0]
    assert math.isinf(predict(points, HOFFMANN, 1e18)["E"].high)
    assert exchange(points, HOFFMANN, 1e18) is None


def test_a_cheaper_design_tells_as_much_by_the_same_reckoning():
    points = grid()
    found = exchange(points, HOFFMANN, 1e18)
    assert found is not None and found.flops_after < 0.8 * found.flops_before and found.widest <= 1 + 1e-6
    rows = [*found.kept, *(position for position, _ in found.added)]
    tokens = np.array([*points.tokens[found.kept], *(tokens for _, tokens in found.added)])
    cheaper = replace_rows(points, rows, tokens)
    assert cheaper.flops.sum() == pytest.approx(found.flops_after)
    before, after = predict(points, HOFFMANN, 1e18), predict(cheaper, HOFFMANN, 1e18)
    for name in before.keys() - set(NOT_NEEDED):
        assert after[name].high / after[name].low <= before[name].high / before[name].low * 1.02, name
    assert len(set(zip(cheaper.params, np.round(np.log(tokens), 2), strict=True))) == len(cheaper)


def test_nothing_is_exchanged_under_milestones_of_one_trunk():
    points = grid()
    assert exchange(replace(points, unit=np.array(["a"] * len(points))), HOFFMANN, 1e18) is None


def test_laws_are_read_by_name_by_constants_and_from_a_file(tmp_path: Path):
    assert np.array_equal(assumed_law("epoch", 0.01).theta, PUBLISHED_LAWS["epoch"].theta)
    assert EXTRA.law.name == "extra"
    file = tmp_path / "law.json"
    theta = dict(zip(HOFFMANN.law.parameters, HOFFMANN.theta.tolist(), strict=True))
    for content in (theta, {"theta": theta}, {"laws": {"chinchilla": {"theta": theta}}}, {"laws": [{"theta": theta}]}):
        file.write_text(json.dumps(content))
        assert np.array_equal(assumed_law(str(file), 0.01).theta, HOFFMANN.theta)


@pytest.mark.parametrize(
    ("law", "noise", "said"),
    [
        ("hofmann", 0.01, "Did you mean 'hoffmann'?"),
        ("E=1.7,A=x", 0.01, "'A=x' is no number under a name"),
        ("E=1.7,A=2", 0.01, "no law has exactly E, A"),
        ("E=1.7,A=-4,B=5,alpha=0.3,beta=0.3", 0.01, "must be above 0"),
        ("E=nan,A=4,B=5,alpha=0.3,beta=0.3", 0.01, "must be above 0"),
        ("nowhere.json", 0.01, "not readable as JSON"),
        ("hoffmann", 0.0, "--noise 0"),
        ("hoffmann", float("nan"), "--noise nan"),
        ("hoffmann", 2.0, "--noise 2"),
    ],
)
def test_what_is_no_law_is_refused_in_words(law: str, noise: float, said: str):
    with pytest.raises(UserError) as problem:
        assumed_law(law, noise)
    assert said in str(problem.value)


def test_runs_of_unknown_length_are_refused_with_the_way_to_know_it():
    with pytest.raises(UserError, match="`lmexp plan x --measure`"):
        points_of_plan([{"n_params": 1e6, "tokens": None, "train_flops": None}], HOFFMANN, "x")


def test_a_law_that_predicts_more_than_a_uniform_guess_is_told_with_the_number_of_runs():
    points = points_of_plan(
        [{"n_params": n, "tokens": 10**7, "train_flops": 6e7 * n} for n in (10**5, 10**9)], HOFFMANN, "x"
    )
    low, high = sorted(points.loss)
    assert worse_than_uniform(points, high) is None
    assert "for 1 of 2 planned runs" in (worse_than_uniform(points, (low + high) / 2) or "")
    assert "for all planned runs" in (worse_than_uniform(points, low - 0.1) or "")

"""Claims as expressions: the numbers, their intervals against those of scipy, and wrong expressions."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lmexp.errors import UserError
from lmexp.papers.evidence import Evidence
from lmexp.papers.expressions import estimate

AXES = ("arm", "width", "seed")


def evidence(rows: list[dict[str, object]], axes: tuple[str, ...] = AXES) -> Evidence:
    table = pd.DataFrame(rows).convert_dtypes()
    table["run_id"] = [f"r{row}" for row in range(len(table))]
    return Evidence(table, axes, "test")


def factorial(losses: dict[tuple[str, int], list[float]]) -> Evidence:
    return evidence(
        [
            {"arm": arm, "width": width, "seed": seed, "loss": loss, "tokens": 10.0 * width}
            for (arm, width), of_cell in losses.items()
            for seed, loss in enumerate(of_cell)
        ]
    )


TWO_ARMS = factorial({("a", 16): [2.0, 2.2, 2.4], ("b", 16): [1.9, 2.0, 2.3]})
losses = st.lists(st.floats(1, 5), min_size=2, max_size=6)


@settings(max_examples=25, deadline=None)
@given(losses)
def test_the_interval_of_a_mean_is_students(values: list[float]):
    ours = estimate("mean(loss)", factorial({("a", 16): values}))
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert ours.value == pytest.approx(np.mean(values))
    if np.std(values) > 1e-6:
        assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(1, 5), st.floats(1, 5)), min_size=2, max_size=6))
def test_the_interval_of_a_paired_change_is_that_of_the_paired_t_test(pairs: list[tuple[float, float]]):
    before, after = zip(*pairs, strict=True)
    ours = estimate(
        "paired(loss, arm == 'b', arm == 'a')", factorial({("a", 16): list(before), ("b", 16): list(after)})
    )
    changes = np.divide(after, before) - 1
    low, high = stats.ttest_1samp(changes, 0).confidence_interval()
    assert ours.value == pytest.approx(changes.mean())
    if changes.std() > 1e-6:
        assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-6)


def test_a_difference_between_cells_is_no_noise():
    wide_apart = factorial({("a", 16): [2.0, 2.1], ("a", 32): [8.0, 8.1]})
    ours = estimate("mean(loss)", wide_apart)
    assert ours.value == pytest.approx(5.05)
    assert ours.high - ours.low < 0.4  # between the cells it would be 10


def test_milestones_of_one_run_are_left_out_together():
    rows = [
        {"arm": "a", "width": 16, "seed": seed, "loss": 3.0 + seed, "tokens": t} for seed in (0, 1) for t in (1.0, 2)
    ]
    table = pd.DataFrame(rows).convert_dtypes()
    table["unit"] = ["u0", "u0", "u1", "u1"]
    ours = estimate("mean(loss)", Evidence(table, AXES, "test"))
    low, high = stats.ttest_1samp([3.0, 4.0], 0).confidence_interval()
    assert (ours.low, ours.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("mean(loss, where=arm == 'a') / mean(loss, where=arm == 'b')", 2.2 / (6.2 / 3)),
        ("count(loss > 2.1)", 3),
        ("min(loss) + 1", 2.9),
        ("max(loss, where=arm == 'b')", 2.3),
        ("sum(tokens)", 960),
        ("spread(loss, arm)", (2.2 - 6.2 / 3) / (6.2 / 3)),
        ("log2(mean(tokens) / 20)", 3),
        ("slope(loss, seed, where=arm == 'a')", 0.2),
        ("spearman(seed, loss)", 1),
        ("argmin(seed, loss)", 0),
        ("-mean(log10(tokens))", -math.log10(160)),
    ],
)
def test_the_functions_give_what_they_say(expression: str, value: float):
    assert estimate(expression, TWO_ARMS).value == pytest.approx(value)


@settings(max_examples=20, deadline=None)
@given(st.floats(-6, -4), st.floats(0.05, 1))
def test_the_vertex_of_a_parabola_in_the_logarithm_is_found(best: float, curvature: float):
    rates = np.exp(np.linspace(-8, -2, 9))
    rows = [{"seed": 0, "rate": rate, "loss": 2 + curvature * (np.log(rate) - best) ** 2} for rate in rates]
    assert estimate("log(vertex(rate, loss))", evidence(rows, ("rate", "seed"))).value == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        ((1, 2, 3), "edge of the grid: the lowest mean is that of the smallest of 3 values, 0.1; add smaller values"),
        ((3, 2, 1), "edge of the grid: the lowest mean is that of the largest of 3 values, 0.4; add larger values"),
    ],
)
def test_a_minimum_at_the_edge_is_no_vertex(losses: tuple[float, ...], why: str):
    rows = [{"seed": 0, "rate": rate, "loss": loss} for rate, loss in zip((0.1, 0.2, 0.4), losses, strict=True)]
    study = evidence(rows, ("rate", "seed"))
    with pytest.raises(UserError, match=why):
        estimate("vertex(rate, loss)", study)
    assert math.isnan(estimate("vertex(rate, loss, where=rate < 0.3)", study).value)  # the third is still missing


def test_a_speedup_is_the_ratio_of_tokens_at_equal_loss():
    """Arm b is the law at 1.3 times the tokens, with its best rate at 2 and that of arm a at 1."""
    draw = np.random.default_rng(0)
    rows = [
        {"arm": arm, "rate": rate, "width": width, "seed": seed, "tokens": tokens, "run_id": (arm, rate, width, seed),
         "loss": 2 + 8 / np.sqrt(width) + noise + 30 * (tokens * factor) ** -0.3 + 0.1 * abs(rate - best)}
        for width in (16, 32)
        for seed in (0, 1, 2)
        for noise in [draw.normal(0, 0.1)]
        for arm, factor, best in (("a", 1.0, 1), ("b", 1.3, 2))
        for rate in (1, 2)
        for tokens in np.geomspace(1e5, 1e6, 6)
    ]  # fmt: skip
    study = evidence(rows, ("arm", "rate", "width", "seed"))
    study.table["run_id"] = [str(row["run_id"]) for row in rows]
    ours = estimate("speedup(arm == 'b', arm == 'a', best=rate)", study)
    assert ours.value == pytest.approx(1.3, abs=0.01) and ours.high - ours.low < 0.02  # the noise of a seed is in both
    back = estimate("speedup(arm == 'a', arm == 'b', best=rate)", study)
    assert back.value == pytest.approx(1 / ours.value)
    assert estimate("speedup(arm == 'b', arm == 'a', where=rate == 1)", study).value < 1
    of_width = "speedup(arm == 'b', arm == 'a', best=rate, where=width == {})"
    difference = estimate(f"{of_width.format(16)} - {of_width.format(32)}", study)
    assert difference.value == pytest.approx(0, abs=1e-3)  # what is left comes from interpolation
    one_budget = study.at(np.flatnonzero(study.table["tokens"] > 9e5))
    with pytest.raises(UserError, match="before its own first point: it needs earlier ones"):
        estimate("speedup(arm == 'b', arm == 'a', best=rate)", one_budget)


def test_without_a_second_run_there_is_no_interval():
    ours = estimate("mean(loss)", factorial({("a", 16): [2.0]}))
    assert ours == (2.0, -math.inf, math.inf)


@pytest.mark.long
def test_intervals_of_jumping_numbers_hold_the_truth():
    """The best of three arms, one of which is better by one standard deviation of a seed, in 100 studies."""
    draw, held = np.random.default_rng(0), 0
    for _ in range(100):
        study = factorial({(arm, 16): list(3 - 0.1 * (arm == "b") + draw.normal(0, 0.1, 4)) for arm in "abc"})
        numbered = study.table.assign(at=study.table["arm"].map({"a": 0, "b": 1, "c": 2}))
        ours = estimate("argmin(at, loss)", Evidence(numbered, AXES, "test"))
        held += ours.low <= 1 <= ours.high
    assert held >= 90


def isoflops(budgets: tuple[float, ...]) -> Evidence:
    """Seven sizes at each budget, from a quarter to four times the best one in the middle, with alpha = beta = 0.3."""
    rows = [
        {"n_params": n, "tokens": c / 6 / n, "train_flops": c, "loss": 2 + 300 / n**0.3 + 300 / (c / 6 / n) ** 0.3}
        for c in budgets
        for n in np.geomspace(1 / 4, 4, 7) * np.sqrt(1e12 / 6)
    ]
    return evidence([row | {"seed": 0} for row in rows], ("n_params", "train_flops", "seed"))


def test_the_exponent_is_that_of_the_law_in_whatever_counts():
    study = isoflops((2.5e11, 5e11, 1e12, 2e12, 4e12))
    assert estimate("exponent(2)", study).value == pytest.approx(0.5, abs=0.01)
    scaled = estimate("exponent(2, params=3 * n_params, flops=5 * train_flops)", study)
    assert scaled == pytest.approx(estimate("exponent(2, flops=train_flops)", study)) and scaled.value < 0.51
    # Counted as N' = N**1.5, the loss falls with N'**-0.2: a = 0.3 / (0.2 + 0.3). As many tokens cost 6 N' D.
    other = estimate("exponent(2, params=n_params**1.5, flops=train_flops * n_params**0.5)", study)
    assert other.value == pytest.approx(0.6, abs=0.02) and 0 < other.high - other.low < 0.1
    difference = estimate("exponent(2, params=n_params**1.5, flops=train_flops * n_params**0.5) - exponent(2)", study)
    assert difference.low < 0.1 < difference.high


def test_three_budgets_are_enough_for_an_interval_of_the_exponent():
    """Without one run, a budget has fewer sizes than approach 2 asks for, or its optimum at their edge."""
    study = isoflops((5e11, 1e12, 2e12))
    fewer = study.at(np.flatnonzero(np.arange(21) % 7 > 1))
    ours = estimate("exponent(2)", fewer)
    assert ours.value == pytest.approx(0.5, abs=0.05) and 0 < ours.high - ours.low < 0.5
    assert estimate("vertices()", study) == (3, 3, 3)


def test_laws_have_their_own_intervals():
    draw = np.random.default_rng(0)
    rows = [
        {"n_params": n, "tokens": d, "seed": 0, "loss": 1.7 + 400 / n**0.34 + 900 / d**0.3 + draw.normal(0, 3e-3)}
        for n in np.geomspace(1e6, 1e9, 6)
        for d in np.geomspace(1e8, 1e11, 6)
    ]
    study = evidence(rows, ("n_params", "tokens", "seed"))
    ours = estimate("exponent_of('chinchilla')", study)
    assert ours.low < 0.3 / 0.64 < ours.high and ours.high - ours.low < 0.1
    assert estimate("parameter('chinchilla', 'alpha')", study).value == pytest.approx(0.34, abs=0.02)
    assert estimate("holdout_error('chinchilla', tokens > 5e10)", study).value < 0.01
    with pytest.raises(UserError, match="must be the whole expression"):
        estimate("exponent_of('chinchilla') - 1", study)
    with pytest.raises(UserError, match="no parameter 'gamma'; it has E, A, B, alpha, beta"):
        estimate("parameter('chinchilla', 'gamma')", study)


def test_the_held_out_error_knows_of_each_runs_precision():
    """Each precision has an effective size of its own, which is fitted beside the law."""
    rows = [
        {"n_params": n, "tokens": d, "precision": p, "seed": 0, "loss": 1.7 + 400 / (n * f) ** 0.34 + 900 / d**0.3}
        for p, f in (("bf16", 1.0), ("int8", 0.5))
        for n in np.geomspace(1e6, 1e9, 5)
        for d in np.geomspace(1e8, 1e11, 5)
    ]
    ours = estimate("holdout_error('chinchilla', tokens > 5e10)", evidence(rows, ("precision", "seed")))
    assert ours.value < 1e-4


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("men(loss)", r"at 'men\(loss\)' \(character 1\): there is no function 'men'. Did you mean 'mean'\?"),
        ("mean(los)", r"there is no column 'los'. Did you mean 'loss'\?"),
        ("mean()", r"write mean\(x\)"),
        ("mean(loss, arm == 'a')", r"write mean\(x\)"),
        ("mean(loss, were=arm == 'a')", r"were= is not known here; write mean\(x\)"),
        ("loss", "this is not one number"),
        ("loss > 2", "this is not one number"),
        ("mean(arm)", "this is text, not a number"),
        ("paired(loss, loss > 2, loss < 2)", "the two conditions name no axis; axes are arm, width, seed"),
        ("exponent(3)", "approach 1 is the envelope, 2 the parabolas"),
        ("exponent_of('none')", "there is no law 'none'"),
        ("mean(loss / mean(loss))", "a function inside another one is not allowed"),
        ("mean(loss).real", "this is not allowed here"),
        ("__import__('os')", "there is no function '__import__'"),
        ("mean((lambda: 1)())", r"at ': 1\)\(\)\)' \(character 13\): this is not allowed here"),
        ("mean(loss[0])", "this is not allowed here"),
        ("mean(loss, **tokens)", "this is not allowed here"),
        ("mean(loss, where=loss > 1, where=loss > 2)", r"where= stands here twice"),
        (f"mean(loss) + 1{'0' * 400}", "this number is too large"),
        ("mean(loss) * 1e999", "this number is too large"),
        ("exp(1000 * mean(loss))", "this is infinite, or too large a number"),
        ("log(mean(loss) - 9)", "the log of -6.86667 is no number"),
        ("paired(loss - 2, arm == 'b', arm == 'a')", "this is infinite, or too large a number"),
        ("spearman(seed, width)", "all means of y are equal, so they have no order"),
        ("mean(loss / 0, where=seed == 0)", "loss / 0 has no number in any of the 2 rows"),
    ],
)
def test_wrong_expressions_are_said(expression: str, why: str):
    with pytest.raises(UserError, match=why):
        estimate(expression, TWO_ARMS)

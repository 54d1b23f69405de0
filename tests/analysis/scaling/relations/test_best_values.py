"""The law of the best learning rate: runs that follow Step Law give it back, and what is not identified is said."""

import numpy as np
import pandas as pd
import pytest

from lmexp.analysis.scaling.relations.fit import Asked, fit_relation
from lmexp.analysis.scaling.relations.rows import rows_of_frame
from lmexp.config.step_law import step_law_rate
from lmexp.errors import UserError
from tests.analysis.scaling.relations.studies import rate_grid


def fitted(table, law="learning_rate", **asked):
    asked = Asked(law, **asked)
    return fit_relation(rows_of_frame(table, in_law=asked.columns), asked)


def test_without_noise_the_exponents_of_step_law_come_back():
    relation = fitted(rate_grid(seeds=1), runs=({"params": 1e10, "tokens": 2e11},))
    assert relation.formulas[0].theta == pytest.approx({"c": 1.79, "a": -0.713, "b": 0.307}, rel=1e-6)
    ours, _, published = relation.predictions
    assert ours.estimate.value == pytest.approx(step_law_rate(1e10, 2e11), rel=1e-6)
    assert (published.by, published.estimate.value) == ("Step Law", step_law_rate(1e10, 2e11))
    assert relation.warnings == ()


def test_the_batch_size_is_fitted_by_the_same_law():
    table = rate_grid().rename(columns={"lr": "batch_tokens"})
    table["batch_tokens"] *= 1e9
    theta = fitted(table, "batch_size").formulas[0].theta
    assert theta == pytest.approx({"c": 1.79e9, "a": -0.713, "b": 0.307}, rel=1e-6)


def test_the_regression_is_that_of_closed_form_least_squares():
    relation = fitted(rate_grid(noise=0.01, own=0.2))
    groups = relation.listed[0].rows
    best = np.log([float(row["best learning rate"].value) for row in groups])
    size, tokens = (np.log(np.repeat([1e7, 5e7, 2e8, 1e9], 2) * np.tile(scale, 4)) for scale in ((1, 1), (10, 40)))
    theirs = np.linalg.lstsq(np.stack([np.ones(8), size, tokens], axis=1), best, rcond=None)[0]
    theta = relation.formulas[0].theta
    assert [np.log(theta["c"]), theta["a"], theta["b"]] == pytest.approx(theirs.tolist(), rel=1e-8)


def test_what_the_groups_do_not_identify_is_said():
    one_size = fitted(rate_grid(noise=0.001, sizes=(1e8,), ratios=(5, 10, 20, 40)))
    assert set(one_size.formulas[0].theta) == {"c", "b"}
    assert "All groups have one size: the exponent a, that of N, is not identified." in one_size.warnings
    one_ratio = fitted(rate_grid(noise=0.001, ratios=(20,)))
    assert [formula.name for formula in one_ratio.formulas] == ["of compute"]
    assert "because N and D vary together" in one_ratio.warnings[0]
    two = fitted(rate_grid(noise=0.001, sizes=(1e8, 1e9), ratios=(20,)))
    assert any("There are 2 groups" in warning for warning in two.warnings)


def test_a_group_with_its_best_rate_at_the_edge_of_the_grid_is_left_out_and_named():
    table = rate_grid(seeds=1)
    first = table[(table["params"] == 1e7) & (table["tokens"] == 1e8)]
    cut = table.drop(first.index[first["lr"] > step_law_rate(1e7, 1e8)])
    relation = fitted(cut)
    assert len(relation.listed[0].rows) == 7
    assert "10.0M parameters, 100M tokens: the minimum lies at the edge of the grid" in relation.warnings[0]
    assert relation.formulas[0].theta["a"] == pytest.approx(-0.713, rel=1e-6)


def test_if_the_batch_size_varies_too_each_rate_counts_with_the_best_of_it():
    table = rate_grid(seeds=1)
    worse = table.assign(
        batch_tokens=2e6, loss=table["loss"] + 0.1 * np.log(table["lr"] / table["lr"].mean()) ** 2 + 0.1
    )
    relation = fitted(pd.concat([table.assign(batch_tokens=1e6), worse], ignore_index=True))
    assert relation.formulas[0].theta["a"] == pytest.approx(-0.713, rel=1e-6)
    assert any("batch_tokens varies too" in warning for warning in relation.warnings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.assign(lr=1e-3), "all rows have one lr, 0.001"),
        (lambda t: t.drop(columns="lr"), "no column with the learning rate: name it with --tuned"),
        (lambda t: t.assign(lr=t["lr"] - 1), "lr is -.*; it must be above 0"),
        (lambda t: t.assign(lr=np.nan), "no finished row of the table has a number in 'lr'"),
        (lambda t: t[(t["params"] == 1e7) & (t["tokens"] == 1e8)], "The one best learning rate is 0.005"),
        (lambda t: t.head(1), "all rows have one lr"),
        (lambda t: t.assign(loss=t["lr"] + 2), "the minimum lies at the edge of the grid"),
    ],
)
def test_rates_without_a_law_are_refused(change, said: str):
    with pytest.raises(UserError, match=said):
        fitted(change(rate_grid()))

"""A score from the loss and a loss from the size: both steps against scipy, and their interval against simulations."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import curve_fit

import lmexp
from lmexp.analysis.scaling.laws import chinchilla
from lmexp.analysis.scaling.relations.downstream import fit_downstream
from lmexp.analysis.scaling.relations.fit import Asked, fit_relation
from lmexp.analysis.scaling.relations.rows import rows_of_frame
from lmexp.errors import UserError
from tests.analysis.scaling.relations.studies import SIGMOID, loss_of, score_of, scored_runs


def fitted(table, **asked):
    return fit_relation(rows_of_frame(table, needs_sizes=False), Asked("downstream", score="accuracy", **asked))


def test_without_noise_the_constants_come_back_and_the_chain_is_exact():
    relation = fitted(scored_runs(), runs=({"params": 1e10, "tokens": 2e11},))
    theta = relation.formulas[-1].theta
    assert {name: theta[name] for name in SIGMOID} == pytest.approx(SIGMOID, rel=1e-4)
    by_quantity = {one.quantity: float(one.estimate.value) for one in relation.predictions}
    assert by_quantity["loss"] == pytest.approx(loss_of(1e10, 2e11), rel=1e-5)
    assert by_quantity["accuracy"] == pytest.approx(score_of(loss_of(1e10, 2e11)), rel=1e-5)


def test_step_2_is_the_optimum_of_scipys_curve_fit():
    table = scored_runs(noise=1)
    ours = fitted(table).formulas[-1].theta
    theirs, _ = curve_fit(
        lambda x, a, k, middle, b: a / (1 + np.exp(-k * (x - middle))) + b,
        table["loss"],
        table["accuracy"],
        p0=list(SIGMOID.values()),
        xtol=1e-14,
        ftol=1e-14,
    )
    assert [ours[name] for name in SIGMOID] == pytest.approx(theirs.tolist(), rel=1e-5)


def test_the_interval_of_the_chain_has_the_errors_of_both_steps():
    one = {
        one.quantity: one.estimate
        for one in fitted(scored_runs(noise=1), runs=({"params": 2e9, "tokens": 4e10},)).predictions
    }
    width = {name: float(each.high - each.low) for name, each in one.items()}
    assert width["accuracy"] > max(width["accuracy, error of step 1 alone"], width["accuracy, error of step 2 alone"])
    low, high = float(one["accuracy"].low), float(one["accuracy"].high)
    assert low < score_of(loss_of(2e9, 4e10)) < high


def test_runs_without_a_score_count_in_step_1_alone():
    table = scored_runs(noise=1)
    fewer = table.assign(accuracy=table["accuracy"].where(table.index % 2 == 0))
    both, half = (fit_downstream(rows_of_frame(t), "accuracy", chinchilla)[0] for t in (table, fewer))
    assert half.step_1.theta == both.step_1.theta and half.fitted.freedom == 10 - 4
    assert half.fitted.n_units == 20 and len(half.fitted.refits) == 20


def test_a_table_of_losses_and_scores_alone_has_step_2_alone():
    table = scored_runs(noise=1)[["loss", "accuracy"]]
    relation = fitted(table, runs=({"loss": 3.0},))
    assert [formula.name for formula in relation.formulas] == ["downstream"]
    assert relation.predictions[0].estimate.value == pytest.approx(score_of(3.0), abs=0.01)
    with pytest.raises(UserError, match="no score for a size, because there is no law of the loss"):
        fitted(table, runs=({"params": 1e9, "tokens": 2e10},))


def test_percent_is_read_as_percent_and_gives_the_same_curve():
    table = scored_runs(noise=1)
    share, percent = fitted(table), fitted(table.assign(accuracy=100 * table["accuracy"]))
    assert percent.formulas[-1].theta["b"] == pytest.approx(100 * share.formulas[-1].theta["b"], rel=1e-6)
    assert percent.formulas[-1].theta["k"] == pytest.approx(share.formulas[-1].theta["k"], rel=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.assign(accuracy=0.5), "all rows have one accuracy, 0.5"),
        (lambda t: t.assign(accuracy=t["accuracy"] - 0.6), "line .*: accuracy is -.*; a score lies between 0 and 1"),
        (lambda t: t.assign(accuracy=t["accuracy"] * 200), "a score lies between 0 and 1, or 0 and 100 in percent"),
        (lambda t: t.assign(accuracy=1 - t["accuracy"]), "accuracy does not rise as the loss falls"),
        (lambda t: t.assign(accuracy=np.nan), "no finished row of the table has a number in 'accuracy'"),
        (lambda t: t.assign(accuracy="high"), "accuracy is 'high', no number"),
        (lambda t: t.rename(columns={"accuracy": "accurcy"}), "no column 'accuracy'. Did you mean 'accurcy'"),
        (lambda t: t.assign(loss=3.0), "have one loss, 3"),
        (lambda t: t.head(1), "all rows have one accuracy"),
        (lambda t: t.tail(5), "5 runs are too few: it takes 6"),
    ],
)
def test_scores_that_the_curve_cannot_describe_are_refused(change, said: str):
    with pytest.raises(UserError, match=said):
        fitted(change(scored_runs(noise=1)))


def test_python_gives_the_same_fit_as_the_rows_and_a_file(tmp_path: Path):
    table = scored_runs(noise=1)[["loss", "accuracy"]]
    table.to_csv(tmp_path / "runs.csv", index=False)
    ours = [lmexp.fit_relation(data, "downstream", score="accuracy") for data in (table, tmp_path / "runs.csv")]
    assert ours[0].formulas == ours[1].formulas == fitted(table).formulas
    with pytest.raises(UserError, match="Did you mean 'downstream'"):
        lmexp.fit_relation(table, "downstrem")

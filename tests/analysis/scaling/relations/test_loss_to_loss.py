"""One loss from another: the fit against scipy, floors against the laws that they come from, and bad tables."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from lmexp.analysis.scaling.relations.fit import Asked, fit_relation
from lmexp.analysis.scaling.relations.rows import rows_of_frame
from lmexp.errors import UserError
from tests.analysis.scaling.relations.studies import scored_runs


def fitted(table, to="other_loss", losses=()):
    asked = Asked("loss_to_loss", to=to, runs=tuple({"loss": loss} for loss in losses))
    return fit_relation(rows_of_frame(table, needs_sizes=False), asked)


def test_without_sizes_all_four_numbers_come_back():
    relation = fitted(scored_runs()[["loss", "other_loss"]], losses=(2.5,))
    truth = {"K": 1.2, "kappa": 0.8, "E_0": 1.5, "E_1": 1.0}
    assert relation.formulas[0].theta == pytest.approx(truth, rel=1e-3)
    assert relation.predictions[0].estimate.value == pytest.approx(1.2 * (2.5 - 1.5) ** 0.8 + 1.0, rel=1e-4)


def test_with_sizes_the_floor_is_that_of_the_law_of_the_loss():
    assert fitted(scored_runs()).formulas[0].theta["E_0"] == pytest.approx(1.8, rel=1e-4)  # that of studies.loss_of


def test_with_known_floors_the_fit_is_scipys():
    table = scored_runs(noise=1)
    formula = fitted(table).formulas[0]
    theta = formula.theta
    assert all(low < theta[name] < high for name, (low, high) in formula.intervals.items())  # those of floors too
    theirs, _ = curve_fit(
        lambda x, k, kappa: np.log(k * (x - theta["E_0"]) ** kappa + theta["E_1"]),
        table["loss"],
        np.log(table["other_loss"]),
        p0=[1.0, 1.0],
        xtol=1e-14,
        ftol=1e-14,
    )
    assert [theta["K"], theta["kappa"]] == pytest.approx(theirs.tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.assign(other_loss=2.0), "all rows have one other_loss, 2"),
        (lambda t: t.assign(other_loss=t["other_loss"] - 3), "row 1|a loss must be above 0"),
        (lambda t: t.assign(other_loss=10 - t["other_loss"]), "other_loss does not rise with loss"),
        (lambda t: t.rename(columns={"other_loss": "othr_loss"}), "no column 'other_loss'. Did you mean 'othr_loss'"),
        (lambda t: t.head(3), "3 runs are too few"),
    ],
)
def test_losses_that_the_law_cannot_describe_are_refused(change, said: str):
    with pytest.raises(UserError, match=said):
        fitted(change(scored_runs(noise=1)))


def test_a_loss_at_or_below_the_floor_and_one_text_twice_are_refused():
    with pytest.raises(UserError, match="is not above E_0"):
        fitted(scored_runs()[["loss", "other_loss"]], losses=(1.0,))
    with pytest.raises(UserError, match="--from and --to name one column, 'loss'"):
        fitted(scored_runs()[["loss"]], to="loss")

"""An irreducible loss that is known or bounded: the optimum under the bound, its intervals, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from lmexp.analysis.scaling.answers import answer, answer_in_cost
from lmexp.analysis.scaling.fit import fit, fit_law
from lmexp.analysis.scaling.law_fit import LawFit
from lmexp.analysis.scaling.laws import Law, chinchilla, extra, kaplan, overtraining, power
from lmexp.analysis.scaling.solver import solve
from lmexp.analysis.scaling.surface import Surface
from lmexp.errors import UserError
from lmexp.report.export.fit_document import fit_document
from lmexp.report.export.fit_latex import fit_latex
from lmexp.report.page.fit import _question
from lmexp.report.terminal.fit import fit_text
from tests.analysis.scaling.designs import grid

NOISY = grid(noise=0.005)
E = 1.8172
"""The E of the law that these runs follow."""


@pytest.mark.parametrize("floor", [1.6, E, 1.9])
def test_the_optimum_with_a_fixed_e_is_that_of_scipy(floor: float):
    fitted = fit_law(NOISY, chinchilla.with_irreducible((floor, floor)), 1e-3, 100)
    n, d = np.log(NOISY.params / 1e8), np.log(NOISY.tokens / 1e9)

    def off(at: np.ndarray) -> np.ndarray:
        return np.log((floor + np.exp(at[0] - at[1] * n) + np.exp(at[2] - at[3] * d)) / NOISY.loss)

    theirs = least_squares(off, [-0.2, 0.35, 0.0, 0.35], loss="huber", f_scale=1e-3, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    assert isinstance(fitted, LawFit) and fitted.theta["E"] == floor
    assert fitted.objective == pytest.approx(theirs.cost, rel=1e-6)
    assert [fitted.theta["alpha"], fitted.theta["beta"]] == pytest.approx(theirs.x[[1, 3]], rel=1e-3)


@settings(max_examples=3, deadline=None)
@given(st.floats(0.0, 2.2), st.floats(0.0, 0.5))
@example(1.0, 1e-280)  # no float lies between these bounds: E is known
def test_bounds_that_hold_the_free_optimum_change_nothing_and_others_are_met(low: float, width: float):
    free = fit_law(NOISY, chinchilla, 1e-3, 100)
    high = low + width
    bounded = fit_law(NOISY, chinchilla.with_irreducible((low, high)), 1e-3, 100)
    assert bounded.theta["E"] == pytest.approx(np.clip(free.theta["E"], low, high), abs=1e-6)
    assert (low <= bounded.samples[:, 0]).all() and (bounded.samples[:, 0] <= high).all()
    assert bounded.intervals["E"][0] >= low and bounded.intervals["E"][1] <= high
    assert bounded.floor_is_at_bound == (low < high and not low < free.theta["E"] < high)


def test_a_known_e_is_one_number_less_and_narrows_the_intervals_of_the_others():
    free, known = (fit_law(NOISY, law, None, 100) for law in (chinchilla, chinchilla.with_irreducible((E, E))))
    assert known.intervals["E"] == (E, E) and known.standard_errors["E"] == 0
    for name in ("alpha", "beta"):
        width = [np.subtract(*law.intervals[name][::-1]) for law in (free, known)]
        assert width[1] < width[0], name
    few = replace(NOISY).where(np.arange(24) % 4 == np.arange(24) // 4 % 4)  # 6 runs: too few for 5 numbers, not for 4
    assert len(few) == 6
    assert isinstance(fit_law(few, chinchilla, None, 100), tuple)
    assert not isinstance(fit_law(few, chinchilla.with_irreducible((E, E)), None, 100), tuple)


def test_the_optimum_of_least_absolute_deviations_stays_within_the_bounds():
    law = power("flops")
    free = fit_by_deviations(law)
    assert fit_by_deviations(law.with_irreducible((free + 0.05, free + 0.1))) == free + 0.05
    assert fit_by_deviations(law.with_irreducible((1.9, 1.9))) == 1.9


def fit_by_deviations(law: Law) -> float:
    """Return E of least absolute deviations."""
    surface = Surface.of(law, NOISY)
    return float(solve(surface, np.ones(len(NOISY)), 1e-6)[0].parameters[0, 0])


def test_every_law_with_an_e_takes_it_and_kaplan_has_none():
    fitted = fit(NOISY, [chinchilla, extra, kaplan, overtraining], bootstraps=100, irreducible=(1.7, 1.75))
    for name in ("chinchilla", "extra", "overtraining"):
        assert 1.7 <= fitted.laws[name].theta["E"] <= 1.75, name
    assert "E" not in fitted.laws["kaplan"].theta


def test_a_cost_law_takes_a_known_e():
    costly = replace(NOISY, costs={"dollars": NOISY.flops / 1e18})
    found = answer_in_cost(costly, "dollars", bootstraps=100, irreducible="1.7")
    assert found.trusted.theta["E"] == 1.7 and found.trusted.floor_is_fixed


def test_the_output_says_which_e_was_fixed_and_which_bound_is_active():
    fixed = answer(replace(NOISY, floor=E), bootstraps=100, irreducible="floor")
    text = fit_text(fixed)
    assert any(
        "E is fixed at 1.8172, the floor of this text in chinchilla, extra; kaplan has no E." in s for s in text.notes
    )
    assert any("E of chinchilla is fixed at 1.8172, the floor of this text." in said for said in text.headline)
    assert ("chinchilla", "E", "1.817", "fixed") in text.tables[0][2]
    assert r"chinchilla & $E$ & 1.817 &  & fixed \\" in fit_latex(fixed)
    assert fit_document(fixed)["laws"]["chinchilla"]["irreducible_bounds"] == [E, E]
    bounded = answer(NOISY, bootstraps=100, irreducible="1.9:2")
    assert any("E of chinchilla is at its bound, 1.9, the least that was allowed" in said for said in bounded.warnings)
    assert fit_document(bounded)["laws"]["chinchilla"]["at_bound"] == ["E"]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("9", "irreducible loss of 9 is not below every loss: the smallest is 2."),
        ("9:10", "is not below every loss"),
        ("2:1", "is no irreducible loss"),
        ("-1", "is no irreducible loss"),
        (":", "is no irreducible loss"),
        ("nan", "is no irreducible loss"),
        ("1:2:3", "is no irreducible loss"),
        ("low", "is no irreducible loss"),
        ((1.0, None), "is no irreducible loss"),
        ("floor", "the floor of the text is not known"),
    ],
)
def test_an_e_that_is_none_is_refused(asked: object, reason: str):
    with pytest.raises(UserError, match=reason):
        fit(NOISY, bootstraps=100, irreducible=asked)  # type: ignore[arg-type]


def test_an_e_that_changes_is_another_question():
    asked = (None, "1.7", "1.8")
    answers = [answer(NOISY, bootstraps=100, laws=["overtraining"], irreducible=each) for each in asked]
    assert len({_question(fit_document(each)) for each in answers}) == 3

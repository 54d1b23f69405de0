"""Branches of a trunk are no separate runs, whether a table says so or its residuals do."""

import numpy as np
import pandas as pd
import pytest

from lmexp.analysis.scaling.answers import answer
from lmexp.analysis.scaling.branches import CHANCE, in_units, shared_noise
from lmexp.analysis.scaling.fit import fit, fit_law
from lmexp.analysis.scaling.law_fit import LawFit
from lmexp.analysis.scaling.laws import chinchilla
from lmexp.analysis.scaling.readers import points_of_frame
from tests.analysis.scaling.test_coverage import BUDGET, TRUTH, study


def table(seed: int, shared: float = 0.7) -> pd.DataFrame:
    """Return 10 sizes at 5 numbers of tokens; the rows of a size share some of the variance of their noise."""
    points = study(10, 5, 1, shared, seed)
    return pd.DataFrame({"params": points.params, "tokens": points.tokens, "loss": points.loss, "trunk": points.unit})


def test_a_name_that_rows_of_one_size_share_is_their_unit():
    frame = table(0)
    for heading in ("trunk", "Run", "name"):
        points = points_of_frame(frame.rename(columns={"trunk": heading}))
        assert points.n_units == 10 and points.units_named and "are one run" in points.source
    assert points_of_frame(frame.rename(columns={"trunk": "odd"}), {"unit": "odd"}).n_units == 10
    assert points_of_frame(frame, {"unit": "row"}).n_units == 50


def test_a_name_of_another_thing_is_no_unit():
    frame = table(0).assign(trunk=["c4", "pile"] * 25)
    assert points_of_frame(frame).n_units == 50 and not points_of_frame(frame).units_named


def test_rows_that_share_noise_become_one_unit_and_the_question_is_asked():
    frame = table(0).drop(columns="trunk")
    found = answer(points_of_frame(frame), [BUDGET], bootstraps=100)
    assert found.points.n_units == 10 and any("--unit row" in warning for warning in found.warnings)
    told = answer(points_of_frame(frame, {"unit": "row"}), [BUDGET], bootstraps=100)
    assert told.points.n_units == 50 and not any("--unit" in warning for warning in told.warnings)
    widths = [float(one.fit.laws["chinchilla"].optimum(BUDGET).params.high) for one in (found, told)]
    assert widths[0] > widths[1]


def test_rows_of_their_own_noise_are_runs_and_the_question_is_asked_all_the_same():
    points = points_of_frame(table(0, shared=0.0).drop(columns="trunk"))
    found = answer(points, [BUDGET], bootstraps=100)
    assert found.points.n_units == 50 and any("--unit row" in warning for warning in found.warnings)


def test_what_is_held_out_shares_no_trunk_with_what_is_fitted():
    """Each size is one trunk: the largest fifth is of the largest trunks, whose smaller branches are left out too."""
    points = points_of_frame(table(1))
    alone = fit(points, [chinchilla], bootstraps=100).laws["chinchilla"].holdout
    held = points.flops >= np.sort(points.flops)[-10]
    rest = points.where(~np.isin(points.unit, points.unit[held]))
    fitted = fit_law(rest, chinchilla, delta=None, bootstraps=200)
    assert len(rest) < 40 and alone is not None and isinstance(fitted, LawFit)
    predicted = fitted.loss(points.params[held], points.tokens[held]).value
    assert alone.bias == pytest.approx(float(np.mean(predicted / points.loss[held] - 1)), abs=2e-3)


@pytest.mark.slow
def test_shared_noise_is_seen_and_chance_is_not():
    seen = sum(shared_noise(points_of_frame(table(seed, 0.7))) < CHANCE for seed in range(60))
    falsely = sum(shared_noise(points_of_frame(table(seed, 0.0))) < CHANCE for seed in range(60))
    assert seen >= 57 and falsely <= 3


@pytest.mark.slow
def test_intervals_of_branches_without_a_unit_hold_the_truth():
    """Taken for runs, they hold it about half of the time."""
    best = float(chinchilla.optimum(TRUTH, BUDGET).params)
    holds = []
    for seed in range(60):
        points = in_units(points_of_frame(table(seed).drop(columns="trunk")))
        _, low, high = fit_law(points, chinchilla, bootstraps=100).optimum(BUDGET).params
        holds.append(low <= best <= high)
    print(np.mean(holds))
    assert np.mean(holds) >= 0.85

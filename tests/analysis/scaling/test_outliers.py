"""Rows that are no noise are named, with what they change; exact duplicates count once."""

import numpy as np
import pandas as pd
import pytest

from lmexp.analysis.scaling.answers import answer
from lmexp.analysis.scaling.fit import fit_law
from lmexp.analysis.scaling.laws import chinchilla
from lmexp.analysis.scaling.outliers import FAR_OFF, deviations
from lmexp.analysis.scaling.readers import points_of_frame
from tests.analysis.scaling.designs import grid


def table(**changed: float) -> pd.DataFrame:
    """Return 24 runs with 0.5 % noise; `changed` multiplies the losses of rows, r5 being the sixth."""
    runs = grid(noise=0.005)
    loss = runs.loss.copy()
    for row, factor in changed.items():
        loss[int(row[1:])] *= factor
    return pd.DataFrame({"params": runs.params, "tokens": runs.tokens, "loss": loss})


def test_a_loss_typed_ten_times_too_small_is_named_and_what_it_changes_is_said():
    clean = answer(points_of_frame(table(), {"unit": "row"}), [1e21], bootstraps=100)
    found = answer(points_of_frame(table(r5=0.1), {"unit": "row"}), [1e21], bootstraps=100)
    (said,) = (warning for warning in found.warnings if "too far from" in warning)
    assert "line 6 (-" in said and said.count("line") == 1 and "Without them the best size at 1e+21 FLOPs" in said
    assert not any("too far from" in warning for warning in clean.warnings)


def test_deviations_are_those_of_the_residuals_over_their_robust_scale():
    points = points_of_frame(table(r7=1.2))
    law = fit_law(points, chinchilla, bootstraps=100)
    residual = np.log(points.loss / chinchilla.loss(list(law.theta.values()), points.params, points.tokens))
    off = residual - np.median(residual)
    by_hand = off[7] / (1.4826 * np.median(np.abs(off)))
    assert deviations(law, points)[7] == pytest.approx(by_hand) and by_hand > 20
    assert (np.abs(deviations(law, points)) > FAR_OFF).sum() == 1


def test_without_noise_nothing_is_an_outlier():
    points = points_of_frame(pd.DataFrame({name: getattr(grid(), name) for name in ("params", "tokens", "loss")}))
    assert not deviations(fit_law(points, chinchilla, bootstraps=100), points).any()


def test_exact_duplicates_count_once():
    once, twice = points_of_frame(table()), points_of_frame(pd.concat([table(), table()]))
    assert len(twice) == 24 and twice.left_out == {"exact duplicates": 24}
    np.testing.assert_array_equal(once.loss, twice.loss)
    exported = pd.concat([table(), table()]).assign(**{"Unnamed: 0": np.arange(48)})
    assert len(points_of_frame(exported)) == 24


def test_rows_with_equal_numbers_and_other_names_are_warned_of():
    points = points_of_frame(pd.concat([table(), table()]).assign(name=np.arange(48).astype(str)))
    assert len(points) == 48 and "24 rows have the size, tokens and loss of another row" in points.warnings[0]
    once_more = points_of_frame(pd.concat([table(), table()[:1]]).assign(name=np.arange(25).astype(str)))
    assert "1 row has the size, tokens and loss of another row" in once_more.warnings[0]

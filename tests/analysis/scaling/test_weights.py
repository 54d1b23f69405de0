"""Weights of rows: equal ones change nothing, 2 is a row twice, 0 leaves a row out, and others are refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from lmexp.analysis.scaling.answers import answer
from lmexp.analysis.scaling.fit import fit_law
from lmexp.analysis.scaling.law_fit import LawFit
from lmexp.analysis.scaling.laws import chinchilla, power
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.readers import points_of_frame
from lmexp.analysis.scaling.solver import weighted_median
from lmexp.errors import UserError
from lmexp.report.export.fit_document import fit_document
from lmexp.report.terminal.fit import fit_text
from tests.analysis.scaling.designs import grid

NOISY = grid(noise=0.01)
TABLE = pd.DataFrame({"params": NOISY.params, "tokens": NOISY.tokens, "loss": NOISY.loss, "seeds": 2.0})


def fitted(points: Points, delta: float | None = None) -> LawFit:
    found = fit_law(points, chinchilla, delta, 100)
    assert isinstance(found, LawFit)
    return found


@settings(max_examples=2, deadline=None)
@given(st.floats(1e-12, 1e12))
def test_equal_weights_change_nothing(weight: float):
    plain, weighted = fitted(NOISY), fitted(replace(NOISY, weights=np.full(len(NOISY), weight)))
    assert plain.theta == weighted.theta and plain.intervals == weighted.intervals
    assert (plain.objective, plain.delta, plain.residual) == (weighted.objective, weighted.delta, weighted.residual)


@settings(max_examples=2, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=len(NOISY), max_size=len(NOISY)), st.sampled_from([None, 1e-3]))
def test_a_weight_of_2_is_the_row_twice_in_the_same_unit(counts: list[int], delta: float | None):
    rows = np.repeat(np.arange(len(NOISY)), counts)
    copies = Points(*(column[rows] for column in (NOISY.params, NOISY.tokens, NOISY.flops, NOISY.loss, NOISY.unit)))
    weighted, twice = fitted(replace(NOISY, weights=np.array(counts, dtype=float)), delta), fitted(copies, delta)
    assert weighted.delta == pytest.approx(twice.delta, rel=1e-6)
    assert list(weighted.theta.values()) == pytest.approx(list(twice.theta.values()), rel=1e-5)
    for name, interval in weighted.intervals.items():
        assert interval == pytest.approx(twice.intervals[name], rel=1e-4), name
    refits = [np.median(law.samples, axis=0) for law in (weighted, twice)]  # the intervals of 100 units or more
    assert refits[0] == pytest.approx(refits[1], rel=1e-3)


def test_weighted_least_squares_are_those_of_scipy():
    weights = np.random.default_rng(1).uniform(0.2, 5, len(NOISY))
    law = power("flops")
    found = fit_law(replace(NOISY, weights=weights), law, 1e3, 100)  # so large a delta means squares
    assert isinstance(found, LawFit)

    def off(at: np.ndarray) -> np.ndarray:
        predicted = at[0] + np.exp(at[1] - at[2] * np.log(NOISY.flops / 1e19))
        return np.sqrt(weights) * np.log(predicted / NOISY.loss)

    theirs = least_squares(off, [1.5, 0.0, 0.15], xtol=1e-15, ftol=1e-15, gtol=1e-15).x
    assert found.theta["E"] == pytest.approx(theirs[0], rel=1e-5)
    assert found.theta["alpha"] == pytest.approx(theirs[2], rel=1e-5)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(0, 4)), min_size=1).filter(lambda p: any(n for _, n in p)))
def test_a_weighted_median_is_that_of_repeated_values(pairs: list[tuple[float, int]]):
    values, counts = (np.array(part) for part in zip(*pairs, strict=True))
    assert weighted_median(values, counts / 7.0) == pytest.approx(np.median(np.repeat(values, counts)))


def test_a_weight_of_0_leaves_the_row_out_and_says_so():
    weights = np.where(np.arange(len(TABLE)) < 3, 0.0, 1.0)
    points = points_of_frame(TABLE.assign(seeds=weights), {"weights": "seeds"})
    assert points.left_out == {"with a weight of 0 (seeds)": 3} and len(points) == len(TABLE) - 3
    without = points_of_frame(TABLE.iloc[3:], {})
    assert fitted(points).theta == fitted(without).theta


@pytest.mark.parametrize(
    ("value", "reason"), [(-1.0, "line 3: the weight seeds is -1"), (np.nan, "line 3: the weight seeds is missing"),
                          (np.inf, "line 3: the weight seeds is inf")]
)  # fmt: skip
def test_a_weight_that_is_none_is_refused_with_its_line(value: float, reason: str):
    table = TABLE.copy()
    table.loc[2, "seeds"] = value
    with pytest.raises(UserError, match=reason):
        points_of_frame(table, {"weights": "seeds"})
    table.loc[2, "loss"] = np.nan  # a row that is left out anyway needs no weight
    assert len(points_of_frame(table, {"weights": "seeds"})) == len(table) - 1


def test_a_column_that_is_missing_or_all_0_is_refused():
    with pytest.raises(UserError, match=r"no column 'seed'.*seeds"):
        points_of_frame(TABLE, {"weights": "seed"})
    with pytest.raises(UserError, match="every row has a weight of 0"):
        points_of_frame(TABLE.assign(seeds=0), {"weights": "seeds"})


def test_the_output_says_what_weighs():
    table = TABLE.assign(seeds=np.arange(len(TABLE)) % 3 + 1.0)
    found = answer(points_of_frame(table, {"weights": "seeds"}), bootstraps=100)
    assert any("weights = seeds" in said for said in fit_text(found).about)
    assert fit_document(found)["weighted_by"] == "seeds"
    plain = answer(points_of_frame(table, {}), bootstraps=100)
    assert fit_document(plain)["points_sha256"] != fit_document(found)["points_sha256"]

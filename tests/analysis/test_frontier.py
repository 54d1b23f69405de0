"""The frontier is exactly the set of rows that no other row dominates."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.analysis.frontier import frontier
from lmexp.analysis.hypervolume import hypervolume
from lmexp.errors import UserError

# Few distinct values, so that ties in one or both are common.
VALUE = st.none() | st.integers(0, 5).map(float)
ROW = st.tuples(VALUE, VALUE, st.sampled_from(["done", "done", "done", "failed"]))


def by_definition(rows, up):
    """O(n^2): a row stays unless another is as good on both and better on one."""
    points = [
        None if cost is None or quality is None or state != "done" else (cost, -quality if up else quality)
        for cost, quality, state in rows
    ]
    known = [point for point in points if point is not None]
    return [
        point is not None and not any(q[0] <= point[0] and q[1] <= point[1] and q != point for q in known)
        for point in points
    ]


@settings(deadline=None)
@given(st.lists(ROW, max_size=30), st.booleans())
def test_it_is_the_non_dominated_set(rows, up):
    table = pd.DataFrame(rows, columns=["train_seconds", "loss", "state"])
    table = table.astype({"train_seconds": "Float64", "loss": "Float64", "state": "string"})
    marks = frontier(table, higher_is_better=up)
    assert marks.tolist() == by_definition(rows, up)
    assert marks.index.equals(table.index)


@pytest.mark.parametrize(
    ("quality", "best"),
    [("loss", 0), ("perplexity", 0), ("accuracy", 1), ("score/boolq/acc", 1), ("score/wiki/perplexity", 0)],
)
def test_each_quality_has_its_own_good_direction(quality, best):
    table = pd.DataFrame({"train_seconds": [1.0, 1.0], quality: [2.0, 3.0]})
    assert frontier(table, quality).tolist() == [best == 0, best == 1]


def test_rows_that_tie_on_both_stay_together():
    table = pd.DataFrame({"train_seconds": [1.0, 1.0, 2.0], "loss": [3.0, 3.0, 3.0]})
    assert frontier(table).tolist() == [True, True, False]


def test_the_index_of_the_table_is_kept():
    table = pd.DataFrame({"train_seconds": [2.0, 1.0], "loss": [4.0, 3.0]}, index=["b", "a"])
    assert frontier(table).to_dict() == {"b": False, "a": True}


def test_an_unknown_column_names_the_nearest():
    table = pd.DataFrame({"train_seconds": [1.0], "loss": [1.0], "model": ["x"]})
    with pytest.raises(UserError, match="Did you mean 'train_seconds'"):
        frontier(table, cost="train_second")
    with pytest.raises(UserError, match="'model' holds no numbers"):
        frontier(table, quality="model")


def test_a_single_run_has_a_frontier_without_volume():
    table = pd.DataFrame({"state": ["done"], "loss": [1.0], "train_seconds": [2.0]})
    found = hypervolume(table, "loss", "train_seconds")
    assert found is not None and (found.value, found.share) == (0.0, None)


@settings(deadline=None)
@given(
    st.sampled_from([3, 4]).flatmap(
        lambda k: st.lists(st.tuples(*[st.none() | st.integers(0, 3).map(float)] * k), max_size=40)
    )
)
def test_of_many_columns_it_is_the_non_dominated_set(rows):
    names = ["loss", "train_seconds", "dollars", "mfu"][: len(rows[0]) if rows else 3]
    table = pd.DataFrame(rows, columns=names, dtype=float)
    signs = np.array([-1.0 if name == "mfu" else 1.0 for name in names])
    losses = table.to_numpy() * signs
    known = ~np.isnan(losses).any(axis=1)
    expected = [
        bool(known[i]) and not any(known[j] and (b <= a).all() and (b < a).any() for j, b in enumerate(losses))
        for i, a in enumerate(losses)
    ]
    assert frontier(table, "loss", names[1:]).tolist() == expected


def test_ten_thousand_rows_that_all_stay_take_a_moment():
    rng = np.random.default_rng(0)
    points = rng.random((10_000, 4))
    points /= points.sum(axis=1, keepdims=True)  # on a plane nobody is beaten
    table = pd.DataFrame(points, columns=["loss", "train_seconds", "dollars", "weights_gb"])
    start = time.process_time()
    assert frontier(table, "loss", ["train_seconds", "dollars", "weights_gb"]).all()
    assert time.process_time() - start < 10  # takes 0.3 s


def test_infinite_numbers_are_on_no_frontier():
    table = pd.DataFrame({"loss": [-np.inf, 1.0, np.nan], "train_seconds": [1.0, 2.0, 0.1]})
    assert frontier(table).tolist() == [False, True, False]

"""The hypervolume is exact, and a run that is beaten does not change it."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.analysis.hypervolume import hypervolume, volume
from lmexp.errors import UserError


def by_counting(points, corner):
    """The number of unit cells below the corner that some point beats."""
    cells = itertools.product(*(range(side) for side in corner))
    return sum(any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points) for cell in cells)


@settings(deadline=None)
@given(
    st.sampled_from([2, 3]).flatmap(lambda k: st.lists(st.tuples(*[st.integers(0, 6)] * k), min_size=1, max_size=12))
)
def test_it_is_the_number_of_cells_on_a_grid(points):
    corner = (5,) * len(points[0])
    assert volume(np.array(points, dtype=float), np.array(corner, dtype=float)) == by_counting(points, corner)


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 5).map(float)] * 3), min_size=1, max_size=10),
    st.sampled_from([2, 3]),
    st.data(),
)
def test_a_beaten_run_changes_nothing(rows, columns, data):
    table = pd.DataFrame(rows, columns=["loss", "train_seconds", "dollars"])
    costs = ["train_seconds", "dollars"][: columns - 1]
    before = hypervolume(table, "loss", costs)
    worse = table.iloc[[data.draw(st.integers(0, len(rows) - 1))]] + data.draw(st.integers(0, 9))
    assert hypervolume(pd.concat([table, worse]), "loss", costs) == before


def test_the_reference_is_said_and_can_be_given():
    table = pd.DataFrame({"accuracy": [0.5, 0.7], "dollars": [1.0, 2.0]})
    own = hypervolume(table, "accuracy", "dollars")
    assert own.reference == pytest.approx({"accuracy": 0.48, "dollars": 2.1})
    given_ = hypervolume(table, "accuracy", "dollars", {"accuracy": 0.0, "dollars": 3.0})
    assert given_.value == pytest.approx(0.5 * 2 + 0.2 * 1)
    with pytest.raises(UserError, match="says nothing of dollars"):
        hypervolume(table, "accuracy", "dollars", {"accuracy": 0.0})
    with pytest.raises(UserError, match="two or three columns"):
        hypervolume(table, "accuracy", ["dollars", "tokens", "mfu"])


def test_without_a_number_there_is_none():
    assert hypervolume(pd.DataFrame({"loss": [np.nan], "dollars": [1.0]}), "loss", "dollars") is None

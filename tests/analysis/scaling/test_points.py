"""Points are numbers above 0 of equal length; what is wrong with one is said with its place."""

import numpy as np
import pytest

from lmexp.analysis.scaling.points import Points
from lmexp.errors import UserError

GOOD = {"params": [1e6, 2e6], "tokens": [10**8, 10**9], "flops": [6e14, 12e15], "loss": [3.0, 2.5], "unit": ["a", "b"]}


def test_whole_numbers_become_floats_so_that_no_product_overflows():
    points = Points(**GOOD)
    assert points.tokens.dtype == np.float64 and (points.params * points.tokens * 1e12 > 0).all()


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_number_that_cannot_be_is_named_with_its_point(value: float):
    with pytest.raises(UserError, match=r"point 2 of points.csv: loss is .*; it must be finite and above 0"):
        Points(**GOOD | {"loss": [3.0, value]}, source="points.csv")


def test_a_cost_may_be_unknown_but_not_negative():
    assert np.isnan(Points(**GOOD, costs={"dollars": [np.nan, 2.0]}).column("dollars")[0])
    with pytest.raises(UserError, match="dollars is -1"):
        Points(**GOOD, costs={"dollars": [np.nan, -1.0]})


def test_lengths_that_differ_are_refused():
    with pytest.raises(UserError, match=r"unit has shape \(1,\), params has 2 entries"):
        Points(**GOOD | {"unit": ["a"]})


def test_an_unknown_column_gets_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'tokens'"):
        Points(**GOOD).column("token")


def test_a_part_of_the_points_keeps_what_is_known_of_them():
    points = Points(**GOOD, precision=["fp32", "bf16"], costs={"dollars": [1.0, 2.0]}, left_out={"failed": 3})
    part = points.where(np.array([False, True]))
    assert (len(part), part.loss[0], part.precision[0], part.costs["dollars"][0]) == (1, 2.5, "bf16", 2.0)
    assert part.left_out == {"failed": 3} and points.n_units == 2 and part.n_units == 1

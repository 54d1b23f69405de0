"""The parallel coordinates: where each row crosses each line, and which labels a line has."""

import numpy as np
import pandas as pd
import pytest

from lmexp.analysis.table import load_study
from lmexp.report.page import parallel
from lmexp.report.page.parallel import parallel_lines
from tests.report.synthetic import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return load_study([write_study(tmp_path_factory.mktemp("outputs"))])


def test_the_lines_are_the_axes_then_cost_and_quality(study):
    lines, heights = parallel_lines(study, "loss", "train_seconds")
    assert [line["name"] for line in lines] == [*study.varied[:3], "train_seconds", "loss"], "the seed is no line"
    assert list(heights) == [line["key"] for line in lines]
    assert all(len(column) == len(study.table) for column in heights.values())


def test_numbers_lie_between_the_smallest_and_the_largest_and_null_nowhere(study):
    lines, heights = parallel_lines(study, "loss", "train_seconds")
    losses = study.table["loss"].to_numpy(dtype=float, na_value=np.nan)
    column = heights[lines[-1]["key"]]
    assert column[int(np.nanargmin(losses))] == 0 and column[int(np.nanargmax(losses))] == 1
    assert [height is None for height in column] == list(np.isnan(losses))


def placed(values, order=()):
    result = parallel._placed(pd.DataFrame({"x": values}), "x", order)
    assert result is not None
    return result


def test_numbers_that_span_a_large_ratio_are_placed_by_their_logarithm():
    heights, ticks = placed([1.0, 10.0, 100.0])
    assert heights == [0, 0.5, 1] and [tick[0] for tick in ticks] == pytest.approx([0, 0.5, 1])
    assert placed([1.0, 10.0, 19.0])[0] == [0, 0.5, 1]
    assert placed([-1.0, 0.0, 100.0])[0][0] == 0, "no logarithm of numbers below 0"


def test_one_value_lies_in_the_middle_and_no_value_makes_no_line():
    assert placed([3.0, 3.0, None])[0] == [0.5, 0.5, None]
    assert parallel._placed(pd.DataFrame({"x": pd.array([None, None], dtype="Float64")}), "x", ()) is None
    assert parallel._placed(pd.DataFrame({"x": pd.array([None], dtype="string")}), "x", ("a",)) is None


def test_words_lie_in_the_order_of_the_sweep_and_only_those_that_occur():
    heights, ticks = placed(["large", "small", None, "small"], order=["small", "medium", "large"])
    assert heights == [1, 0, None, 0] and ticks == [[0, "small"], [1, "large"]]


def test_many_values_have_few_labels():
    assert len(placed([float(i) for i in range(50)])[1]) == 2
    assert len(placed([f"w{i}" for i in range(50)])[1]) == parallel.MAX_WORD_TICKS

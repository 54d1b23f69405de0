"""The cheapest that reaches, the best within, and the knee."""

import numpy as np
import pandas as pd
import pytest

from lmexp.analysis.select import best, cheapest, knee, parse_limits
from lmexp.errors import UserError

TABLE = pd.DataFrame(
    {
        "loss": [3.0, 2.9, 2.5, 2.0, np.nan, 1.0],
        "accuracy": [0.1, 0.2, 0.3, 0.4, 0.9, 0.9],
        "dollars": [1.0, 2.0, 2.0, 9.0, 0.1, 0.1],
        "state": ["done"] * 5 + ["failed"],
    }
)


def test_only_finished_runs_with_the_number_are_chosen():
    assert cheapest(TABLE, {"loss": 2.9}, "loss", "dollars") == 2  # of two as cheap, the better one
    assert cheapest(TABLE, {"accuracy": 0.2}, "loss", "dollars") == 4
    assert cheapest(TABLE, {"loss": 1.9}, "loss", "dollars") is None
    assert best(TABLE, {"dollars": 2.0}, "loss", "dollars") == 2
    assert best(TABLE, {"dollars": 0.5}, "loss", "dollars") is None
    assert best(TABLE, {"dollars": 9.0, "accuracy": 0.35}, "loss", "dollars") == 3


def test_the_knee_is_furthest_below_the_line_between_the_ends():
    table = pd.DataFrame({"loss": [4.0, 3.0, 2.9, 2.8], "dollars": [1.0, 10.0, 100.0, 1000.0]})
    assert knee(table, "loss", "dollars") == 1
    assert knee(table.iloc[:2], "loss", "dollars") is None
    line = pd.DataFrame({"loss": [3.0, 2.0, 1.0], "dollars": [1.0, 10.0, 100.0]})
    assert knee(line, "loss", "dollars") is None


@pytest.mark.parametrize("word", ["loss", "loss=", "=3", "loss=low", "loss=nan", "loss=inf", ""])
def test_a_limit_is_a_column_and_a_number(word):
    with pytest.raises(UserError, match="a column and a number"):
        parse_limits([word], "--reach")
    assert parse_limits(["a/b=1e3,c=-2", "d=0"], "--reach") == {"a/b": 1000.0, "c": -2.0, "d": 0.0}

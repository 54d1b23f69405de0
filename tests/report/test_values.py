"""Values as JSON: nothing that JSON does not know, and no more digits than asked for."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from lmexp.report.values import as_script, json_column, json_value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(1.5), 1.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (float("nan"), None),
        (math.inf, None),
        (np.float32("-inf"), None),
        (pd.NA, None),
        (pd.NaT, None),
        (None, None),
        ({1: (np.nan, "x")}, {"1": [None, "x"]}),
    ],
)
def test_every_value_becomes_plain_json(value, expected):
    plain = json_value(value)
    assert plain == expected and type(plain) is type(expected)
    json.dumps(plain, allow_nan=False)


def test_digits_round_floats_and_nothing_else():
    assert json_value({"a": 1.23456789, "b": 123456789, "c": "1.23456789"}, 4) == {
        "a": 1.235,
        "b": 123456789,
        "c": "1.23456789",
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pd.array([1.23456, None, math.inf], dtype="Float64"), [1.23, None, None]),
        (np.array([1.0, np.nan]), [1.0, None]),
        (pd.array([1, None], dtype="Int64"), [1, None]),
        (pd.array(["a", None], dtype="string"), ["a", None]),
        (pd.array([True, None], dtype="boolean"), [True, None]),
    ],
)
def test_a_column_of_any_type_has_null_for_what_is_missing(values, expected):
    column = json_column(pd.Series(values), 3)
    assert column == expected and [type(value) for value in column] == [type(value) for value in expected]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (0.001, "0.001"), (1e-5, "0.00001"), (3e-7, "3e-7"), (1.5e22, "1.5e+22"), (True, "true"), (2, "2")],
)
def test_values_are_written_as_the_pages_script_writes_them(value, text):
    assert as_script(value) == text

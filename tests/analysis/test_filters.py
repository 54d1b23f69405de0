"""Expressions over columns: names as in the table, null as in SQL, and nothing run as code."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.analysis.filters import grouping, matching
from lmexp.errors import UserError
from tests.analysis.grammar_cases import MESSAGES, ROWS, TABLE


@pytest.mark.parametrize(("expression", "rows"), ROWS)
def test_a_row_stays_where_the_whole_is_true(expression, rows):
    assert np.flatnonzero(matching(TABLE, expression)).tolist() == rows


@pytest.mark.parametrize(("expression", "said"), MESSAGES)
def test_what_is_no_expression_is_one_short_message_with_its_place(expression, said):
    with pytest.raises(UserError) as caught:
        matching(TABLE, expression)
    assert str(caught.value) == f"in the expression, {said}"
    assert len(said) < 250


def test_a_byte_of_the_command_line_that_is_not_utf_8_is_refused():
    with pytest.raises(UserError, match=r"in the expression, at .* \(character 6\): this is not UTF-8"):
        matching(TABLE, b"name=\xff".decode("utf-8", "surrogateescape"))


def test_a_very_long_expression_is_refused():
    with pytest.raises(UserError, match="an expression of 6,000 characters; allowed are 5,000"):
        matching(TABLE, "9" * 6000)
    assert matching(TABLE, "1+" * 2400 + "1 > class").all()  # long, but flat


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="n_layers tokens.'\"`()[]<>=!+-*/,0129 andornotin\\#{}@ü", max_size=40))
def test_any_text_is_an_expression_or_a_message(text):
    try:
        assert matching(TABLE, text).shape == (len(TABLE),)
    except UserError as error:
        assert "\n" not in str(error)


@settings(deadline=None)
@given(
    st.lists(st.none() | st.integers(-3, 3), min_size=1, max_size=20),
    st.integers(-3, 3),
    st.sampled_from(["<", "<=", ">", ">="]),
)
def test_a_comparison_and_its_negation_never_keep_a_row_both_and_null_neither(values, bound, sign):
    table = pd.DataFrame({"x": pd.array(values, dtype="Int64")})
    kept, rest = matching(table, f"x {sign} {bound}"), matching(table, f"not x {sign} {bound}")
    assert ((kept ^ rest) == table["x"].notna().to_numpy()).all()
    assert kept.tolist() == [v is not None and eval(f"{v} {sign} {bound}") for v in values]


def test_groups_are_named_by_their_words():
    found = grouping(TABLE, "precision, n_layers >= 4, score/tag/span_f1")
    assert list(found) == ["precision", "n_layers >= 4", "score/tag/span_f1"]
    assert found["n_layers >= 4"].isna().tolist() == [False, False, True, False]
    with pytest.raises(UserError, match="the same for every row"):
        grouping(TABLE, "precision, 3")

"""Expressions over columns: names as in the table, null as in SQL, and nothing evaluated."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.analysis.filters import grouping, matching
from lmexp.errors import UserError

TABLE = pd.DataFrame(
    {
        "n_layers": pd.array([2, 4, None, 8], dtype="Int64"),
        "model.n_layers": pd.array([2, 4, 4, 8], dtype="Int64"),
        "precision": pd.array(["fp32", "bf16", None, "bf16"], dtype="string"),
        "score/tag/span_f1": [0.1, 0.2, np.nan, 0.4],
        "score/gsm8k/em,strict-match": [1.0, 2, 3, 4],
        "tokens": [10, 20, 30, 40.0],
        "n_params": [1, 4, 3, 0.0],
        "exclusive": pd.array([True, False, None, True], dtype="boolean"),
        "energy_kwh": pd.Series([None] * 4, dtype=object),
        "class": [1, 2, 3, 4],
    }
)


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("n_layers >= 4 and precision == 'bf16' and model.n_layers in [2,4]", [1]),
        ("score/tag/span_f1 > .15", [1, 3]),
        ("score/gsm8k/em,strict-match > 2", [2, 3]),
        ("`score/gsm8k/em,strict-match` > 2 or n_layers == 2", [0, 2, 3]),
        ("tokens / n_params >= 10", [0, 2, 3]),
        ("tokens/n_params >= 10", [0, 2, 3]),
        ("2 <= n_layers < 8", [0, 1]),
        ("-n_layers < -3", [1, 3]),
        ("class > 2", [2, 3]),
        ("'bf' in precision", [1, 3]),
        ("exclusive", [0, 3]),
        ("exclusive == false", [1]),
        ("not exclusive", [1]),
        ("precision is null", [2]),
        ("precision is not None", [0, 1, 3]),
        ("precision != 'bf16'", [0]),
        ("not (precision == 'bf16')", [0]),
        ("n_layers not in [2]", [1, 3]),
        ("n_layers == 2 or precision is null", [0, 2]),
        ("energy_kwh > 3", []),
        ("energy_kwh is null", [0, 1, 2, 3]),
        ("precision == 'it\\'s n_layers'", []),
        ("true", [0, 1, 2, 3]),
    ],
)
def test_a_row_stays_where_the_whole_is_true(expression, rows):
    assert np.flatnonzero(matching(TABLE, expression)).tolist() == rows


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("n_layer >= 4", "at 'n_layer >= 4' (character 1): there is no column 'n_layer'. Did you mean 'n_layers'?"),
        ("n_layers > 1 and score/tag/spn_f1 > 1", "(character 18): there is no column 'score/tag/spn_f1'. Did you"),
        ("precision == 16", "(character 14): precision is text, 16 is a number: these do not compare; write '16'"),
        ("n_layers == 'four'", "n_layers is a number, 'four' is text"),
        ("n_layers = 4", "at '= 4' (character 10): this is no expression; write == for equal"),
        ("(n_layers", "this is no expression"),
        ("", "not allowed"),
        ("n_layers", "neither true nor false"),
        ("precision and true", "neither true nor false"),
        ("n_layers in 4", "after `in` stands a list"),
        ("1 == 1", "neither side of this comparison is a column"),
        ("1/0 > n_layers", "division by zero"),
        ("n_layers ** 2 > 3", "not allowed here"),
        ("n_layers > 1 # 2", "at '#'"),
        ("n_layers > null", "null is neither more nor less"),
        ("__import__('os').system('touch /tmp/x')", "not allowed here"),
        ("(lambda: 1)() > n_layers", "this is no expression"),
        ("tokens.__class__ == 'x'", "there is no column 'tokens.__class__'"),
        ("[n for n in (1,)] == n_layers", "this is no expression"),
        ("f'{tokens}' == 'x'", "this is no expression"),
        ("not " * 1200 + "true", "nested too deeply"),
        ("1+" * 2400 + "1 > n_layers", "nested too deeply"),
        ("9" * 6000, "allowed are 5,000"),
    ],
)
def test_what_is_no_expression_is_one_short_message_with_its_place(expression, said):
    with pytest.raises(UserError, match=r"^[^\n]{1,250}$") as caught:
        matching(TABLE, expression)
    assert said in str(caught.value)


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="n_layers tokens.'\"`()[]<>=!+-*/,0129 andornotin\\#{}@ü", max_size=40))
def test_any_text_is_an_expression_or_a_message(text):
    try:
        assert matching(TABLE, text).shape == (4,)
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

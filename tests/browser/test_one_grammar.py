"""The page's filter and --where are one grammar: the same rows and the same messages for any expression."""

import itertools
import math
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.analysis.filters import matching
from lmexp.errors import UserError, nearest
from lmexp.report.page.data import filter_data
from lmexp.report.page.html import resource
from lmexp.report.values import json_column
from tests.analysis.grammar_cases import MESSAGES, ROWS, TABLE

ANSWERS = """
([table, expressions]) => {
  [page, words] = [table, null];
  return expressions.map((text) => {
    const { test, problem } = filterOf(text);
    return problem || Array.from({ length: page.n_rows }, (_, i) => i).filter(test);
  });
}
"""


@pytest.fixture(scope="module")
def script(browser):
    """A page with nothing but the script of the filter."""
    page = browser.new_page()
    page.set_content(f"<script>let page, words;\n{resource('filter.js')}</script>")
    yield page
    page.close()


def in_javascript(script, table: pd.DataFrame, expressions: list[str]) -> list[list[int] | str]:
    """Return what the page says of each expression: the rows that it keeps, or its message."""
    rows = {name: json_column(table[name]) for name in table if table[name].notna().any()}
    data = {"n_rows": len(table), "rows": rows, "filter": filter_data(table)}
    return script.evaluate(ANSWERS, [data, expressions])


def in_python(table: pd.DataFrame, expressions: list[str]) -> list[list[int] | str]:
    """Return what the command line says of each expression."""
    answers: list[list[int] | str] = []
    for expression in expressions:
        try:
            answers.append(np.flatnonzero(matching(table, expression)).tolist())
        except UserError as error:
            answers.append(str(error))
    return answers


def test_the_page_keeps_the_rows_that_the_command_line_keeps(script):
    for (expression, rows), answer in zip(ROWS, in_javascript(script, TABLE, [e for e, _ in ROWS]), strict=True):
        assert answer == rows, expression


def test_the_page_says_what_the_command_line_says(script):
    cases = [*MESSAGES, ("9" * 6000, None)]
    for (expression, said), answer in zip(cases, in_javascript(script, TABLE, [e for e, _ in cases]), strict=True):
        assert answer == (f"in the expression, {said}" if said else in_python(TABLE, [expression])[0])


NAMES = {
    "a number": ["n_layers", "Lr", "optim.lr", "score/a", "`score/a`", "0", "1", "2.5", ".5", "1k", "5G", "2e0"],
    "text": [
        "slug",
        "precision",
        "run",
        "slug",
        "precision",
        "'bf16'",
        "BF16",
        "'4'",
        "'it\\'s'",
        "ü",
        "'a b'",
        "gpt-l4",
    ],
    "true or false": ["exclusive", "true", "exclusive"],
    "of any kind": ["energy_kwh", "null", "n_layer", "presicion", "4"],
}
SIGNS = ["<", " <= ", ">", " >= ", "=", " == ", " != ", " is ", " is not "]
PIECES = [
    *("and", "or", "not", "in", "is", "null", "True", "(", ")", "[", "]", ",", "=", "==", "!=", "<", ">=", "+", "-"),
    *("*", "/", "**", "^", "'", '"', "`", "\\", "#", "&", "!", "1e5", "2k", "1.2.3", "lr.", "score/b", "Precision"),
    *("presicion", "`slug`", "'x'", "😀", "\t", "\x1b", *itertools.chain(*NAMES.values())),
]


def a_table(random: Random) -> pd.DataFrame:
    """Return a table of all kinds of columns, with nulls, infinity and texts that differ in case alone."""
    n = random.randint(1, 8)
    numbers = [None, 0, 1, 2, 2.5, -1, 1000, 5e9, math.inf, math.nan]
    texts = [None, "bf16", "BF16", "fp32", "gpt-l4", "a b", "it's", "", "ü", "4", "True"]
    columns = {name: pd.Series(random.choices(numbers, k=n), dtype="Float64") for name in ("n_layers", "optim.lr")}
    columns["score/a"] = pd.Series(random.choices([1, 2, 3], k=n), dtype="Int64")
    columns |= {name: pd.Series(random.choices(texts, k=n), dtype="string") for name in ("slug", "precision")}
    columns["exclusive"] = pd.Series(random.choices([None, True, False], k=n), dtype="boolean")
    return pd.DataFrame(columns | {"energy_kwh": pd.Series([None] * n, dtype=object)})


def a_condition(random: Random, depth: int = 3) -> str:
    """Return an expression that is mostly right."""

    def value(kind: str, depth: int = 2) -> str:
        if random.random() < 0.03:
            kind = "of any kind"
        if kind != "a number" or not depth or random.random() < 0.6:
            return random.choice(NAMES[kind])
        left, right = value(kind, depth - 1), value(kind, depth - 1)
        return random.choice(
            [f"{left} + {right}", f"{left}-{right}", f"({left})/ {right}", f"{left} * {right}", f"-{left}"]
        )

    def part() -> str:
        return a_condition(random, depth - 1)

    if depth and random.random() < 0.6:
        return random.choice(
            [f"{part()} and {part()}", f"{part()} or {part()}", f"({part()}) {part()}", f"not {part()}"]
        )
    kind = random.choice(list(NAMES))
    left, right, not_in = value(kind), value(kind), random.choice(["in", "not in"])
    items = ", ".join(value(kind, 0) for _ in range(random.randint(0, 3)))
    return random.choice(
        [
            f"{left}{random.choice(SIGNS)}{right}",
            f"{left}{random.choice(SIGNS)}{right}{random.choice(SIGNS)}{value(kind)}",
            f"{random.choice(['slug', 'optim.lr', left])}{random.choice(SIGNS)}{right}",
            f"{random.choice([left, 'precision'])} {not_in} [{items}]",
            f"{random.choice([left, 'bf'])} {not_in} {random.choice([right, 'slug'])}",
            f"{left} is {random.choice(['', 'not '])}null",
            random.choice(["exclusive", "gpt", "'bf'", "4", left]),
        ]
    )


def pieces(random: Random) -> str:
    """Return a text that is mostly no expression. It is not blank, which is no filter on the page."""
    text = "".join(random.choice(PIECES) + random.choice(["", " "]) for _ in range(random.randint(1, 8)))
    return text if text.strip() else "x"


@settings(deadline=None, max_examples=30)
@given(random=st.randoms(use_true_random=True))
def test_any_expression_has_the_same_rows_or_the_same_message_on_both_sides(script, random):
    table = a_table(random)
    expressions = [a_condition(random) for _ in range(25)] + [pieces(random) for _ in range(15)]
    answers = zip(expressions, in_javascript(script, table, expressions), in_python(table, expressions), strict=True)
    assert [answer for answer in answers if answer[1] != answer[2]] == []


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text("abn_./", max_size=12), min_size=1, max_size=15), st.text("abn_./", min_size=1, max_size=12))
def test_the_nearest_name_is_the_one_that_difflib_finds(script, names, word):
    script.evaluate("(names) => { page = { filter: { kinds: Object.fromEntries(names), spellings: {} } }; }",
                    [[name, "text"] for name in names])  # fmt: skip
    assert script.evaluate("(word) => nearest(word)", word) == nearest(word, dict.fromkeys(names))

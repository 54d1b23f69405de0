"""Tables in the terminal fit their width, and say what they hide."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from lmexp.report.terminal.layout import column_widths, columns_to_hide, fitted_table, shortened, small_table

TEXTS = {"run": ["a", "b"], "loss": ["2.5000", "2.6000"], "train_seconds": ["12.5", "9.0"], "extra": ["x" * 20, "y"]}
HEADINGS = {"run": "run", "loss": "loss", "train_seconds": "train seconds", "extra": "extra"}


def printed(table, width):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(table)
    return console.export_text()


def fitted(width, hide_first=("extra", "loss")):
    return printed(fitted_table(TEXTS, HEADINGS, {"loss"}, hide_first, ["First note.", "Second note."], width), width)


def test_columns_are_hidden_in_order_until_the_rest_fits():
    widths = {"a": 10, "b": 5, "c": 5}
    assert columns_to_hide(widths, 1, ["b", "a"], 23) == []
    assert columns_to_hide(widths, 1, ["b", "a"], 22) == ["b"]
    assert columns_to_hide(widths, 1, ["b", "a"], 8) == ["b", "a"]
    assert columns_to_hide(widths, 1, ["missing"], 1) == []


def test_the_width_of_a_column_is_that_of_its_longest_line():
    assert column_widths({"a": "two\nlines"}, {"a": ["x", "1.25\n1.2 to 1.3"]}) == {"a": 10}


def test_a_wide_table_shows_everything_and_a_narrow_one_names_what_it_hides():
    assert "extra" in fitted(80) and "Not shown" not in fitted(80)
    narrow = fitted(25)
    assert "x" * 20 not in narrow and "2.5000" in narrow
    assert narrow.index("First note.") < narrow.index("Not shown") < narrow.index("Second note.")
    assert max(map(len, narrow.splitlines())) <= 25


def test_before_a_column_is_hidden_headings_take_two_lines():
    assert "train seconds" in fitted(60)
    folded = fitted(40)
    assert "train seconds" not in folded and "seconds" in folded and "x" * 20 in folded


@pytest.mark.parametrize("hostile", ["[bold]x[/bold]", "a\x1b[31mb", "a\rb"])
def test_small_tables_show_text_as_text_and_null_as_a_dash(hostile):
    text = printed(small_table(("name", "value"), [(hostile, None)]), 60)
    assert "\x1b" not in text and "\r" not in text and "–" in text
    assert "[bold]x[/bold]" in text or "bold" not in hostile


def test_headings_that_align_right_do_so():
    lines = printed(small_table(("name", "number"), [("a", "1")], right={"number"}), 60).splitlines()
    assert lines[2].endswith("     1")


@given(st.lists(st.text("ab-é中", min_size=1, max_size=30), min_size=1, max_size=5), st.integers(8, 30))
def test_a_shortened_name_fits_and_a_list_of_short_names_stays_as_it_is(names: list[str], width: int):
    short = shortened(names, width)
    assert all(cell_len(name) <= width for name in short) and len(short) == len(names)
    if all(cell_len(name) <= width for name in names):
        assert short == names


@pytest.mark.parametrize(
    "name", ["{}" + "-same" * 12, "same-" * 12 + "{}", "same-" * 6 + "{}" + "-same" * 6, "{}" + "-same" * 12 + "-{}"]
)
def test_a_shortened_name_keeps_what_differs(name: str):
    names = [name.format(f"lr0.00{i}", f"seed{i % 2}") for i in range(4)]
    assert len(set(shortened(names, 24))) == 4


def test_a_name_is_shortened_in_its_middle():
    assert shortened(["gpt_nano-n_layers2-lr0.0003-seed0", "gpt_nano-n_layers2-lr0.0003-seed1"], 15) == [
        "gpt_nan…3-seed0",
        "gpt_nan…3-seed1",
    ]

"""Numbers of a column are written alike, and a table names its axes briefly and shows no more than it needs."""

import pytest

from lmexp.analysis.columns import (
    MAX_AXES,
    axis_headings,
    distinguishing_axes,
    format_number,
    in_words,
    number_format,
    setting_in_words,
)


def test_an_axis_is_called_by_its_last_part_unless_two_share_it():
    assert axis_headings(["model.n_layers", "optim.lr", "init.lr", "seed"]) == {
        "model.n_layers": "n_layers",
        "optim.lr": "optim.lr",
        "init.lr": "init.lr",
        "seed": "seed",
    }


def test_few_axes_are_all_shown():
    axes = ["a", "b", "c", "d", "e"]
    assert len(axes) == MAX_AXES and distinguishing_axes(axes, [dict.fromkeys(axes, 1)]) == axes


def test_of_many_axes_those_that_follow_from_others_are_left_out():
    axes = ["size", "lr", "width", "depth", "heads", "batch"]
    cells = [
        {"size": size, "lr": lr, "width": 64 * size, "depth": size, "heads": size, "batch": 8}
        for size in (1, 2)
        for lr in (0.1, 0.2)
    ]
    assert distinguishing_axes(axes, cells) == ["size", "lr"]


@pytest.mark.parametrize(
    ("name", "values", "spec"),
    [
        ("loss", [2.5, 1e-9], ".4f"),  # the column's own
        ("train_seconds", [0.5, 1234.0], ",.0f"),  # the median decides: 617
        ("train_seconds", [12.3, 45.6], ",.1f"),
        ("train_seconds", [0.0123, 0.0456], ",.4f"),
        ("steps", [1.0, 300.0], ""),  # whole numbers stay whole
        ("steps", [1.0, 3e6], ".3s"),
        ("optim.lr", [1e-3, 3e-4], ""),  # an axis is written as in the sweep file
        ("train_seconds", [], ""),
    ],
)
def test_a_column_has_one_format_that_suits_its_typical_value(name, values, spec):
    assert number_format(name, values) == spec


@pytest.mark.parametrize(("value", "spec", "text"), [(1234567, ".3s", "1.23M"), (3.0, "", "3"), (1e-5, "", "1e-05")])
def test_a_number_is_written_in_its_format(value, spec, text):
    assert format_number(value, spec) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("loss", 2.5, "2.5000 nats"), ("train_seconds", 12.34, "12.3 s"), ("train_flops", 1.23e15, "1.23P FLOPs"),
     ("accuracy", 0.5, "0.5000 share right"), ("n_layers", 4, "4")],
)  # fmt: skip
def test_a_value_in_a_sentence_has_its_unit(name, value, text):
    assert in_words(name, value) == text


def test_a_setting_is_named_without_the_axes_that_it_does_not_set():
    axes = ["model", "model.d_ff", "budget.tokens"]
    assert setting_in_words(axes, ["gpt_nano", None, 400_000], with_nulls=False) == "gpt_nano, tokens 400k"
    assert setting_in_words(axes, ["gpt_nano", None, 400_000]) == "gpt_nano, d_ff null, tokens 400k"
    assert setting_in_words(["grad_clip"], [None], with_nulls=False) == "grad_clip null"


def test_the_tokens_of_a_milestone_are_named_as_in_the_sentences():
    assert setting_in_words(["model", "tokens"], ["gpt_nano", 119_808]) == "gpt_nano, tokens 120k"
    assert in_words("tokens", 119_808) == "120k tokens"

"""Every column of a record is described once, and what is shown anywhere follows from that description."""

import re
from pathlib import Path

import pytest

from lmexp.runs.columns import COLUMNS, COSTS, DEVICE_BOUND, QUALITIES, SECTIONS, column, higher_is_better
from lmexp.runs.columns_text import markdown

DOCS = Path(__file__).parents[2] / "docs"


def test_no_column_is_described_twice():
    names = [each.name for columns in SECTIONS.values() for each in columns]
    assert len(names) == len(set(names)) == len(COLUMNS)


def test_every_column_has_a_meaning_of_its_own():
    meanings = [each.meaning for each in COLUMNS.values()]
    assert all(meanings) and len(set(meanings)) == len(meanings)


def test_every_format_is_one_that_the_pages_script_writes():
    for each in COLUMNS.values():
        assert re.fullmatch(r"(,?\.\d+f|\.3s|\.\d+g)?", each.format), each.name


def test_headings_and_titles_tell_columns_apart():
    for words in ("title", "short"):
        assert len({getattr(each, words) for each in COLUMNS.values()}) == len(COLUMNS)


def test_the_docs_have_the_table_that_the_code_has():
    assert (DOCS / "columns.md").read_text() == markdown(), "run `make columns`"


def test_text_has_no_unit_no_number_format_and_no_good_direction():
    for each in COLUMNS.values():
        assert not (each.is_text and (each.unit or each.format or each.better or each.role)), each.name


def test_qualities_and_costs_have_a_good_direction_and_less_cost_is_better():
    assert all(COLUMNS[name].better for name in QUALITIES)
    assert {COLUMNS[name].better for name in COSTS} == {"lower"}


def test_time_energy_and_money_are_bound_to_the_device_and_work_and_quality_are_not():
    assert {"train_seconds", "energy_kwh", "dollars", "tokens_per_second", "mfu"} <= DEVICE_BOUND
    assert not DEVICE_BOUND & {*QUALITIES, "tokens", "train_flops", "n_params", "weights_gb"}


def test_each_column_of_the_terminal_has_a_rank_of_its_own():
    ranks = sorted(each.terminal_rank for each in COLUMNS.values() if each.terminal_rank)
    assert ranks == list(range(1, len(ranks) + 1))


@pytest.mark.parametrize(
    "name",
    ["accuracy", "tokens_per_second", "mfu", "f1_macro", "rougeL", "score/tag/span_f1", "score/seq2seq/bleu"],
)
def test_more_is_better(name: str):
    assert higher_is_better(name)


@pytest.mark.parametrize(
    "name",
    [
        "loss", "train_seconds", "my_column", "wer", "score/piqa/bits_per_byte", "score/asr/wer",
        "score/bench-fp32/decode_ms_p50", "score/bench-fp32/peak_memory_gb",
    ],
)  # fmt: skip
def test_less_is_better_also_where_nobody_knows(name: str):
    assert not higher_is_better(name)


def test_scores_and_parts_of_the_flops_are_described_by_their_family():
    assert column("score/tag/span_f1").title == "tag span_f1"
    assert column("score/tag/span_f1").meaning == "score of a task, in the units of its metric"
    assert column("flops/attention_scores").heading == "FLOPs per token, attention scores"


def test_scores_of_privacy_are_described_by_what_they_say_and_less_is_better():
    exposure = column("score/privacy/exposure_16")
    assert exposure.heading == "exposure of canaries planted 16 times (bits)" and exposure.short == "exposure 16"
    assert "mean exposure of the canaries" in exposure.meaning
    assert column("score/privacy/extracted_4").title == "canaries planted 4 times that were extracted"
    assert not any(higher_is_better(f"score/privacy/{name}_1") for name in ("exposure", "extracted"))


def test_an_axis_has_its_own_name_and_no_meaning():
    axis = column("model.n_layers")
    assert (axis.title, axis.short, axis.unit, axis.meaning) == ("model.n_layers", "model.n_layers", "", "")

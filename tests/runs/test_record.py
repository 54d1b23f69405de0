"""A row of a record has every column in one order, and only plain values."""

import pytest

from lmexp.runs.columns import COLUMNS
from lmexp.runs.record import complete, identity_columns, is_number, is_row
from tests.report.synthetic import config


def test_missing_values_are_null_and_parts_and_scores_come_last():
    row = complete({"score/tag/span_f1": 0.5, "loss": 3.0, "flops/head": 2.0})
    assert list(row) == [*COLUMNS, "flops/head", "score/tag/span_f1"]
    assert row["loss"] == 3.0 and row["dollars"] is None


def test_a_name_that_no_column_has_is_refused():
    with pytest.raises(KeyError, match="train_secs"):
        complete({"train_secs": 1.0})


def test_the_config_alone_names_a_run():
    made = config("gpt_tiny", 4, "bf16", seed=3)
    row = identity_columns(made)
    assert row.keys() <= COLUMNS.keys()
    assert (row["run_id"], row["unit"], row["seed"], row["n_layers"], row["precision"], row["batch_tokens"]) == (
        made.run.id, made.run.id, 3, 4, "bf16", 8192,
    )  # fmt: skip


@pytest.mark.parametrize("value", [True, None, "1", float("inf"), float("nan"), 1e301, 10**400, [1]])
def test_what_a_table_cannot_hold_is_no_number(value):
    assert not is_number(value)


@pytest.mark.parametrize(
    "row", [None, [], {}, {"run_id": 1}, {"run_id": "a", "loss": [1]}, {"run_id": "a", "loss": 1e400}]
)
def test_what_is_no_row_is_not_taken_for_one(row):
    assert not is_row(row)


def test_a_row_may_hold_null_text_numbers_and_truth():
    assert is_row({"run_id": "a", "loss": None, "model": "gpt", "tokens": 5, "mfu": 0.5, "exclusive": True})

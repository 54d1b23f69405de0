"""What finished rows mix is said, with how many rows are of each kind."""

import pandas as pd

from lmexp.analysis.comparable import MAX_NAMED, code, crowded, mixtures


def table_of(**columns) -> pd.DataFrame:
    return pd.DataFrame(columns | {"state": ["done"] * len(next(iter(columns.values())))})


def test_rows_of_one_kind_mix_nothing():
    assert mixtures(table_of(device_name=["A100"] * 3, schema_version=[1, 1, 1])) == []


def test_two_devices_are_named_with_their_rows_the_most_frequent_first():
    (mixture,) = mixtures(table_of(device_name=["T4", "A100", "A100"]))
    assert mixture.sentence == (
        "The rows are of 2 devices (A100: 2 rows, T4: 1 row): speeds, seconds, memory and energy do not compare."
    )


def test_of_many_kinds_only_the_number_is_said():
    (mixture,) = mixtures(table_of(device_name=[f"d{i}" for i in range(MAX_NAMED + 1)]))
    assert mixture.sentence.startswith("The rows are of 4 devices: ")


def test_unknown_values_and_unfinished_rows_are_not_held_against_anybody():
    table = table_of(device_name=["T4", None, "A100"])
    table.loc[2, "state"] = "failed"
    assert mixtures(table) == []


def test_uncommitted_changes_are_other_code():
    table = table_of(git_sha=["0123456789", "0123456789", None], git_dirty=[False, True, None])
    assert code(table).fillna("?").tolist() == ["0123456", "0123456+", "?"]
    assert [mixture.column for mixture in mixtures(table)] == ["code"]


def test_a_row_is_crowded_only_if_that_was_noticed():
    assert crowded(pd.DataFrame({"exclusive": pd.array([True, False, None], dtype="boolean")})).tolist() == [
        False, True, False,
    ]  # fmt: skip
    assert crowded(pd.DataFrame({"loss": [1.0]})).tolist() == [False]

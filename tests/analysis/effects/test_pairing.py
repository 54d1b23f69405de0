"""A pair of runs differs in one axis alone, lies in one sweep, and is free of runs that something else tells apart."""

from typing import Any

import pandas as pd

from lmexp.analysis.effects.pairing import RunPairs, pairs_of, runs_by_cell
from lmexp.analysis.table import Study, _frame, final_rows

PRECISIONS = ["fp32", "bf16"]


def study_of(rows: list[dict[str, Any]], axes: dict[str, list[Any]], sweeps: dict[str, str] | None = None) -> Study:
    """Return a study of finished runs, all in one sweep, or each in the sweeps that a string of digits names."""
    known = {"task": "causal_lm", "state": "done", "loss": 3.0, "slug": "r"}
    rows = [known | {"run_id": str(i)} | row for i, row in enumerate(rows)]
    members = {name: frozenset(ids) for name, ids in (sweeps or {"s": "0123456789"[: len(rows)]}).items()}
    return Study(("s",), (), axes, _frame(rows, axes), (), 0, members, {})


def pairs(study: Study, axis: str = "precision") -> list[RunPairs]:
    return pairs_of(study, final_rows(study.table), axis)


def test_each_value_is_paired_with_the_first_value_of_the_sweep_file():
    rows = [{"precision": name, "model": model} for model in ("a", "b") for name in ("fp16", "bf16", "fp32")]
    found = pairs(study_of(rows, {"precision": ["fp32", "bf16", "fp16"], "model": ["a", "b"]}))
    assert [(each.base, each.value, each.before, each.after) for each in found] == [
        ("fp32", "bf16", ("2", "5"), ("1", "4")),
        ("fp32", "fp16", ("2", "5"), ("0", "3")),
    ]


def test_the_first_value_that_some_run_has_is_the_base():
    rows = [{"precision": name} for name in ("bf16", "fp16")]
    (found,) = pairs(study_of(rows, {"precision": ["fp32", "bf16", "fp16"]}))
    assert (found.base, found.value) == ("bf16", "fp16")


def test_pairs_of_one_cell_differ_in_the_seed_alone():
    rows = [{"precision": p, "model": m, "seed": s} for m in ("a", "b") for s in (0, 1) for p in PRECISIONS]
    (found,) = pairs(study_of(rows, {"precision": PRECISIONS, "model": ["a", "b"], "seed": [0, 1]}))
    assert len(found.before) == 4
    cell_of = dict(zip(found.before, found.cells, strict=True))
    assert cell_of["0"] == cell_of["2"] != cell_of["4"] == cell_of["6"]


def test_runs_of_two_sweeps_are_no_pair_and_a_pair_that_two_sweeps_share_counts_once():
    rows = [{"precision": "fp32"}, {"precision": "bf16"}]
    axes = {"precision": PRECISIONS}
    assert pairs(study_of(rows, axes, {"one": "0", "two": "1"})) == []
    (found,) = pairs(study_of(rows, axes, {"one": "01", "two": "01"}))
    assert (found.before, found.after) == (("0",), ("1",))


def test_runs_with_the_same_values_are_compared_with_nothing():
    rows = [{"precision": "fp32"}, {"precision": "fp32"}, {"precision": "bf16"}]
    assert pairs(study_of(rows, {"precision": PRECISIONS})) == []


def test_a_run_without_a_value_is_in_no_cell_and_null_elsewhere_is_a_value_of_its_own():
    rows = [
        {"precision": None, "optim.lr": 1},
        {"precision": "fp32"},
        {"precision": "bf16"},
        {"precision": "bf16", "optim.lr": 1},
    ]
    study = study_of(rows, {"precision": PRECISIONS, "optim.lr": [1, 2]})
    assert runs_by_cell(study, study.table, "precision") == {
        ("s", None): {"fp32": "1", "bf16": "2"},
        ("s", 1): {"bf16": "3"},
    }


def test_seeds_that_were_scored_on_different_texts_are_in_different_cells():
    rows = [
        {"seed": 0, "data_fingerprint": "x"},
        {"seed": 1, "data_fingerprint": "y"},
        {"seed": 2, "data_fingerprint": "x"},
    ]
    study = study_of(rows, {"seed": [0, 1, 2]})
    assert sorted(map(sorted, runs_by_cell(study, study.table, "seed").values())) == [[0, 2], [1]]


def test_a_list_on_an_axis_is_a_value_like_any_other():
    rows = [{"data.files": ["a", "b"]}, {"data.files": ["c"]}]
    study = study_of(rows, {"data.files": [["a", "b"], ["c"]]})
    (found,) = pairs(study, "data.files")
    assert (found.base, found.value) == ('["a", "b"]', '["c"]') and isinstance(study.table, pd.DataFrame)

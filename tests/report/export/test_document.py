"""A study as one JSON document: whole, plain, and the same study however it is shown."""

import io
import json

import numpy as np
import pandas as pd
import pytest

from lmexp.analysis.effects.noise import LEVEL
from lmexp.analysis.table import Study, load_study
from lmexp.report.export.document import records, study_document
from lmexp.report.export.formats import rendered
from lmexp.report.options import ViewOptions
from lmexp.report.view import StudyView
from tests.analysis.effects.test_ties import TIED_ARMS, study_of
from tests.report.synthetic import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load_study([write_study(tmp_path_factory.mktemp("outputs"))])


def test_it_is_json_of_all_rows_under_the_names_of_the_record_and_null_where_nothing_was_measured(study: Study):
    document = study_document(StudyView.of(study, ViewOptions()))
    read = json.loads(json.dumps(document, allow_nan=False))
    assert read == document
    assert len(document["runs"]) == len(study.table) == 10 and list(document["runs"][0]) == list(study.table)
    losses = [run["loss"] for run in document["runs"]]
    assert losses.count(None) == 2 == study.table["loss"].isna().sum()
    assert [loss for loss in losses if loss] == study.table["loss"].dropna().tolist()
    assert document["question"] == study.question and document["axes"] == study.axes


def test_its_frontier_and_knee_are_ids_of_its_rows_whatever_the_order_and_the_columns(study: Study):
    plain = study_document(StudyView.of(study, ViewOptions()))
    shown = study_document(StudyView.of(study, ViewOptions(sort="loss", columns=("slug", "loss"))))
    ids = {run["run_id"]: run["loss"] for run in plain["runs"]}
    assert plain["frontier"] and set(plain["frontier"]) < set(ids)
    assert set(shown["frontier"]) == set(plain["frontier"]) and shown["knee"] == plain["knee"]
    assert set(plain["knee"].values()) <= set(plain["frontier"])
    assert min(loss for loss in ids.values() if loss) in [ids[run] for run in plain["frontier"]]
    assert all(list(run) == ["slug", "loss"] for run in shown["runs"])
    losses = [run["loss"] for run in shown["runs"] if run["loss"] is not None]
    assert losses == sorted(losses) and len(shown["runs"]) == 10


def test_what_is_missing_or_not_finite_is_null_in_every_kind_of_column():
    table = pd.DataFrame(
        {
            "x": [1.5, np.nan, np.inf],
            "n": pd.array([1, None, 3], dtype="Int64"),
            "name": pd.array(["a", None, "c"], dtype="string"),
            "flag": pd.array([True, None, False], dtype="boolean"),
        }
    )
    assert records(table) == [
        {"x": 1.5, "n": 1, "name": "a", "flag": True},
        {"x": None, "n": None, "name": None, "flag": None},
        {"x": None, "n": 3, "name": "c", "flag": False},
    ]


def test_its_ties_have_the_runs_of_both_settings_and_the_p_value():
    study = study_of(TIED_ARMS)
    ties = study_document(StudyView.of(study))["ties"]
    (part,) = ties["parts"].values()
    assert (part["compared"], part["pairs"]) == (2, 3)
    (tie,) = part["tied"]
    assert sorted(tie["setting"]["runs"]) == ["large0", "large1", "large2"]
    assert (tie["tied_with"]["name"], tie["on_frontier"]) == ("small", True)
    assert tie["difference"] == pytest.approx(-0.002) and LEVEL < tie["p_holm"] <= 1
    assert ties["about"][0].startswith("Within noise of a setting that costs no more")


def test_the_csv_has_a_column_of_what_is_tied():
    table = pd.read_csv(io.BytesIO(rendered(StudyView.of(study_of(TIED_ARMS)), "csv")))
    assert table.set_index("run_id")["tied_with"].dropna().to_dict() == dict.fromkeys(
        ["large0", "large1", "large2"], "small"
    )

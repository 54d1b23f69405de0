"""One table from the run directories of a sweep, whatever state they are in."""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from lmexp.analysis.findings import findings
from lmexp.analysis.table import Study, final_rows, load_study
from lmexp.errors import UserError
from lmexp.files import read_json, write_json
from lmexp.runs.columns import COLUMNS
from lmexp.runs.directory import RunDir
from lmexp.runs.manifest import Manifest, write_manifest
from tests.report.synthetic import QUESTION, config, final_loss, record_of, write_run, write_study


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("outputs"))


def test_columns_are_the_records_then_scores_state_reason_and_axes(demo):
    study = load_study([demo])
    rest = ["score/hellaswag/acc", "state", "reason", "model.n_layers"]
    assert list(study.table) == [*COLUMNS, *rest]  # model, precision and seed are columns already
    assert study.name == "demo" and study.question == QUESTION
    assert study.axes["model.n_layers"] == [2, 4]
    assert [cell.reason for cell in study.skipped] == ["this device has no fp16"]


def test_every_run_has_a_row_finished_or_not(demo):
    table = load_study([demo]).table
    assert table["state"].value_counts().to_dict() == {"done": 8, "failed": 1, "diverged": 1}
    failed = table[table["state"] == "failed"].iloc[0]
    assert failed["model"] == "gpt_nano" and failed["model.n_layers"] == 2 and failed["seed"] == 1
    assert failed["reason"] == "OSError: no space left on device"


def test_null_stays_null_and_integers_stay_integers(demo):
    table = load_study([demo]).table
    assert str(table["n_params"].dtype) == "Int64" and str(table["loss"].dtype) == "Float64"
    assert table["loss"].isna().sum() == 2 and table["energy_kwh"].isna().all()
    assert (table["train_seconds"] == 0).sum() == 0


def test_a_cell_whose_directory_is_not_there_yet_is_queued(tmp_path):
    folder = write_study(tmp_path)
    manifest = read_json(folder / "sweep.json")
    values = {"model": "gpt_nano", "model.n_layers": 8}
    manifest["cells"].append({"run_id": "feed", "path": "later-feed", "values": values})
    write_json(folder / "sweep.json", manifest)
    row = load_study([folder]).table.set_index("run_id").loc["feed"]
    assert (row["state"], row["model"], row["model.n_layers"]) == ("queued", "gpt_nano", 8)


def test_a_running_run_without_its_process_says_so(tmp_path):
    run = RunDir.create(tmp_path / "demo" / "a", config("gpt_nano", 2, "fp32"))
    run.update_state(state="running", host="elsewhere", pid=1, heartbeat=0.0)
    table = load_study([tmp_path / "demo"]).table
    assert table["state"].tolist() == ["running"] and table["reason"].tolist() == ["its process is gone"]


def test_a_run_that_the_manifest_no_longer_has_is_left_out_and_counted(tmp_path):
    folder = write_study(tmp_path)
    write_run(folder / "old", config("gpt_nano", 2, "fp32", seed=9), 3.0)
    study = load_study([folder])
    assert study.outside == 1 and len(study.table) == 10


def test_a_narrower_call_of_a_sweep_hides_nothing_for_good(tmp_path):
    folder = write_study(tmp_path)
    whole = load_study([folder])
    manifest = Manifest.model_validate(read_json(folder / "sweep.json"))
    kept = [cell for cell in manifest.cells if cell.values["precision"] == "bf16" and cell.values["seed"] == 0]
    cells = [cell.model_copy(update={"values": {"precision": "bf16"}}) for cell in kept]
    write_manifest(folder, Manifest(name="demo", axes={"precision": ["bf16"]}, cells=cells))
    narrow, all_runs = load_study([folder]), load_study([folder], all_runs=True)
    assert (len(narrow.table), narrow.outside) == (4, 6) and (len(all_runs.table), all_runs.outside) == (10, 0)
    columns = ["slug", "model", "model.n_layers", "precision", "seed", "loss", "state"]
    same, expected = (study.table.set_index("run_id")[columns].sort_index() for study in (all_runs, whole))
    pd.testing.assert_frame_equal(same, expected)
    assert sorted(all_runs.varied) == sorted(whole.varied)
    assert {axis: sorted(values) for axis, values in all_runs.axes.items()} == {
        axis: sorted(values) for axis, values in whole.axes.items()
    }


def test_a_folder_without_a_manifest_holds_all_its_runs(tmp_path):
    folder = write_study(tmp_path)
    (folder / "sweep.json").unlink()
    study = load_study([folder])
    assert len(study.table) == 10 and study.axes == {} and study.names == ("demo",)


def test_a_run_that_two_sweeps_share_is_one_row_with_the_axes_of_both(tmp_path):
    folder = write_study(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    shared = read_json(folder / "sweep.json")["cells"][0]
    cell = {"run_id": shared["run_id"], "path": f"../demo/{shared['path']}", "values": {"optim.lr": 0.001}}
    write_json(other / "sweep.json", {"name": "other", "axes": {"optim.lr": [0.001]}, "cells": [cell]})
    study = load_study([folder, other])
    assert len(study.table) == 10 and study.name == "demo + other" and study.outside == 0
    row = study.table.set_index("run_id").loc[shared["run_id"]]
    assert row["optim.lr"] == 0.001 and row["model.n_layers"] == 2
    assert study.members["other"] == {shared["run_id"]}


def test_milestones_are_rows_of_their_own(tmp_path):
    made = config("gpt_nano", 2, "fp32")
    run = write_run(tmp_path / "demo" / "a", made, 3.0)
    rows = [record_of(made, loss) | {"tokens": tokens} for loss, tokens in ((3.5, 500_000), (3.0, 1_000_000))]
    run.write_record(rows)
    assert load_study([tmp_path / "demo"]).table["tokens"].tolist() == [500_000, 1_000_000]


def test_milestones_that_a_diverged_run_has_reached_are_results(tmp_path):
    made = config("gpt_nano", 2, "fp32")
    run = write_run(tmp_path / "demo" / "a", made, 3.0)
    (run.path / "record.json").unlink()
    run.update_state(state="diverged", reason="the training loss is nan at step 300")
    run.write_milestones([record_of(made, 3.5) | {"tokens": 500_000}])
    study = load_study([tmp_path / "demo"])
    assert study.table["state"].tolist() == ["diverged", "done"] and study.table["loss"].tolist()[1] == 3.5
    assert final_rows(study.table).empty, "it is no finished run, which others could be compared with"
    assert any("1 of 1 runs did not finish" in sentence for sentence in findings(study).sentences)
    run.write_record([record_of(made, 3.5) | {"tokens": 500_000}, record_of(made, 3.0)])
    assert not run.read_milestones()


def test_an_unreadable_run_does_not_hide_the_others(tmp_path):
    folder = write_study(tmp_path)
    broken = next(path for path in folder.iterdir() if path.name.endswith("s1"))
    (broken / "config.yaml").write_text("model: [")
    table = load_study([folder]).table
    assert len(table) == 10
    assert table["reason"].str.contains("cannot be read", na=False).sum() == 1


def test_what_a_record_says_for_itself_stands_over_the_cell(tmp_path):
    folder = write_study(tmp_path)
    manifest = read_json(folder / "sweep.json")
    manifest["cells"][0]["values"]["model"] = "models/nano.yaml"
    write_json(folder / "sweep.json", manifest)
    assert load_study([folder]).table["model"][0] == "gpt_nano"


def test_axis_values_of_mixed_kinds_and_lists_are_text(tmp_path):
    folder = write_study(tmp_path)
    manifest = read_json(folder / "sweep.json")
    manifest["axes"]["batch.micro"] = [None, 8, "auto", [1, 2]]
    for cell, value in zip(manifest["cells"], [8, "auto", [1, 2]], strict=False):
        cell["values"]["batch.micro"] = value
    write_json(folder / "sweep.json", manifest)
    values = load_study([folder]).table["batch.micro"]
    assert values.dropna().tolist() == ["8", "auto", "[1, 2]"]


def test_a_record_from_before_a_column_has_it_empty_and_what_follows_from_others_filled_in(tmp_path):
    folder = write_study(tmp_path)
    later = ("loss_quarter_1", "n_params_kaplan", "train_flops_kaplan")
    for file in folder.glob("*/record.json"):
        content = read_json(file)
        old = [{name: value for name, value in row.items() if name not in later} for row in content["rows"]]
        write_json(file, content | {"rows": [row | {"flops_per_token_kaplan": 600, "tokens": 10} for row in old]})
    table = load_study([folder]).table
    done = table[table["state"] == "done"]
    assert set(done["n_params_kaplan"]) == {100} and set(done["train_flops_kaplan"]) == {6000.0}
    assert done["loss_quarter_1"].isna().all() and table.loc[table["state"] != "done", "n_params_kaplan"].isna().all()


def test_curves_are_long_and_name_their_kind(demo):
    curves = load_study([demo]).curves
    assert set(curves["kind"]) == {"train", "validation"}
    last = curves[curves["kind"] == "validation"].groupby("run_id").last()
    assert last["loss"].min() == pytest.approx(final_loss("gpt_tiny", 4, "fp32"))
    assert {"step", "tokens", "flops", "seconds", "loss", "lr"} <= set(curves)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "dmo", "Did you mean 'demo'?"),
        (lambda root: root / "empty", "no runs in"),
        (lambda root: root / "torn", "sweep.json cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_short_message(tmp_path, make, message):
    write_study(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "sweep.json").write_text("{")
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        load_study([make(tmp_path)])
    assert message in str(caught.value)


def test_two_thousand_records_load_in_seconds(tmp_path):
    row = record_of(config("gpt_nano", 2, "fp32"), 3.0)
    cells = []
    for i in range(2000):
        run = tmp_path / "big" / f"r{i}"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("")
        (run / "state.json").write_text('{"state": "done"}')
        (run / "record.json").write_text(json.dumps({"rows": [row | {"run_id": f"r{i}"}]}))
        cells.append({"run_id": f"r{i}", "path": run.name, "values": {"optim.lr": i}})
    write_json(tmp_path / "big" / "sweep.json", {"name": "big", "axes": {"optim.lr": []}, "cells": cells})
    start = time.process_time()
    assert len(load_study([tmp_path / "big"]).table) == 2000
    assert time.process_time() - start < 5  # takes 0.5 s; quadratic work would take minutes


def test_analysis_and_report_import_no_torch():
    modules = [
        f"lmexp.{path.parent.name}.{path.stem}"
        for package in ("analysis", "report")
        for path in (Path(__file__).parents[2] / "lmexp" / package).glob("*.py")
        if path.stem not in ("__init__", "progress")
    ]
    check = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def _study_of(table: pd.DataFrame, axes: dict[str, list[float]]) -> Study:
    return Study(("s",), (), axes, table, (), 0, {}, {})


@pytest.mark.parametrize(
    ("axes", "cost"),
    [
        ({"model.n_layers": [2, 4], "budget.flops": [1e9, 2e9]}, "budget.flops"),
        ({"budget.tokens": [1000, 2000], "budget.flops": [1e9, 2e9]}, "train_flops"),
        ({"budget.tokens": [1000, 2000]}, "train_flops"),
        ({"budget.dollars": [1.0, 2.0]}, "dollars"),
        ({"budget.seconds": [5, 10]}, "train_seconds"),
        ({"model.n_layers": [2, 4]}, "train_seconds"),
        ({"budget.flops": [1e9]}, "train_seconds"),
    ],
)
def test_the_cost_to_compare_by_is_what_the_design_varies(axes: dict[str, list[float]], cost: str):
    cells = list(itertools.product(*axes.values()))
    table = pd.DataFrame(cells, columns=list(axes)).assign(unit=[f"r{i}" for i in range(len(cells))])
    assert _study_of(table, axes).default_cost == cost


def test_milestones_are_compared_by_flops():
    table = pd.DataFrame({"seed": [0, 0, 1, 1], "unit": ["a", "a", "b", "b"]})
    assert _study_of(table, {"seed": [0, 1]}).default_cost == "train_flops"

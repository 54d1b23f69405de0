"""lmexp as a notebook uses it."""

import os
import re
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import lmexp
from lmexp.errors import UserError
from lmexp.runs.columns import COLUMNS
from lmexp.runs.directory import RunDir
from tests.report.synthetic import QUESTION, write_study
from tests.server import COMPOSED


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("outputs"))


def test_importing_it_is_light_and_a_study_needs_no_torch(folder):
    code = (
        "import sys, lmexp; assert not {'pandas', 'numpy', 'torch'} & sys.modules.keys(); "
        f"df = lmexp.load({str(folder)!r}); lmexp.frontier(df); lmexp.report({str(folder)!r}); "
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_study_is_a_frame_with_its_question_and_units(folder):
    df = lmexp.load(folder)
    assert len(df) == 10 and df.attrs["question"] == QUESTION and df.attrs["axes"]["model.n_layers"] == [2, 4]
    assert df.attrs["units"]["loss"] == "nats" and df.attrs["units"]["dollars"] == "dollars"
    assert df[df["state"] == "done"].groupby("precision")["loss"].mean().round(3).to_dict() == {
        "bf16": 2.81,
        "fp32": 2.8,
    }
    assert len(lmexp.load(str(folder), where="model.n_layers == 4 and state == 'done'")) == 4


def test_the_docstring_of_load_has_every_column_with_its_unit_and_its_meaning():
    lines = [line.strip() for line in lmexp.load.__doc__.splitlines()]
    assert "train_seconds [s]: " + COLUMNS["train_seconds"].meaning in lines
    assert [
        name
        for name, column in COLUMNS.items()
        if not any(
            line.startswith((f"{name}: ", f"{name} [{column.unit}]: ")) and line.endswith(column.meaning)
            for line in lines
        )
    ] == []


def test_the_frontier_of_any_frame_keeps_its_index():
    df = pd.DataFrame({"f1": [0.5, 0.6, 0.4], "latency_ms": [1.0, 2.0, 3.0]}, index=["a", "b", "c"])
    assert df[lmexp.frontier(df, "f1", "latency_ms")].index.tolist() == ["a", "b"]
    df["mine"] = [1, 2, 3]
    assert lmexp.frontier(df, "mine", "latency_ms").tolist() == [True, False, False]
    assert lmexp.frontier(df, "mine", "latency_ms", maximize=["mine"]).all()
    with pytest.raises(UserError, match="neither a quality nor a cost"):
        lmexp.frontier(df, "mine", "latency_ms", maximize=["f1"])


def test_a_law_is_fitted_to_any_frame(tmp_path):
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
    df = pd.DataFrame({"params": n, "tokens": d, "loss": 1.7 + 400 * n**-0.34 + 410 * d**-0.28})
    found = lmexp.fit(df, laws=["chinchilla"], bootstraps=100)
    assert found.laws["chinchilla"].theta["alpha"] == pytest.approx(0.34, rel=1e-4)
    df.to_csv(tmp_path / "points.csv", index=False)
    again = lmexp.fit(tmp_path / "points.csv", laws=["chinchilla"], bootstraps=100)
    assert again.laws["chinchilla"].theta == pytest.approx(found.laws["chinchilla"].theta, rel=1e-6)
    with pytest.raises(UserError, match="loss"):
        lmexp.fit(df.drop(columns="loss"))


@pytest.mark.parametrize("wrong", [(), ("nowhere",)])
def test_a_folder_without_a_study_is_one_sentence(wrong):
    with pytest.raises(UserError, match=r"^[^\n]+$"):
        lmexp.load(*wrong)


def test_what_is_not_there_is_said_as_python_says_it():
    with pytest.raises(AttributeError, match="no attribute 'plot'"):
        _ = lmexp.plot


def test_the_example_of_the_docs_runs(folder, monkeypatch):
    chapter = (Path(__file__).parents[1] / "docs" / "report.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", chapter, re.DOTALL)
    monkeypatch.chdir(folder.parent.parent)
    assert folder.parent.name.startswith("outputs")
    (folder.parent.parent / "outputs").exists() or (folder.parent.parent / "outputs").symlink_to(folder.parent)
    names: dict[str, pd.DataFrame] = {}
    exec(example, names)
    assert len(names["best"]) >= 1 and len(names["half"]) == 5


# Running from Python


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("api") / "outputs"


@pytest.fixture(scope="module")
def result(small, outputs):
    """A run that a thread has trained: only the main thread could handle signals."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lmexp.run, small, output_dir=outputs).result()


@pytest.mark.slow
def test_a_run_returns_its_record_and_trains_once(result, small, outputs):
    assert (result.state, result.reason, result.is_failure) == ("done", None, False)
    assert result.record["loss"] > 0 and result.path.parent == outputs / "train" and result.log.exists()
    again = lmexp.run(iter(small), output_dir=str(outputs))
    assert again == result and RunDir(result.path).read_state().attempts == 1


@pytest.mark.slow
def test_a_run_leaves_the_users_environment_alone(result):
    assert "PYTHONSAFEPATH" not in os.environ


@pytest.mark.slow
def test_a_sweep_shares_the_runs_that_are_done(result, small, outputs):
    swept = lmexp.sweep(None, [*small, "model.n_layers=2,3"], output_dir=outputs, folder="depths")
    assert [run.state for run in swept.runs] == ["done", "done"] and not swept.failures
    assert [run.values["model.n_layers"] for run in swept.runs] == [2, 3]
    assert swept.runs[0].path == result.path and swept.folders == (outputs / "depths",)
    assert len(lmexp.load(*swept.folders)) == 2


@pytest.fixture
def pair(tmp_path):
    """The file of a sweep of two cells."""
    (tmp_path / "sweeps").mkdir()
    file = tmp_path / "sweeps" / "pair.yaml"
    file.write_text("# @package _global_\ndefaults: [_self_]\nsweep: {grid: {precision: [fp32, bf16]}}\n")
    return file


def test_a_plan_has_rows_and_sums_and_starts_nothing(small, pair, tmp_path):
    plan = lmexp.plan(str(pair), small, output_dir=tmp_path / "outputs")
    assert len(plan.table) == len(plan.rows) == 2 and plan.total["tokens"] == plan.table["tokens"].sum() == 2 * 5120
    assert not list(tmp_path.glob("outputs/[!.]*"))


@pytest.mark.slow
def test_a_failed_run_is_a_result_with_its_reason(small, outputs):
    policy = lmexp.Policy(timeout=0.01)
    late = lmexp.run([*small, "seed=7"], output_dir=outputs, policy=policy)
    assert late.state == "timeout" and late.record is None and late.rows == () and late.reason


def test_a_report_says_what_the_command_says(folder):
    report = lmexp.report(folder, cost="train_flops", where="state == 'done'", under={"train_flops": 1e30})
    marks = lmexp.frontier(report.table, cost="train_flops")
    assert report.question == QUESTION and report.findings and len(report.answers) == 1
    assert report.frontier["loss"].tolist() == report.table[marks]["loss"].tolist() != []
    assert report.table["loss"].is_monotonic_increasing
    assert report.page.exists() and len(pd.read_csv(report.csv)) == len(lmexp.load(folder))
    with pytest.raises(UserError, match="train_flop"):
        lmexp.report(folder, cost="train_flop")


@pytest.mark.slow
def test_report_is_a_function_before_and_after_its_package_is_imported(folder):
    code = (
        "import lmexp; assert callable(lmexp.report); import lmexp.report.view; from lmexp import report; "
        f"assert lmexp.report({str(folder)!r}).name == report({str(folder)!r}).name"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lmexp.run("model=gpt_nano"), r"\['model=gpt_nano'\]"),
        (lambda: lmexp.run(["seed=0,1"]), r"lmexp\.sweep"),
        (lambda: lmexp.run(["model.n_layer=4"]), r"model\.n_layers"),
        (lambda: lmexp.sweep("dem"), "demo"),
        (lambda: lmexp.report(), r"lmexp\.report"),
    ],
)
def test_wrong_input_is_one_sentence_and_starts_nothing(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(lmexp.UserError, match=message) as problem:
        call()
    assert "\n" not in str(problem.value) and not list(tmp_path.glob("outputs/[!.]*"))


@pytest.mark.parametrize("call", [lmexp.plan, lmexp.sweep])
def test_somebody_elses_sweep_names_code_only_if_it_is_trusted(call, pair, tmp_path, monkeypatch):
    pair.write_text(pair.read_text() + "model: {_target_: stranger.models.Model}\n")
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")  # so that the sweep is not in the user's own folder
    with pytest.raises(UserError, match="trust"):
        call(str(pair))
    with pytest.raises(UserError, match="no module stranger"):  # allowed, and then not there
        call(str(pair), trust=["stranger"])
    with pytest.raises(UserError, match="no module stranger"):
        call(str(pair), ["model._target_=stranger.models.Model"])
    with pytest.raises(UserError, match="trust"):  # what an earlier call allowed is over
        call(str(pair))


def test_a_program_that_uses_hydra_itself_keeps_its_own(small, pair, tmp_path):
    COMPOSED.clear()
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        own = GlobalHydra.instance().hydra
        lmexp.plan(str(pair), small, output_dir=tmp_path)
        assert GlobalHydra.instance().hydra is own


@pytest.mark.slow
def test_a_script_needs_no_guard_and_prints_only_what_it_prints(small, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import lmexp

        print("once")
        print(lmexp.run({[*small, "seed=3"]!r}).state)
        """)
    )
    environment = os.environ | {"LMEXP_OUTPUTS": str(tmp_path / "outputs")}
    ended = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "once\ndone\n", "")
    (log,) = tmp_path.glob("outputs/train/*/log.txt")
    assert "once" not in log.read_text()  # the run's process did not run the script


@pytest.mark.slow
def test_progress_is_printed_when_asked_for(result, small, outputs, capsys):
    lmexp.run(small, output_dir=outputs, verbose=True)
    captured = capsys.readouterr()
    assert captured.out == "" and result.name in captured.err and "FLOPs" in captured.err

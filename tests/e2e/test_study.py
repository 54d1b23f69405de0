"""A study as a user runs it: one command, then its files."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.command import run_command
from tests.conftest import SMALL, Lmexp

SWEEP = """# Two depths and two precisions of a very small model
# @package _global_
defaults:
  - override /model: gpt_nano
  - override /data: text
  - override /tokenizer: byte
  - _self_
sweep:
  question: Is depth or precision better worth its seconds?
  grid:
    model.n_layers: [1, 2]
    precision: [fp32, bf16]
model: {context: 32, d_model: 32}
batch: {tokens: 256}
budget: {tokens: 5120}
trainer: {log_every: 5}
"""

Trained = tuple[Path, "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path, text: Path) -> Path:
    return write_folder(tmp_path, text)


def write_folder(folder: Path, text: Path) -> Path:
    """Write what a user has before the first command: a sweep file and a text."""
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "mine.yaml").write_text(SWEEP)
    (folder / "text.txt").write_bytes(text.read_bytes())
    return folder


DATA = ["data.path=text.txt", "data.document=paragraph"]


@pytest.fixture(scope="module")
def trained(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Run a single `train` and then `sweep mine` in one folder; return the folder and how the sweep ended.

    Training takes longer than all the rest, so most tests below read these runs or a copy of them.
    """
    folder = write_folder(tmp_path_factory.mktemp("trained"), text)
    assert run_command(folder, "train", *SMALL, "data=text", *DATA, "seed=1").returncode == 0  # no run of the sweep
    return folder, run_command(folder, "sweep", "mine", *DATA)


@pytest.fixture
def finished(trained: Trained, folder: Path) -> Path:
    """A folder of the test's own, with the trained runs in its outputs."""
    shutil.copytree(trained[0] / "outputs", folder / "outputs")
    return folder


def test_a_sweep_ends_with_table_frontier_answer_and_report(trained: Trained):
    folder, ended = trained
    assert ended.returncode == 0, ended.stderr
    for heading in ("loss", "ppl", "bits/byte", "tokens/s", "FLOPs", "GB", "train s", "on the frontier"):
        assert heading in ended.stdout
    assert "Is depth or precision better worth its seconds?" in ended.stdout
    assert "precision bf16 against fp32: loss" in ended.stdout
    assert ended.stdout.rstrip().endswith("outputs/mine/report.html")
    assert "mine: 4 runs of " in ended.stderr  # the plan, before anything runs

    sweep = folder / "outputs" / "mine"
    assert b"mine" in (sweep / "report.html").read_bytes()
    with (sweep / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(pd.read_parquet(sweep / "table.parquet")) == 4
    assert {row["state"] for row in rows} == {"done"} and all(float(row["loss"]) > 0 for row in rows)
    assert all(row["energy_kwh"] == "" for row in rows)  # not measured is empty, not 0


def test_the_same_command_again_runs_nothing_and_says_the_same(finished: Path, trained: Trained, lmexp: Lmexp):
    folder, first = trained
    again = lmexp("sweep", "mine", *DATA)
    assert again.stdout.replace(str(finished), str(folder)) == first.stdout
    assert again.stderr.count("done before") == 4


def test_json_is_one_document_on_standard_output(finished: Path, lmexp: Lmexp):
    sweep = json.loads(lmexp("sweep", "mine", *DATA, "--json").stdout)
    assert len(sweep["runs"]) == 4 and sweep["frontier"] and sweep["findings"]
    assert json.loads(lmexp("report", "mine", "--json").stdout) == sweep
    plan = json.loads(lmexp("plan", "mine", *DATA, "--json").stdout)
    assert [run["n_params"] for run in plan["runs"]] == [run["n_params"] for run in sweep["runs"]]
    status = json.loads(lmexp("status", "mine", "--json").stdout)
    assert [run["state"] for run in status["runs"]] == ["done"] * 4
    assert json.loads(lmexp("list", "sweeps", "--json").stdout)["mine"].startswith("Two depths")


@pytest.mark.slow
def test_an_ad_hoc_sweep_and_a_report_over_two(folder: Path, lmexp: Lmexp):
    words = [*SMALL, "data=text", *DATA, "-m", "optim.lr=1e-3,1e-2"]
    assert lmexp("train", *words, "--name", "rates").returncode == 0
    assert lmexp("train", *words[:-1], "optim.lr=3e-3,1e-2", "--name", "more").returncode == 0
    assert len(list(folder.glob("outputs/*/*/record.json"))) == 3  # the run that both have was run once
    ended = lmexp("report", "rates", "more", "--cost", "train_flops", "--json")
    assert len(json.loads(ended.stdout)["runs"]) == 3
    assert (folder / "outputs" / "rates+more" / "report.html").exists()


def test_generate_continues_a_text_the_same_for_the_same_seed(finished: Path, lmexp: Lmexp):
    first, again, other = (
        lmexp("generate", "train/gpt_nano", "the cat", "--tokens", "20", "--seed", seed).stdout
        for seed in ("1", "1", "2")
    )
    assert first.startswith("the cat") and first == again != other
    greedy = json.loads(
        lmexp("generate", "train/gpt_nano", "the", "--temperature", "0", "--tokens", "5", "--json").stdout
    )
    assert len(greedy["text"].encode()) <= 5 * 3  # five bytes, or five signs for what is no character


@pytest.mark.slow
def test_a_run_is_moved_to_another_machine_and_run_there(finished: Path, tmp_path: Path):
    (run,) = (path.parent for path in finished.glob("outputs/train/*/record.json"))
    there = tmp_path / "elsewhere" / "train" / run.name
    there.mkdir(parents=True)
    shutil.copy(run / "config.yaml", there)
    subprocess.run([sys.executable, "-m", "lmexp.worker", str(there)], check=True, capture_output=True, timeout=120)
    here_row, there_row = (json.loads((path / "record.json").read_text())["rows"][0] for path in (run, there))
    assert here_row["data_fingerprint"] == there_row["data_fingerprint"]
    assert here_row["loss"] == pytest.approx(there_row["loss"], abs=1e-4)


def test_help_report_and_plan_import_nothing_slow_that_they_do_not_need(finished: Path):
    plan = ["plan", "mine", *DATA, "trainer.accelerator=cpu"]
    for words in (["--help"], ["list", "models"], ["status", "train"], ["report", "train"], plan):
        slow = {"torch", "scipy.stats", *({"pandas", "scipy"} if words is plan else ())}
        script = (
            "import sys; from lmexp.cli import app; "
            f"app({words!r}, standalone_mode=False); sys.exit(bool({slow!r} & sys.modules.keys()))"
        )
        ended = subprocess.run([sys.executable, "-c", script], cwd=finished, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, (words, ended.stderr)


def test_every_verbs_help_has_an_example(lmexp: Lmexp):
    for verb in ("train", "sweep", "plan", "status", "report", "prepare", "generate", "list", "doctor"):
        assert "Example:" in lmexp(verb, "--help").stdout

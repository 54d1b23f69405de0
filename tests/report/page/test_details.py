"""What the page tells of one run: only what differs, only what may be shown."""

import subprocess

import pytest

from lmexp.analysis.table import load_study
from lmexp.report.page.details import LOG_CHARACTERS, LOG_LINES, details
from tests.report.synthetic import write_study


@pytest.fixture
def study(tmp_path):
    return load_study([write_study(tmp_path)])


def test_configs_differ_in_what_was_swept_and_the_rest_is_told_once(study):
    told = details(study, "loss", "train_seconds")
    assert {"model.d_model", "model.n_layers", "precision.compute", "seed"} <= {
        key for run in told["runs"].values() for key in run["config"]
    }
    assert told["common"]["optim.lr"] == "0.001" and told["left_out"] == 0
    assert not any(key.startswith(("logger", "launcher", "run.")) for key in told["common"])


def test_a_log_ends_in_its_last_lines_without_what_moves_a_cursor(study):
    run_id, run = next(iter(study.runs.items()))
    run.log.write_text("".join(f"line {i}\n" for i in range(5000)) + "step 1\rstep 2\x1b[31m red\n")
    log = details(study, "loss", "train_seconds")["runs"][run_id]["log"]
    assert log.count("\n") == LOG_LINES - 1 and "line 4999" in log and len(log) <= LOG_CHARACTERS
    assert log.endswith("step 2\ufffd[31m red") and "step 1" not in log


def test_a_private_key_in_a_log_is_left_out_with_all_its_lines(study):
    run_id, run = next(iter(study.runs.items()))
    run.log.write_text("before\n-----BEGIN PRIVATE KEY-----\nhunter2\nhunter2\n-----END PRIVATE KEY-----\nafter\n")
    log = details(study, "loss", "train_seconds")["runs"][run_id]["log"]
    assert log == "before\n[left out]\nafter"


def test_of_many_runs_the_frontier_the_failed_and_the_best_are_told(study, monkeypatch):
    monkeypatch.setattr("lmexp.report.page.details.MAX_DETAILS", 7)
    told = details(study, "loss", "train_seconds")
    assert told["left_out"] == 3
    states = [study.table.set_index("run_id")["state"][run] for run in told["runs"]]
    assert sorted(states) == ["diverged", "done", "done", "done", "done", "done", "failed"]


def test_the_command_makes_a_run_directory_of_the_same_config(study, tmp_path):
    told = details(study, "loss", "train_seconds")["runs"]
    copy = next(iter(told.values()))["command"].rpartition(" && ")
    subprocess.run(copy[0], shell=True, check=True, cwd=tmp_path)
    (made,) = (tmp_path / "again").iterdir()
    assert copy[2] == f"python -m lmexp.worker again/{made.name}"
    original = next(iter(told))
    assert (made / "config.yaml").read_text() == (study.runs[original].path / "config.yaml").read_text()

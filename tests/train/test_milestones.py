"""Runs with milestones: every row is that of a separate run, and the steps that rows share are trained once."""

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lmexp.runs.directory import RunDir
from lmexp.runs.record import Row
from lmexp.train.checkpoint import last_checkpoint, trunk_checkpoint
from lmexp.train.worker import main
from tests.train.test_worker import TIMINGS
from tests.train.together import train_together

MakeRun = Callable[..., RunDir]
WSD = ["schedule=wsd", "schedule.warmup=0.125", "schedule.final=0.1", "model.dropout=0.1"]
"""Shares that are powers of 1/2 keep the arithmetic of the warm-up exact."""
OF_SHARING = ["run_id", "unit", "spent_flops", "weights_sha256", *TIMINGS]


def results(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a row says, without what depends on the clock, the run's name and its other rows."""
    return {name: value for name, value in row.items() if name not in OF_SHARING}


def losses(run: RunDir) -> set[tuple[float, float]]:
    return {(point["step"], point["loss"]) for point in run.read_curve() if "loss" in point}


def test_each_row_equals_that_of_a_separate_run_bit_for_bit(make_run: MakeRun):
    run = make_run(*WSD, "budget.milestones=[0.5]")  # of 20 steps
    half = make_run(*WSD, "budget.tokens=2560", "schedule.warmup=0.25", place="half")
    whole = make_run(*WSD, place="whole")
    assert [main(each.path) for each in (run, half, whole)] == [0, 0, 0]
    rows, separate = run.read_record(), [*half.read_record(), *whole.read_record()]
    assert list(map(results, rows)) == list(map(results, separate))
    assert {row["unit"] for row in rows} == {row["run_id"] for row in rows} == {run.read_config().run.id}
    weights, others = (load_file(each.final / "model.safetensors") for each in (run, whole))
    assert all(torch.equal(weights[name], others[name]) for name in weights)

    assert [row["spent_flops"] for row in separate] == [row["train_flops"] for row in separate]
    steps = [row["spent_flops"] / row["flops_per_token"] / 256 for row in rows]
    assert steps == [10, 20 - 7], "the second row begins at the branch of the first, a step before its cool-down"
    assert (run.read_state().tokens, run.read_state().share) == (23 * 256, 1.0)
    assert losses(whole) < losses(run), "the trunk was also scored where the shorter run is"
    assert [p["step"] for p in run.read_curve() if "train_loss" in p] == [1, 5, 10, 15, 20], "without the cool-down"
    assert not any(file.exists() for file in (last_checkpoint(run), trunk_checkpoint(run)))
    assert not run.read_milestones()


@pytest.mark.slow
def test_a_run_that_stops_anywhere_goes_on_there(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    words = [
        *WSD,
        "budget.tokens=10240",
        "budget.milestones=[0.25, 0.5]",
        "checkpoint.every=0.1",
    ]  # at 10, 20, 40 steps
    undisturbed, run = make_run(*words, place="undisturbed"), make_run(*words, place="disturbed")
    assert main(undisturbed.path) == 0
    write = RunDir.write_milestones

    def write_and_fail(self: RunDir, rows: list[Row]) -> None:
        write(self, rows)
        raise OSError("the first row was the last thing that was written")

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write_milestones", write_and_fail)
        assert main(run.path) == 1
    assert len(run.read_milestones()) == 1 and last_checkpoint(run).exists(), "a checkpoint that leads nowhere now"

    command = [sys.executable, "-m", "tests.train.disturbed", str(run.path), "kill", "0", "18"]
    killed = subprocess.run(command, timeout=120, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, "in the cool-down to the second milestone, which begins after step 15"
    assert not run.read_record() and len(run.read_milestones()) == 1 and trunk_checkpoint(run).exists()
    assert main(run.path) == 0

    rows, others = run.read_record(), undisturbed.read_record()
    assert len(rows) == 3 and list(map(results, rows)) == list(map(results, others))
    assert [row["spent_flops"] for row in rows] == [row["spent_flops"] for row in others]
    weights, same = (load_file(each.final / "model.safetensors") for each in (run, undisturbed))
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert losses(run) == losses(undisturbed) and run.read_state().attempts == 3


@pytest.mark.slow
def test_two_processes_reach_the_milestones_of_one(make_run: MakeRun):
    words = [*WSD[:-1], "budget.milestones=[0.5]"]  # without dropout, for which each process draws its own numbers
    alone, together = make_run(*words, place="alone"), make_run(*words, "trainer.devices=2", place="together")
    assert main(alone.path) == 0
    train_together(together.path)
    rows, others = together.read_record(), alone.read_record()
    assert [row["world_size"] for row in rows] == [2, 2]
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in others], abs=2e-5)
    assert [row["spent_flops"] for row in rows] == [row["spent_flops"] for row in others]

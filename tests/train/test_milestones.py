"""Runs with milestones: every row is that of a separate run, and the steps that rows share are trained once."""

from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load_file

from lmexp.runs.directory import RunDir
from lmexp.train.checkpoint import last_checkpoint, trunk_checkpoint
from lmexp.train.worker import main
from tests.train.test_worker import TIMINGS

MakeRun = Callable[..., RunDir]
WSD = ["schedule=wsd", "schedule.warmup=0.125", "schedule.final=0.1", "model.dropout=0.1"]
"""Shares that are powers of 1/2 keep the arithmetic of the warm-up exact."""
OF_SHARING = ["run_id", "unit", "spent_flops", *TIMINGS]


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

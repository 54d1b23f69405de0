"""The task's own scores: computed on the device that trained, and nothing that fails there costs the weights."""

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from lmexp.cost.horizon import Horizon
from lmexp.data.loading import TrainBatches
from lmexp.models.build import build_model
from lmexp.runs.directory import RunDir
from lmexp.tasks.base import Batch, TaskScores
from lmexp.tasks.causal_lm import CausalLM
from lmexp.train import heartbeat as beating
from lmexp.train.checkpoint import load_final
from lmexp.train.curve import Curve
from lmexp.train.progress import Progress
from lmexp.train.spending import start_watch
from lmexp.train.training import Training
from lmexp.train.worker import main

MakeRun = Callable[..., RunDir]


@pytest.mark.parametrize("is_put_together", [False, True])
def test_a_run_is_judged_on_the_device_that_trained_it(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, is_put_together: bool
):
    run = make_run()
    config = run.read_config()
    training = Training(run, config, leader=True, watch=start_watch(config, time.time()))
    seen: list[torch.device] = []

    def judge(self: CausalLM, *arguments: Any) -> TaskScores:
        seen.extend([self.device, *(weight.device for weight in self.parameters())])
        return TaskScores()

    monkeypatch.setattr(CausalLM, "judge", judge)
    training.root_device = torch.device(
        "meta"
    )  # stands for a GPU: the weights are on the CPU, as Lightning leaves them
    model = build_model(training.config.model, seed=0) if is_put_together else training.task.model
    training._judge(model, training.feed)
    training.release()
    assert set(seen) == {torch.device("meta")}


def test_weights_are_kept_where_judging_fails(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    def judge(self: CausalLM, *arguments: Any) -> TaskScores:
        raise torch.OutOfMemoryError("too many beams")

    monkeypatch.setattr(CausalLM, "judge", judge)
    run = make_run()
    assert main(run.path) == 1
    assert run.read_state().state == "oom"
    assert load_final(run).model is not None


def test_the_heartbeat_reads_the_energy_and_looks_for_other_programs():
    done: list[str] = []
    watch = SimpleNamespace(energy=SimpleNamespace(sample=lambda: done.append("energy")))
    exclusive = SimpleNamespace(look=lambda: done.append("look"))
    for lock in (exclusive, None):  # only the first process of a node has one
        Training._sample(cast(Training, SimpleNamespace(watch=watch, exclusive=lock)))
    assert done == ["energy", "look", "energy"]


def test_a_line_of_progress_is_printed_whatever_the_run_does(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("LMEXP_PROGRESS_SECONDS", "0.02")
    monkeypatch.setattr(beating, "HEARTBEAT_SECONDS", 0.01)
    progress = Progress(Horizon(20, 5120, 1.0, None, 1.0), batch_tokens=256, sequences=8)
    curve = cast(Curve, SimpleNamespace(train_loss=None, tokens_per_second=None))
    said = ""
    deadline = time.monotonic() + 60
    with beating.heartbeat(make_run(), progress, curve, lambda: None):
        while "prepares its first step\n" not in said and time.monotonic() < deadline:
            said += capsys.readouterr().out
        curve.train_loss = 2.5
        progress.advance(seconds=1.0, step_seconds=1.0)  # and then no step ends
        while said.count("step 1, 5%, train loss 2.500\n") < 2 and time.monotonic() < deadline:
            said += capsys.readouterr().out
    assert "prepares its first step\n" in said and said.count("step 1, 5%, train loss 2.500\n") >= 2


def test_the_state_says_since_when_and_from_which_share_the_speed_is_measured(make_run: MakeRun):
    progress = Progress(Horizon(20, 5120, 1.0, None, 1.0), batch_tokens=256, sequences=8)
    curve, run = cast(Curve, SimpleNamespace(train_loss=None, tokens_per_second=None)), make_run()
    progress.steps, progress.share = 10, 0.5  # from a checkpoint
    with beating.heartbeat(run, progress, curve, lambda: None):
        assert run.read_state().measured_from is None, "no step of this process has ended"
        progress.advance(seconds=1.0, step_seconds=1.0)
    state = run.read_state()
    assert state.measured_from == state.heartbeat and state.measured_share == 0.55


def test_gradients_are_dropped_before_the_next_step_goes_forward(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    forward, standing = CausalLM.training_step, []

    def look(self: CausalLM, *arguments: Any) -> torch.Tensor:
        standing.append(any(weight.grad is not None for weight in self.parameters()))
        return forward(self, *arguments)

    monkeypatch.setattr(CausalLM, "training_step", look)
    run = make_run("batch.micro=4", "budget.tokens=512")
    assert main(run.path) == 0
    assert standing == [False, True, False, True], "two steps of two micro-batches"
    assert run.read_record()[0]["dtype_grads"] == "float32"


def test_waiting_for_data_counts_for_every_micro_batch(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    fetches: list[float] = []

    class Slow(TrainBatches):
        def __iter__(self) -> Iterator[Batch]:
            for batch in super().__iter__():
                started = time.perf_counter()
                time.sleep(0.02)
                fetches.append(time.perf_counter() - started)
                yield batch

    monkeypatch.setattr("lmexp.train.training.TrainBatches", Slow)
    run = make_run("batch.micro=2", "budget.tokens=1280")
    assert main(run.path) == 0
    [row] = run.read_record()
    assert (row["steps"], row["batch_tokens"] // row["context"]) == (5, 8), "20 micro-batches"
    waited = row["data_wait_fraction"] * row["train_seconds"]
    # Lightning fetches the first before the clock starts, and one that is not trained on.
    assert sum(sorted(fetches[:20])[:18]) <= waited <= 1.5 * sum(fetches)

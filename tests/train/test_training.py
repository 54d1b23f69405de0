"""The task's own scores: computed on the device that trained, and nothing that fails there costs the weights."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from lmexp.models.build import build_model
from lmexp.runs.directory import RunDir
from lmexp.tasks.base import TaskScores
from lmexp.tasks.causal_lm import CausalLM
from lmexp.train.checkpoint import load_final
from lmexp.train.training import Training
from lmexp.train.worker import main

MakeRun = Callable[..., RunDir]


@pytest.mark.parametrize("is_put_together", [False, True])
def test_a_run_is_judged_on_the_device_that_trained_it(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, is_put_together: bool
):
    run = make_run()
    training = Training(run, run.read_config(), leader=True)
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
    energy, exclusive = (
        SimpleNamespace(sample=lambda: done.append("energy")),
        SimpleNamespace(look=lambda: done.append("look")),
    )
    for lock in (exclusive, None):  # only the leader has one
        Training._sample(cast(Training, SimpleNamespace(energy=energy, exclusive=lock)))
    assert done == ["energy", "look", "energy"]

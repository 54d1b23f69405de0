"""A task that computes its loss in pieces trains and scores as one that holds all logits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lmexp.config.schema import RunConfig
from lmexp.data.feeds import IGNORED, Batch
from lmexp.models.build import build_model
from lmexp.tasks import base
from lmexp.tasks.causal_lm import CausalLM
from lmexp.tasks.cross_entropy import piece_of
from lmexp.tasks.masked_lm import MaskedLM

Configure = Callable[..., RunConfig]
FAMILIES = ["gpt_nano", "llama_nano", "moe_nano", "lstm_nano", "mingru_nano", "bert_nano"]


def task_of(config: RunConfig, kind: type[base.Task] | None = None) -> base.Task:
    kind = kind or (MaskedLM if config.model.family == "bert" else CausalLM)
    return kind(build_model(config.model, 0), config)  # type: ignore[arg-type]


def batch_of(config: RunConfig) -> Batch:
    inputs = torch.randint(61, (3, 32), generator=torch.Generator().manual_seed(1))
    targets = inputs.roll(-1, 1)
    if config.model.family == "bert":
        targets[:, ::3] = IGNORED
    return {"inputs": inputs, "targets": targets, "step_targets": (targets != IGNORED).sum()}


def step(task: base.Task, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    task.zero_grad()
    loss = task.training_step(batch, 0)
    loss.backward()
    return loss.item(), {name: weight.grad for name, weight in task.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_change_neither_the_step_nor_the_scores(family: str, config: Configure, monkeypatch: pytest.MonkeyPatch):
    run = config(f"model={family}", "model.context=32", "model.vocab_size=61", "model.dropout=0")
    task, batch = task_of(run), batch_of(run)
    whole, quality = step(task, batch), task.evaluate([batch], text_bytes=90)
    shapes = []
    monkeypatch.setattr(base, "rows_at_a_time", lambda vocab, kind: 7)
    monkeypatch.setattr(task, "piece", lambda *given: (shapes.append(given[0].shape[0]), piece_of(*given))[1])
    pieces = step(task, batch)
    assert shapes == [7] * 13 + [5]
    assert pieces[0] == pytest.approx(whole[0], rel=1e-6)
    assert pieces[1].keys() == whole[1].keys()
    for name, gradient in pieces[1].items():
        torch.testing.assert_close(gradient, whole[1][name], rtol=1e-4, atol=1e-6, msg=name)
    scored = task.evaluate([batch], text_bytes=90)
    assert (scored.accuracy, scored.tokens) == (quality.accuracy, quality.tokens)
    assert scored.loss == pytest.approx(quality.loss, rel=1e-6)


class Backwards(CausalLM):
    """A task of a user's that predicts something else, and says nothing about features."""

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        logits, targets = super().predict(batch)
        return logits, targets.flip(0)


class Doubled(CausalLM):
    """A task with a loss of its own."""

    def step_nll(self, logits: Tensor, targets: Tensor) -> Tensor:
        return 2 * super().step_nll(logits, targets)


@pytest.mark.parametrize("kind", [Backwards, Doubled])
def test_a_task_of_the_users_own_keeps_its_predictions_and_its_loss(
    kind: type[base.Task], config: Configure, monkeypatch: pytest.MonkeyPatch
):
    run = config("model.context=32", "model.vocab_size=61")
    batch = batch_of(run)
    usual, own = step(task_of(run), batch)[0], step(task_of(run, kind), batch)[0]
    monkeypatch.setattr(base, "rows_at_a_time", lambda vocab, kind: 7)
    assert step(task_of(run, kind), batch)[0] == pytest.approx(own, rel=1e-6) != pytest.approx(usual, rel=1e-3)

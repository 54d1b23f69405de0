"""Evaluation during training: when it happens, and where the scores go."""

import io
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmexp.config.schema import RunConfig
from lmexp.errors import UserError
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir
from lmexp.runs.status import status
from lmexp.tasks.base import Quality
from lmexp.train.clock import Clock
from lmexp.train.curve import Diverged
from lmexp.train.evaluation import Evaluation
from lmexp.train.worker import main
from tests.train.parts import Parts, make_parts


@pytest.fixture
def parts(config: Callable[..., RunConfig], tmp_path: Path) -> Parts:
    return make_parts(config(), tmp_path, steps=4)


def saved(state: dict[str, Any]) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def evaluation_of(parts: Parts, every: float, patience: int | None = None) -> Evaluation:
    tokens = torch.randint(0, 257, (3, 33), generator=torch.Generator().manual_seed(0))
    batches = [{"inputs": tokens[:, :-1], "targets": tokens[:, 1:]}]
    return Evaluation(parts.progress, parts.curve, every, batches, text_bytes=96, patience=patience)


@pytest.mark.parametrize(("every", "steps"), [(0.5, [2, 4]), (0.25, [1, 2, 3, 4]), (1.0, [4]), (0.3, [2, 3, 4])])
def test_the_split_is_scored_at_each_share_of_the_budget_and_at_its_end(parts: Parts, every: float, steps: list[int]):
    evaluation = evaluation_of(parts, every)
    for _ in range(4):
        parts.step()
        evaluation.on_step_end(parts.trainer, parts.task)
    assert parts.points("step") == steps


def test_the_point_has_the_scores_of_the_task(parts: Parts):
    evaluation = evaluation_of(parts, 1.0)
    expected = parts.task.evaluate(evaluation.batches, 96)
    for _ in range(4):
        assert evaluation.quality is None
        parts.step()
        evaluation.on_step_end(parts.trainer, parts.task)
    assert evaluation.quality == expected and expected.tokens == 96
    (point,) = parts.run.read_curve()
    for name in ("loss", "perplexity", "bits_per_byte", "accuracy"):
        assert point[name] == getattr(expected, name)


def test_a_validation_loss_that_is_not_finite_has_diverged(parts: Parts):
    with torch.no_grad():
        next(parts.task.parameters()).fill_(float("nan"))
    evaluation = evaluation_of(parts, 0.25)
    parts.step()
    with pytest.raises(Diverged, match="the validation loss is nan at step 1"):
        evaluation.on_step_end(parts.trainer, parts.task)
    assert evaluation.quality is None and parts.run.read_curve() == []


def test_without_a_lower_loss_for_too_long_training_ends_and_the_best_weights_are_kept(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
):
    evaluation = evaluation_of(parts, 0.25, patience=2)
    losses = iter([3.0, 2.0, 2.0, 2.5])
    monkeypatch.setattr(
        parts.task, "evaluate", lambda *sizes: Quality.from_sums(nll=next(losses), tokens=1, correct=0, text_bytes=None)
    )
    weight = next(parts.task.parameters())
    for step in range(1, 5):
        assert not parts.progress.done
        parts.step()
        with torch.no_grad():
            weight.fill_(step)
        if step == 3:  # what a checkpoint keeps is all that a resumed run needs
            kept = torch.load(saved(evaluation.state_dict()), weights_only=True)
            evaluation = evaluation_of(parts, 0.25, patience=2)
            evaluation.load_state_dict(kept)
        evaluation.on_step_end(parts.trainer, parts.task)
    assert parts.progress.is_ended is False and parts.trainer.should_stop is False, "the budget was spent anyway"
    assert (weight == 2).all() and evaluation.quality is not None and evaluation.quality.loss == 2.0
    assert evaluation.best is not None and evaluation.best.tokens == 2 * 256


@pytest.mark.parametrize("stops_at", [None, 6])
def test_a_run_whose_loss_falls_no_more_stops_early_also_if_it_is_resumed(
    make_run: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch, stops_at: int | None
):
    run = make_run("evaluation.every=0.2", "evaluation.patience=2", "optim.lr=1e-30")  # 4 steps to an evaluation
    if stops_at is not None:
        before = Clock.on_step_end

        def stop(self: Clock, trainer: Any, task: Any) -> None:
            before(self, trainer, task)
            if self.progress.steps == stops_at:
                signal.raise_signal(signal.SIGTERM)

        with monkeypatch.context() as patch:
            patch.setattr(Clock, "on_step_end", stop)
            assert main(run.path) == 1 and run.read_state().state == "cancelled"
    assert main(run.path) == 0
    (row,) = run.read_record()
    budget = run.read_config().budget.tokens
    assert budget is not None and (row["tokens"], row["best_tokens"]) == (0.6 * budget, 0.2 * budget)
    assert run.read_state().state == "done" and row["word_perplexity"] > row["perplexity"]
    assert max(point["tokens"] for point in run.read_curve() if "train_loss" in point) == row["tokens"]
    assert [known["share"] for known in status(run.path.parent)] == [1.0]
    targets = math.log(row["word_perplexity"]) * row["validation_words"] / row["loss"]
    assert targets == pytest.approx(round(targets), abs=1e-6)


def test_a_copy_of_all_weights_is_refused_where_no_process_has_them_all(small: list[str], tmp_path: Path):
    words = [*small, "evaluation.patience=1", "trainer.strategy=fsdp", "trainer.devices=2", "trainer.accelerator=cpu"]
    with pytest.raises(UserError, match=r"evaluation\.patience keeps a copy of all weights.*use ddp"):
        resolve_sweep(None, words, tmp_path)

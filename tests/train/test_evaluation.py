"""Evaluation during training: when it happens, and where the scores go."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lmexp.config.schema import RunConfig
from lmexp.train.curve import Diverged
from lmexp.train.evaluation import Evaluation
from tests.train.parts import Parts, make_parts


@pytest.fixture
def parts(config: Callable[..., RunConfig], tmp_path: Path) -> Parts:
    return make_parts(config(), tmp_path, steps=4)


def evaluation_of(parts: Parts, every: float) -> Evaluation:
    tokens = torch.randint(0, 257, (3, 33), generator=torch.Generator().manual_seed(0))
    batches = [{"inputs": tokens[:, :-1], "targets": tokens[:, 1:]}]
    return Evaluation(parts.progress, parts.curve, every, batches, text_bytes=96)


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

"""Steps that loss scaling skips are counted, by a real scaler on the CPU."""

from types import SimpleNamespace
from typing import Any

import torch

from lmexp.cost.horizon import Horizon
from lmexp.train.progress import Progress
from lmexp.train.skipped_steps import SkippedSteps

PROGRESS = Progress(Horizon(steps=10), 256, 8)


def train(scaler: torch.amp.GradScaler, gradients: list[float], skipped: SkippedSteps) -> None:
    """Do a step with each of these gradients."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    trainer: Any = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))
    for gradient in gradients:
        optimizer.zero_grad()
        scaler.scale((weight * gradient).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        skipped.on_step_end(trainer, SimpleNamespace())  # type: ignore[arg-type]


def test_only_steps_whose_gradients_overflow_are_counted_and_a_resumed_run_counts_on():
    # The scale doubles after two good steps, which is not to be taken for a skipped step, nor to hide one.
    scaler, skipped = torch.amp.GradScaler("cpu", growth_interval=2), SkippedSteps(PROGRESS)
    train(scaler, [torch.inf, 1.0, 1.0, torch.nan, 1.0, torch.inf], skipped)
    assert skipped.count == 3
    again, resumed = torch.amp.GradScaler("cpu"), SkippedSteps(PROGRESS)
    again.load_state_dict(scaler.state_dict())
    resumed.load_state_dict(skipped.state_dict())
    train(again, [1.0, torch.inf], resumed)
    assert resumed.count == 4


def test_without_loss_scaling_the_number_is_null():
    skipped = SkippedSteps(PROGRESS)
    skipped.on_step_end(SimpleNamespace(precision_plugin=SimpleNamespace()), SimpleNamespace())  # type: ignore[arg-type]
    assert skipped.count is None

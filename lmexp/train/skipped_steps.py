"""The optimizer steps that fp16's loss scaling skips: they count as trained, but change no weight.

The loss is multiplied by a scale, so that small gradients do not vanish in fp16. If a gradient overflows, the scaler
skips the step and halves the scale (Micikevicius et al. 2018, "Mixed precision training", section 3.2).
"""

from typing import Any

import pytorch_lightning as pl
import torch

from lmexp.tasks.base import Task
from lmexp.train.callbacks import StepCallback
from lmexp.train.progress import Progress


class SkippedSteps(StepCallback):
    """Counts the steps after which the scale is lower than before."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress)
        self._before: int | None = None
        """Steps that were skipped before the checkpoint that the run continues from."""
        self._count: torch.Tensor | None = None
        self._scale: torch.Tensor | None = None

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Compare the scale with the one before, on the device: get_scale would make each step wait for it."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is None:
            return
        scale = scaler._scale
        if self._count is None or self._scale is None:
            self._count = torch.zeros_like(scale, dtype=torch.int64)
            self._scale = torch.full_like(scale, scaler._init_scale)
        self._count += scale < self._scale
        self._scale.copy_(scale)

    @property
    def count(self) -> int | None:
        """How many steps were skipped so far, over all attempts; None without loss scaling. Waits for the device."""
        return self._before if self._count is None else (self._before or 0) + int(self._count)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        self._before = state_dict["count"]

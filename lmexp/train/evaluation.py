"""Evaluation during training: the whole validation split is scored at each share of the budget and at its end.

The test split, if there is one, is scored once, at the end of the budget.
"""

import math
from collections.abc import Iterable

import pytorch_lightning as pl

from lmexp.tasks.base import Batch, Quality, Task
from lmexp.train.callbacks import StepCallback
from lmexp.train.curve import Curve, Diverged
from lmexp.train.progress import Progress


class Evaluation(StepCallback):
    """Scores the validation split and adds the scores to the curve."""

    def __init__(
        self,
        progress: Progress,
        curve: Curve,
        every: float,
        batches: Iterable[Batch],
        text_bytes: int | None,
        test: tuple[Iterable[Batch], int | None] | None = None,
    ) -> None:
        """`every` is a share of the budget; `text_bytes` is the size in UTF-8 of the text that is scored.

        `test` is the same two for the test split.
        """
        super().__init__(progress)
        self.curve, self.every, self.batches, self.text_bytes = curve, every, batches, text_bytes
        self.quality: Quality | None = None
        """The last scores; None before the first evaluation."""
        self.test = test
        self.test_quality: Quality | None = None
        """The scores on the test split; None before the end."""

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Score the split if an evaluation is due. Raises Diverged if the loss is not finite."""
        if not self.progress.due(self.every):
            return
        quality = task.evaluate(self.batches, self.text_bytes)
        if not math.isfinite(quality.loss):
            raise Diverged(f"the validation loss is {quality.loss} at step {self.progress.steps}")
        self.quality = quality
        self.curve.write(
            trainer,
            loss=quality.loss,
            perplexity=quality.perplexity,
            bits_per_byte=quality.bits_per_byte,
            accuracy=quality.accuracy,
        )
        if self.progress.done and self.test is not None:
            self.test_quality = task.evaluate(*self.test)

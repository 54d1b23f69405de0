"""Evaluation during training: the whole validation split is scored at each share of the budget and at its end.

With a patience, training stops when the validation loss stops falling, and the weights of the lowest loss are kept.
These weights are part of last.ckpt, in the state of this callback: a file of their own could be newer than the
checkpoint that a run goes on from, and hold weights of an evaluation that it has not made.

The test split, if there is one, is scored once, at the end of training, with the weights that are kept.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from lmexp.tasks.base import Batch, Quality, Task
from lmexp.train.callbacks import StepCallback
from lmexp.train.curve import Curve, Diverged
from lmexp.train.progress import Progress
from lmexp.units import counted


@dataclass(frozen=True)
class Best:
    """The evaluation with the lowest loss so far."""

    quality: Quality
    tokens: int
    """Tokens trained on when it was made."""
    weights: dict[str, Tensor]
    """The task's weights then, on the CPU."""


class Evaluation(StepCallback):
    """Scores the validation split and adds the scores to the curve."""

    def __init__(
        self,
        progress: Progress,
        curve: Curve,
        every: float,
        batches: Iterable[Batch],
        text_bytes: int | None,
        text_words: int | None = None,
        patience: int | None = None,
        test: tuple[Iterable[Batch], int | None, int | None] | None = None,
    ) -> None:
        """Score `batches` after each share `every` of the budget.

        Args:
            text_bytes: the size in UTF-8 of the text that is scored.
            text_words: its words.
            patience: how many evaluations in a row may bring no lower loss before training ends.
            test: batches, bytes and words of the test split.
        """
        super().__init__(progress)
        self.curve, self.every, self.batches = curve, every, batches
        self.text_bytes, self.text_words, self.patience = text_bytes, text_words, patience
        self.quality: Quality | None = None
        """The last scores; None before the first evaluation."""
        self.test = test
        self.test_quality: Quality | None = None
        """The scores on the test split; None before the end."""
        self.best: Best | None = None
        """None without a patience."""
        self._without_better = 0
        """Evaluations since the best one."""

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Score the split if an evaluation is due. Raises Diverged if the loss is not finite."""
        if not self.progress.due(self.every):
            return
        quality = task.evaluate(self.batches, self.text_bytes, self.text_words)
        if not math.isfinite(quality.loss):
            raise Diverged(f"the validation loss is {quality.loss} at step {self.progress.steps}")
        self.quality = quality
        self.curve.write(
            trainer,
            loss=quality.loss,
            perplexity=quality.perplexity,
            word_perplexity=quality.word_perplexity,
            bits_per_byte=quality.bits_per_byte,
            accuracy=quality.accuracy,
        )
        if self.patience is not None:
            self._compare(trainer, task, quality, self.patience)
        if self.progress.done:
            self._keep_best(task)
            if self.test is not None:
                self.test_quality = task.evaluate(*self.test)

    def _compare(self, trainer: pl.Trainer, task: Task, quality: Quality, patience: int) -> None:
        """Keep the weights if they are the best so far; end training if the last ones have not been for too long."""
        if self.best is None or quality.loss < self.best.quality.loss:
            weights = {name: weight.detach().to("cpu", copy=True) for name, weight in task.state_dict().items()}
            self.best, self._without_better = Best(quality, self.progress.tokens, weights), 0
            return
        self._without_better += 1
        if self._without_better >= patience and not self.progress.done:
            self.progress.is_ended = trainer.should_stop = True
            if trainer.is_global_zero:
                evaluations = counted(patience, "evaluation")
                print(f"step {self.progress.steps:,}  stopped: {evaluations} without a lower validation loss")

    def _keep_best(self, task: Task) -> None:
        """Give the task the weights of the best evaluation; without a patience, it keeps those that it has."""
        if self.best is not None:
            task.load_state_dict(self.best.weights)
            self.quality = self.best.quality

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        if self.best is None:
            return {}
        best = {"quality": asdict(self.best.quality), "tokens": self.best.tokens, "weights": self.best.weights}
        return {"best": best, "without_better": self._without_better}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        best = state_dict["best"]
        self.best = Best(Quality(**best["quality"]), best["tokens"], best["weights"])
        self._without_better = state_dict["without_better"]

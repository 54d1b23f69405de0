"""What happens around each optimizer step: one callback for each subject, which run in this order.

    Clock          (clock.py)       counts and times steps, sets the learning rate, stops when the budget is spent
    Curve          (curve.py)       writes points of the training loss, and notices when the run has diverged
    SkippedSteps   (skipped_steps.py) counts the steps that fp16's loss scaling skips
    Evaluation     (evaluation.py)  scores the validation split, and stops the run when its loss stops falling
    Saving         (saving.py)      keeps last.ckpt and trunk.ckpt, and stops the run when a signal asked for it
    Spending       (spending.py)    counts wall time and energy, over all attempts
    DtypeReader    (dtypes.py)      reads which types the tensors are stored and multiplied in
    Privacy        (privacy.py)     keeps the noise and the count of drawn sequences of a private run in checkpoints
    NextStepTimer  (clock.py)       starts the timers of the next step and of the wait for the next micro-batch

Callbacks from outside lmexp, which a config lists, follow Clock: a checkpoint holds their state of the same step.
A checkpoint keeps the state of a callback under the name of its class, so `Clock`, `Curve`, `SkippedSteps`,
`Evaluation` and `Spending` keep theirs.
"""

from typing import Any

import pytorch_lightning as pl

from lmexp.tasks.base import Task
from lmexp.train.progress import Progress


class StepCallback(pl.Callback):
    """A callback that acts once after each whole optimizer step.

    Lightning calls its own hook after every forward pass, of which a step with gradient accumulation has several.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Call `on_step_end` if this forward pass was the last one of an optimizer step."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            assert isinstance(task, Task)
            self.on_step_end(trainer, task)

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Act after an optimizer step."""

"""Saving during training: last.ckpt is replaced at each share of the budget, and when a signal stops the run.

Where the cool-down to a milestone begins, the same state becomes trunk.ckpt: from there the run goes on after it.
"""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from lmexp.cost.step_meter import StepMeter
from lmexp.files import flush_to_disk
from lmexp.runs.directory import RunDir
from lmexp.tasks.base import Task
from lmexp.train.callbacks import StepCallback
from lmexp.train.checkpoint import last_checkpoint, trunk_checkpoint
from lmexp.train.old_checkpoint import stack_checkpoint
from lmexp.train.progress import Progress
from lmexp.train.stopping import Signals, Stopped


class Saving(StepCallback):
    """Keeps last.ckpt. It is replaced as a whole, so there is always one that can be read."""

    def __init__(self, progress: Progress, meter: StepMeter, run: RunDir, signals: Signals, every: float) -> None:
        """`every` is a share of the budget."""
        super().__init__(progress)
        self.meter, self.run, self.signals, self.every = meter, run, signals, every
        self.file = last_checkpoint(run)

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Tell the signals that training has started: from now on a stop saves a checkpoint first."""
        self.signals.wait_for_step()

    def on_save_checkpoint(self, trainer: pl.Trainer, task: pl.LightningModule, checkpoint: Any) -> None:
        """Leave out Lightning's own counters: only Progress counts, also in a resumed run."""
        checkpoint.pop("loops", None)

    def on_load_checkpoint(self, trainer: pl.Trainer, task: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Bring a checkpoint of an earlier version into today's form, before the optimizer and callbacks read it."""
        assert isinstance(task, Task)
        stack_checkpoint(checkpoint, task)

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Save if a checkpoint is due or a signal came. Raises Stopped after a signal.

        After the last step nothing else is saved here: the final weights are about to be written, and the run finishes.
        """
        if self.progress.is_branching:
            self.meter.close()
            self._save(trainer, trunk_checkpoint(self.run))
        if self.progress.done:
            return
        stop = self.signals.requested if trainer.world_size == 1 else self.signals.agreed
        if stop:
            self.meter.close()  # still open if this step was neither a point nor an evaluation
        if stop or self.progress.due(self.every):
            self._save(trainer, self.file)
        if stop:
            self.signals.ignored = True
            raise Stopped(stop, f"after step {self.progress.steps:,}; running the sweep again continues from there")

    def _save(self, trainer: pl.Trainer, file: Path) -> None:
        draft = file.with_suffix(".draft")
        trainer.save_checkpoint(draft, weights_only=False)
        if trainer.is_global_zero:
            flush_to_disk(draft)
            self.run.flush_curve()
            draft.replace(file)
            flush_to_disk(file.parent)

"""The clock of a run: it counts and times steps, sets the learning rate and stops the run when its budget is spent."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from lmexp.config.schema import RunConfig
from lmexp.cost.memory_meter import MemoryMeter
from lmexp.cost.step_meter import WARMUP_STEPS, StepMeter
from lmexp.tasks.base import Task
from lmexp.tasks.optim import set_lr
from lmexp.train.callbacks import StepCallback
from lmexp.train.progress import Progress
from lmexp.train.schedule import open_schedule


class Clock(StepCallback):
    """The first callback of a step: it times the step, sets its learning rate and its random seed, and counts it."""

    def __init__(
        self, progress: Progress, meter: StepMeter, config: RunConfig, memory: MemoryMeter | None = None
    ) -> None:
        super().__init__(progress)
        self.meter, self.config, self.memory = meter, config, memory
        self._schedule = open_schedule(config.schedule)

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Start the timer of the first step, once everything is built."""
        self.meter.rest()

    def on_train_batch_start(self, trainer: pl.Trainer, task: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """End the wait for the micro-batch; if it is the first of a step, set the learning rate and the random seed.

        Like the order of the data, dropout depends on the seed and on the number of finished steps, and on nothing
        else, so a resumed run draws the same random numbers as one that was never stopped. Each rank draws its own.
        """
        self.meter.begin()
        if batch_idx % trainer.accumulate_grad_batches:
            return
        sequence = np.random.SeedSequence([self.config.seed, self.progress.steps, trainer.global_rank])
        _set_random_seed(int(sequence.generate_state(1, np.uint64)[0]), task.device)
        assert isinstance(task, Task)
        shares = self.progress.share_after_step, self.progress.run_share_after_step
        task.lr = self.config.optim.peak_lr * float(self._schedule(*shares))
        set_lr(trainer.optimizers[0], task.lr)

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Count the step, and close the time window if something other than training comes next."""
        self.meter.end()
        if self.memory is not None:
            self.memory.step()
        one_clock_for_all = self.progress.length.seconds is not None and trainer.world_size > 1
        if one_clock_for_all:
            self.meter.close()  # the broadcast below waits for the device, and that time belongs to this step
        # The first steps may compile the model, so their time does not predict that of the next steps.
        is_warm = self.progress.steps >= WARMUP_STEPS
        step_seconds = self.meter.recent_step_seconds(self.config.trainer.log_every) if is_warm else 0.0
        times = (self.meter.seconds, step_seconds)
        if one_clock_for_all:
            times = trainer.strategy.broadcast(times)  # with clocks of their own, ranks would stop at different steps
        self.progress.advance(*times)
        pauses = (self.config.evaluation.every, self.config.checkpoint.every)
        if self.progress.is_point(self.config.trainer.log_every) or any(map(self.progress.due, pauses)):
            self.meter.close()
        if self.progress.done:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"progress": self.progress.state_dict(), "meter": self.meter.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        self.progress.load_state_dict(state_dict["progress"])
        self.meter.load_state_dict(state_dict["meter"])


class NextStepTimer(StepCallback):
    """The last callback: it starts the timers of the next step and of the wait for the next micro-batch.

    So the time that the callbacks before it take counts as neither.
    """

    def __init__(self, progress: Progress, meter: StepMeter) -> None:
        super().__init__(progress)
        self.meter = meter

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start to count the wait for the next micro-batch, which Lightning asks for now."""
        self.meter.await_batch()
        super().on_train_batch_end(trainer, task, outputs, batch, batch_idx)

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Start the timer of the next step."""
        self.meter.rest()


def _set_random_seed(seed: int, device: torch.device) -> None:
    """Seed the random generators of a device. torch.manual_seed would look for every kind of device at each step."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)

"""What happens around each optimizer step, one callback a subject, in the order in which they run.

    Clock        counts and times steps, sets the learning rate, stops when the budget is spent
    Curve        writes points of the training loss, and notices when the run has diverged
    Evaluation   scores the validation split
    Saving       keeps last.ckpt, and leaves when the run was asked to stop
    Spending     counts wall time and energy, over all attempts
    Witness      reads off what tensors are stored and multiplied in
    Rest         starts the next step's clock

Lightning calls them after every forward pass; all but Clock act only when a whole optimizer step is done.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from lmexp.config.schema import RunConfig
from lmexp.cost.energy import EnergyMeter
from lmexp.cost.meters import WARMUP_STEPS, MemoryMeter, StepMeter
from lmexp.files import flush_to_disk
from lmexp.runs.directory import RunDir
from lmexp.runs.mirrors import Mirror
from lmexp.tasks.base import Batch, Quality, Task
from lmexp.train.dtypes import ComputeWitness, stored_dtypes
from lmexp.train.progress import Progress
from lmexp.train.schedule import rate
from lmexp.train.stopping import Signals, Stopped


class Diverged(Exception):
    """The loss is no longer a number, or stays far above where it began: a result, not a mistake."""


class StepCallback(pl.Callback):
    """A callback that acts once a whole optimizer step is done."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook, after every forward pass."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            assert isinstance(task, Task)
            self.on_step_end(trainer, task)

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Called when an optimizer step is done."""


class Clock(StepCallback):
    """Counts and times steps, sets the learning rate, stops when the budget is spent."""

    def __init__(
        self, progress: Progress, meter: StepMeter, config: RunConfig, memory: MemoryMeter | None = None
    ) -> None:
        super().__init__(progress)
        self.meter, self.config, self.memory = meter, config, memory

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Start the first step's clock, once everything is built."""
        self.meter.rest()

    def on_train_batch_start(self, trainer: pl.Trainer, task: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the rate, and the dice, when a step's first batch is here.

        Like the order of data, dropout is a function of the seed and of how far the run has come, and of
        nothing else: a resumed run draws what an undisturbed one draws. No two ranks draw the same.
        """
        if batch_idx % trainer.accumulate_grad_batches:
            return
        self.meter.begin()
        dice = np.random.SeedSequence([self.config.seed, self.progress.steps, trainer.global_rank])
        _throw(int(dice.generate_state(1, np.uint64)[0]), task.device)
        now = self.config.optim.lr * rate(self.config.schedule, self.progress.share_after_step)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = now

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Count the step, and close the window where something else comes next."""
        self.meter.end()
        if self.memory is not None:
            self.memory.step()
        shared_clock = self.progress.length.seconds is not None and trainer.world_size > 1
        if shared_clock:
            self.meter.close()  # a broadcast waits for the device, and that is time of this step
        # The first steps, which may compile, say nothing of the next.
        settled = self.progress.steps >= WARMUP_STEPS
        each = self.meter.recent_step_seconds(self.config.trainer.log_every) if settled else 0.0
        seconds = (self.meter.seconds, each)
        if shared_clock:
            seconds = trainer.strategy.broadcast(seconds)  # one clock decides, or ranks would part ways
        self.progress.advance(*seconds)
        pauses = (self.config.evaluation.every, self.config.checkpoint.every)
        if self.progress.is_point(self.config.trainer.log_every) or any(map(self.progress.due, pauses)):
            self.meter.close()
        if self.progress.done:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"progress": self.progress.state_dict(), "meter": self.meter.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.progress.load_state_dict(state_dict["progress"])
        self.meter.load_state_dict(state_dict["meter"])


def _throw(seed: int, device: torch.device) -> None:
    """Seed what draws on a device; torch.manual_seed asks for every kind of device there may be, at each step."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


class Curve(StepCallback):
    """Writes the curve, to the run directory and to the mirror, and the run's state for those who watch."""

    def __init__(
        self,
        progress: Progress,
        meter: StepMeter,
        config: RunConfig,
        run: RunDir,
        mirror: Mirror,
        flops: float,
        signals: Signals | None = None,
    ) -> None:
        super().__init__(progress)
        self.meter, self.config, self.run, self.mirror = meter, config, run, mirror
        self.flops_per_token, self.signals = flops, signals or Signals()
        self.train_loss: float | None = None
        self._first_loss: float | None = None
        self._high_since: float | None = None
        """The share of the budget since which the loss has been too high."""

    @property
    def tokens_per_second(self) -> float | None:
        """Throughput at present; None before the first step's time is known."""
        return self.meter.recent_tokens_per_second(self.config.trainer.log_every)

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Write a point every so many steps, at the first and at the last."""
        loss, task.step_loss = task.step_loss, None
        progress = self.progress
        if not progress.is_point(self.config.trainer.log_every):
            return
        assert loss is not None
        value = float(loss) if trainer.world_size == 1 else self._over_processes(trainer, loss)
        if not math.isfinite(value):
            raise Diverged(f"the training loss is {value} at step {progress.steps}")
        self.train_loss = value
        self.write(
            trainer,
            train_loss=value,
            grad_norm=None if task.grad_norm is None else float(task.grad_norm),
            lr=trainer.optimizers[0].param_groups[0]["lr"],
            tokens_per_second=self.tokens_per_second,
        )
        self._check_height(value)

    def _over_processes(self, trainer: pl.Trainer, loss: Tensor) -> float:
        """Return the loss over all processes, which tell each other in the same breath who was asked to stop."""
        asked = [float(self.signals.asked == outcome) for outcome in ("cancelled", "preempted")]
        told = trainer.strategy.reduce(torch.stack([loss, *loss.new_tensor(asked)]), reduce_op="sum")
        value, cancelled, preempted = told.tolist()
        self.signals.agreed = "cancelled" if cancelled else "preempted" if preempted else None
        return value

    def _check_height(self, loss: float) -> None:
        """Raise Diverged when the loss has been too high for too long."""
        limit, progress = self.config.divergence, self.progress
        if progress.steps == 1:
            self._first_loss = loss
        first = self._first_loss  # unknown to a checkpoint of before this was kept
        if first is None or limit.multiple is None or loss <= limit.multiple * first:
            self._high_since = None
            return
        if self._high_since is None:
            self._high_since = progress.share
        if progress.share - self._high_since >= limit.share - 1e-9:
            raise Diverged(
                f"the training loss has been above {limit.multiple:g} times its first value "
                f"({loss:.4g} > {limit.multiple:g} x {first:.4g}) for {100 * limit.share:g} % of the budget"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, so that a resumed run is given up where an undisturbed one is."""
        return {"first_loss": self._first_loss, "high_since": self._high_since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._first_loss, self._high_since = state_dict["first_loss"], state_dict["high_since"]

    def write(self, trainer: pl.Trainer, **values: float | None) -> None:
        """Append a point at the present step; only the first of several processes writes."""
        if not trainer.is_global_zero:
            return
        tokens = self.progress.tokens
        point = {
            "step": self.progress.steps,
            "tokens": tokens,
            "flops": float(tokens) * self.flops_per_token,
            "seconds": round(self.meter.train_seconds, 4),
            # The first steps of fp16 overflow by design: JSON, and a curve, have no place for infinity.
            **{name: value for name, value in values.items() if value is not None and math.isfinite(value)},
        }
        self.run.append_point(point)
        self.mirror.log(point)
        if "loss" in point:
            print(f"step {point['step']:,}  {tokens:,} tokens  validation loss {point['loss']:.4f}")


class Evaluation(StepCallback):
    """Scores the whole validation split at each share of the budget, and at its end."""

    def __init__(
        self, progress: Progress, curve: Curve, every: float, batches: Iterable[Batch], text_bytes: int | None
    ) -> None:
        super().__init__(progress)
        self.curve, self.every, self.batches, self.text_bytes = curve, every, batches, text_bytes
        self.quality: Quality | None = None
        """The last score."""

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Score where it is due."""
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


class Saving(StepCallback):
    """Keeps last.ckpt: replaced whole, so that there always is one that can be read; the last one, if asked to stop."""

    def __init__(self, progress: Progress, curve: Curve, every: float, file: Path) -> None:
        super().__init__(progress)
        self.curve, self.signals, self.every, self.file = curve, curve.signals, every, file

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """From here on there is something to save."""
        self.signals.train()

    def on_save_checkpoint(self, trainer: pl.Trainer, task: pl.LightningModule, checkpoint: Any) -> None:
        """Leave Lightning's own counters out: Progress is the one count, also of a resumed run."""
        checkpoint.pop("loops", None)

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Save where it is due or the run is to stop; the end has files of its own, and is not given up."""
        if self.progress.done:
            return
        stop = self.signals.asked if trainer.world_size == 1 else self.signals.agreed
        if stop:
            self.curve.meter.close()  # open only where neither a point nor a score has taken time since the step
        if stop or self.progress.due(self.every):
            self._save(trainer)
        if stop:
            self.signals.deaf = True
            raise Stopped(stop, f"after step {self.progress.steps:,}; running the sweep again goes on from there")

    def _save(self, trainer: pl.Trainer) -> None:
        draft = self.file.with_suffix(".draft")
        trainer.save_checkpoint(draft, weights_only=False)
        if trainer.is_global_zero:
            flush_to_disk(draft)
            self.curve.run.flush_curve()
            draft.replace(self.file)
            flush_to_disk(self.file.parent)


@dataclass(frozen=True)
class Spent:
    """What a run has used up, of all that its result is made of."""

    wall_seconds: float
    joules: float | None
    """Of all devices; None where nobody can tell."""
    source: str | None
    """How the energy was found."""


class Spending(pl.Callback):
    """Counts wall time and energy: of this attempt, and of earlier ones up to the checkpoint it goes on from."""

    def __init__(self, energy: EnergyMeter, started: float) -> None:
        """`started` is when this process began, in seconds since the epoch."""
        self.energy, self.started = energy, started
        self.trainer: pl.Trainer | None = None
        self.before = self.spent = Spent(0.0, 0.0, None)

    def setup(self, trainer: pl.Trainer, task: pl.LightningModule, stage: str) -> None:
        """Know the Trainer: other processes have meters of their own."""
        self.trainer = trainer

    def on_train_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Add up what all processes used while they still hear each other."""
        self.spent = self.total(trainer)

    def sample(self) -> None:
        """Read the counter, which may begin again from 0 if it is read too seldom."""
        self.energy.sample()

    def total(self, trainer: pl.Trainer) -> Spent:
        """Return what was spent, summed over processes; all of them must ask."""
        joules = self.energy.joules()
        parts = [joules or 0.0, float(joules is None), float(self.energy.source == "estimated")]
        counts = torch.tensor(parts, dtype=torch.float64)
        if trainer.world_size > 1:
            counts = trainer.strategy.reduce(counts.to(trainer.strategy.root_device), reduce_op="sum")
        used, unknown, estimated = counts.tolist()
        before = self.before.joules
        # An estimate in any part, of a process or an earlier attempt, makes the whole one.
        is_estimate = estimated or self.before.source not in (None, self.energy.source)
        return Spent(
            wall_seconds=self.before.wall_seconds + time.time() - self.started,
            joules=None if unknown or before is None else used + before,
            source="estimated" if is_estimate else self.energy.source,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; Lightning asks every process."""
        assert self.trainer is not None, "asked while a Trainer saves"
        return asdict(self.total(self.trainer))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.before = Spent(**state_dict)


class Witness(pl.Callback):
    """Reads what tensors are stored and multiplied in off the live objects, at the end of training."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = batches
        self.dtypes: dict[str, str | None] = {}

    def on_train_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Lightning's hook: gradients and optimizer state still exist, where they were."""
        assert isinstance(task, Task)
        self.dtypes = stored_dtypes(task.model, trainer.optimizers[0])
        one = {name: value[:1].to(task.device) for name, value in next(iter(self.batches)).items()}
        plain = torch.compiler.set_stance("force_eager")
        with torch.no_grad(), trainer.precision_plugin.forward_context(), plain, ComputeWitness() as seen:
            task.predict(one)
        self.dtypes["dtype_compute"] = seen.dtype


class Rest(StepCallback):
    """Comes last: what lay between two steps is over."""

    def __init__(self, progress: Progress, meter: StepMeter) -> None:
        super().__init__(progress)
        self.meter = meter

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Start the next step's clock."""
        self.meter.rest()

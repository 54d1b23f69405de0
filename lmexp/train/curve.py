"""The learning curve of a run: points of the training loss, and the decision that the run has diverged."""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from lmexp.config.schema import RunConfig
from lmexp.cost.step_meter import StepMeter
from lmexp.runs.directory import RunDir
from lmexp.runs.mirrors.mirror import Mirror
from lmexp.tasks.base import Task
from lmexp.train.callbacks import StepCallback
from lmexp.train.progress import Progress
from lmexp.train.stopping import Signals


class Diverged(Exception):
    """The loss is no longer a finite number, or stays far above its first value. This is a result, not an error."""


class Curve(StepCallback):
    """Writes the curve to the run directory and to the mirror, and raises Diverged."""

    def __init__(
        self,
        progress: Progress,
        meter: StepMeter,
        config: RunConfig,
        run: RunDir,
        mirror: Mirror,
        flops_per_token: float,
        signals: Signals | None = None,
    ) -> None:
        super().__init__(progress)
        self.meter, self.config, self.run, self.mirror = meter, config, run, mirror
        self.flops_per_token, self.signals = flops_per_token, signals or Signals()
        self.train_loss: float | None = None
        """The training loss at the last point, in nats per target."""
        self._first_loss: float | None = None
        self._high_since: float | None = None
        """The share of the budget since which the loss has been too high; None while it is not."""

    @property
    def tokens_per_second(self) -> float | None:
        """Throughput of the last steps; None before the time of a step is known."""
        return self.meter.recent_tokens_per_second(self.config.trainer.log_every)

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Write a point at the first step, at every `trainer.log_every`-th step and at the last step.

        With early stopping, every evaluation gets a point: training may end there, and that is known only later.
        """
        step_loss, task.step_loss = task.step_loss, None
        progress = self.progress
        may_end = self.config.evaluation.patience is not None and progress.due(self.config.evaluation.every)
        if not (may_end or progress.is_point(self.config.trainer.log_every)):
            return
        if step_loss is None:
            assert task.private is not None, "only a private step can have drawn no sequence"
            return
        loss = float(step_loss) if trainer.world_size == 1 else self._over_processes(trainer, step_loss)
        if not math.isfinite(loss):
            raise Diverged(f"the training loss is {loss} at step {progress.steps}")
        self.train_loss = loss
        self.write(
            trainer,
            train_loss=loss,
            grad_norm=None if task.grad_norm is None else float(task.grad_norm),
            lr=task.lr,
            tokens_per_second=self.tokens_per_second,
        )
        self._check_height(loss)

    def _over_processes(self, trainer: pl.Trainer, loss: Tensor) -> float:
        """Return the loss summed over all processes; the same exchange tells each whether one of them was signalled."""
        requests = [float(self.signals.requested == outcome) for outcome in ("cancelled", "preempted")]
        sums = trainer.strategy.reduce(torch.stack([loss, *loss.new_tensor(requests)]), reduce_op="sum")
        total, cancelled, preempted = sums.tolist()
        self.signals.agreed = "cancelled" if cancelled else "preempted" if preempted else None
        return total

    def _check_height(self, loss: float) -> None:
        """Raise Diverged if the loss has been too high for too long."""
        limit, progress = self.config.divergence, self.progress
        if progress.steps == 1:
            self._first_loss = loss
        first = self._first_loss  # None if the checkpoint is older than this field
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
        """Return what a checkpoint keeps, so that a resumed run diverges where an undisturbed run does."""
        return {"first_loss": self._first_loss, "high_since": self._high_since, "share": self.progress.share}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        self._first_loss, self._high_since = state_dict["first_loss"], state_dict["high_since"]
        if self._high_since is not None:  # the trunk's checkpoint counts in shares of a shorter run
            self._high_since *= self.progress.share / state_dict.get("share", self.progress.share)

    def write(self, trainer: pl.Trainer, **values: float | None) -> None:
        """Append a point at the present step; only the first process of a run writes."""
        if not trainer.is_global_zero:
            return
        tokens = self.progress.tokens
        point = {
            "step": self.progress.steps,
            "tokens": tokens,
            "flops": float(tokens) * self.flops_per_token,
            "seconds": round(self.meter.train_seconds, 4),
            # The gradients of the first fp16 steps overflow by design; JSON has no infinity, so they are left out.
            **{name: value for name, value in values.items() if value is not None and math.isfinite(value)},
        }
        self.run.append_point(point)
        self.mirror.log(point)
        if "loss" in point:
            print(f"step {point['step']:,}  {tokens:,} tokens  validation loss {point['loss']:.4f}")

"""A trial: a few steps of a run's own training, timed, without evaluation, checkpoints or record."""

import math
import time
import traceback
from pathlib import Path

import pytorch_lightning as pl

from lmexp.config.schema import RunConfig
from lmexp.cost.energy import open_meter
from lmexp.cost.horizon import Horizon
from lmexp.cost.meters import WARMUP_STEPS, StepMeter
from lmexp.errors import reason_of
from lmexp.runs.directory import RunDir
from lmexp.runs.trials import Trial, write_trial
from lmexp.tasks.base import Task
from lmexp.train.callbacks import StepCallback
from lmexp.train.micro import fit_micro_batch
from lmexp.train.progress import Progress
from lmexp.train.training import Training
from lmexp.train.worker import is_leader, quieten

STEPS = 10
"""The fewest steps that are measured, unless a single one takes long."""
SECONDS = 2.0
"""The least time that is measured, warm-up apart."""
PATIENCE = 30.0
"""No further step after so long, if at least one has been measured."""


def main(path: Path) -> int:
    """Try the run in the directory `path` and leave trial.json there; 0 when that worked."""
    run = RunDir(path.resolve())
    quieten()
    try:
        fit_micro_batch(run.read_config(), lambda config: trial(run, config, is_leader()))
    except Exception as error:
        traceback.print_exc()
        if is_leader():
            run.update_state(state="failed", reason=reason_of(error))
        return 1
    return 0


def trial(run: RunDir, config: RunConfig, leader: bool) -> None:
    """Train until enough steps are measured, and write what they took."""
    training = Training(run, config, leader)
    progress = training.progress(Horizon(steps=10**9))
    enough = Enough(progress, training, leader)
    try:
        training.fit(progress, [enough])
    finally:
        training.release()
    if leader and enough.result is not None:
        write_trial(run, enough.result)


class Enough(StepCallback):
    """Ends a trial, and keeps what it showed."""

    def __init__(self, progress: Progress, training: Training, leader: bool) -> None:
        super().__init__(progress)
        self.training, self.leader = training, leader
        self.energy = open_meter(training.device, training.index, None, shares_machine=not leader)
        self.joules_at_start: float | None = None
        self.result: Trial | None = None

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Stop when there are enough steps and seconds; one clock decides for all processes."""
        meter = self.training.meter
        task.step_loss = None
        warmed, measured = _windows(meter)
        if warmed is not None and self.joules_at_start is None:
            self.joules_at_start = self.energy.joules()
        steps, seconds = measured
        long = seconds > SECONDS and steps >= STEPS
        stop = steps > 0 and (long or meter.seconds > PATIENCE)
        if trainer.world_size > 1:
            stop = trainer.strategy.broadcast(stop)
        if not stop:
            return
        trainer.should_stop = True
        joules = self._joules_per_step(trainer, steps)
        warm_steps, warm_seconds = warmed or (0, 0.0)
        self.result = Trial(
            step_seconds=seconds / steps,
            steps=steps,
            warmup_seconds=warm_seconds,
            warmup_steps=warm_steps,
            joules_per_step=joules,
            energy_source=self.energy.source if joules is not None else None,
            peak_memory_gb=self.training.memory.summary().get("peak_memory_gb"),
            measured=time.time(),
        )

    def _joules_per_step(self, trainer: pl.Trainer, steps: int) -> float | None:
        """Return the joules of a step over all devices, or None where one cannot tell."""
        used = self.energy.joules()
        mine = math.nan if used is None or self.joules_at_start is None else used - self.joules_at_start
        if trainer.world_size > 1:
            import torch

            total = torch.tensor(mine, dtype=torch.float64, device=self.training.root_device)
            mine = float(trainer.strategy.reduce(total, reduce_op="sum"))
        return None if math.isnan(mine) else mine / steps


def _windows(meter: StepMeter) -> tuple[tuple[int, float] | None, tuple[int, float]]:
    """Return steps and seconds of the warm-up (None while it lasts), and of the windows after it."""
    steps, seconds = 0, 0.0
    for i, (window_steps, window_seconds) in enumerate(meter.windows):
        steps, seconds = steps + window_steps, seconds + window_seconds
        if steps >= WARMUP_STEPS:
            rest = meter.windows[i + 1 :]
            return (steps, seconds), (sum(n for n, _ in rest), sum(s for _, s in rest))
    return None, (0, 0.0)

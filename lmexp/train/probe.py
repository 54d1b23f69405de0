"""A probe: a few steps of a run's own training, timed, without evaluation, checkpoints or record."""

import math
import time
import traceback
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch

from lmexp.config.failures import explain
from lmexp.config.outside import check_trust
from lmexp.config.schema import RunConfig
from lmexp.cost.contention import CpuWait
from lmexp.cost.horizon import Horizon
from lmexp.cost.step_meter import WARMUP_STEPS, StepMeter
from lmexp.runs.directory import RunDir
from lmexp.runs.probes import Probe, write_probe
from lmexp.tasks.base import Task
from lmexp.train.callbacks import StepCallback
from lmexp.train.micro_batch import fit_micro_batch
from lmexp.train.progress import Progress
from lmexp.train.spending import start_watch
from lmexp.train.training import Training
from lmexp.train.worker import is_leader, quieten

MIN_STEPS = 10
"""Steps that are measured, unless a step takes long."""
MIN_SECONDS = 2.0
"""Time that is measured, without the warm-up."""
MAX_SECONDS = 30.0
"""After this time no further step is measured, if at least one has been."""


def main(path: Path) -> int:
    """Probe the run in the directory `path`, write probe.json there, and return the exit code."""
    run = RunDir(path.resolve())
    quieten()
    try:
        config = run.read_config()
        check_trust(config)
        often = config.trainer.model_copy(update={"log_every": min(config.trainer.log_every, WARMUP_STEPS)})
        config = config.model_copy(update={"trainer": often})
        fit_micro_batch(config, lambda fitting: probe(run, fitting, is_leader()))
    except Exception as error:
        traceback.print_exc()
        if is_leader():
            run.update_state(state="failed", reason=explain(error))
        return 1
    return 0


def probe(run: RunDir, config: RunConfig, leader: bool) -> None:
    """Train until enough steps are measured, and write their timing."""
    training = Training(run, config, leader, start_watch(config, time.time()))
    progress = training.progress(Horizon(steps=10**9))
    stop = StopAfterProbe(progress, training)
    try:
        training.take_steps(progress, [stop])
    finally:
        alone = training.release()
    if leader and stop.result is not None:
        write_probe(run, replace(stop.result, exclusive=bool(alone)))


class StopAfterProbe(StepCallback):
    """Ends a probe when enough steps are measured, and keeps the result."""

    def __init__(self, progress: Progress, training: Training) -> None:
        super().__init__(progress)
        self.training = training
        self.energy = training.watch.energy
        self.share = training.device_share
        """The counter is for whole devices, and the runs that share them share their energy."""
        self.joules_at_start: float | None = None
        self.wait: CpuWait | None = None
        """Counts from the end of the warm-up."""
        self.result: Probe | None = None

    def on_step_end(self, trainer: pl.Trainer, task: Task) -> None:
        """Stop when there are enough steps and seconds; the clock of rank 0 decides for all processes."""
        meter = self.training.meter
        task.step_loss = None
        if not self.progress.is_point(self.training.config.trainer.log_every):  # inside a window no time is known
            return
        warmed, measured = _windows(meter)
        if warmed is not None and self.joules_at_start is None:
            self.joules_at_start = self.energy.joules()
        if warmed is not None and self.wait is None:
            self.wait = CpuWait()
        steps, seconds = measured
        is_enough = seconds > MIN_SECONDS and steps >= MIN_STEPS
        stop = steps > 0 and (is_enough or meter.seconds > MAX_SECONDS)
        if trainer.world_size > 1:
            stop = trainer.strategy.broadcast(stop)
        if not stop:
            return
        trainer.should_stop = True
        joules = self._joules_per_step(trainer, steps)
        warm_steps, warm_seconds = warmed or (0, 0.0)
        self.result = Probe(
            step_seconds=seconds / steps,
            steps=steps,
            warmup_seconds=warm_seconds,
            warmup_steps=warm_steps,
            joules_per_step=joules,
            energy_source=self.energy.source if joules is not None else None,
            measured=time.time(),
            cpu_wait_fraction=self.wait.fraction() if self.wait else None,
        )

    def _joules_per_step(self, trainer: pl.Trainer, steps: int) -> float | None:
        """Return the joules of a step, summed over all devices; None if one of them has no counter."""
        used, before = self.energy.joules(), self.joules_at_start
        is_counted = self.energy.source != "estimated"  # a plan computes that estimate itself, from the rated power
        mine = math.nan if used is None or before is None or not is_counted else (used - before) * self.share
        if trainer.world_size > 1:
            total = torch.tensor(mine, dtype=torch.float64, device=self.training.root_device)
            mine = float(trainer.strategy.reduce(total, reduce_op="sum"))
        return None if math.isnan(mine) else mine / steps


def _windows(meter: StepMeter) -> tuple[tuple[int, float] | None, tuple[int, float]]:
    """Return the steps and seconds of the warm-up (None while it lasts) and those of the windows after it."""
    steps, seconds = 0, 0.0
    for i, (window_steps, window_seconds) in enumerate(meter.windows):
        steps, seconds = steps + window_steps, seconds + window_seconds
        if steps >= WARMUP_STEPS:
            rest = meter.windows[i + 1 :]
            return (steps, seconds), (sum(n for n, _ in rest), sum(s for _, s in rest))
    return None, (0, 0.0)

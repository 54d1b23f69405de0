"""What a run has spent: wall time and energy, of this attempt and of the earlier attempts that it continues."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from lmexp.config.schema import RunConfig
from lmexp.cost.device import detect
from lmexp.cost.energy import EnergyMeter, open_meter
from lmexp.cost.hardware import hardware_here
from lmexp.train.stopping import local_rank


class Watch:
    """Counts the wall time and the energy of this process.

    It outlives a training that ran out of memory: the run has paid for that one too.
    """

    def __init__(self, energy: EnergyMeter, began: float) -> None:
        """Count the energy from now on, and the time from `began`, in seconds since the epoch."""
        self.energy, self.began = energy, began
        self._since, self._joules_before = began, 0.0

    def lap(self) -> None:
        """Count from now on; what was spent so far is kept elsewhere."""
        self._since, self._joules_before = time.time(), self.energy.joules() or 0.0

    def restart(self) -> None:
        """Begin anew, with the next milestone: what led to the previous one is in its row."""
        self.lap()
        self.began = self._since

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.time() - self._since

    def joules(self) -> float | None:
        """Return the energy of whole devices so far; None if it is unknown."""
        joules = self.energy.joules()
        return None if joules is None else joules - self._joules_before


def start_watch(config: RunConfig, began: float) -> Watch:
    """Return the watch of one process of a run, which began at that time, in seconds since the epoch.

    Raises UserError if this machine lacks the device.
    """
    device, index = detect(config.trainer.accelerator), local_rank()
    watts = hardware_here(config.hardware, device).watts
    return Watch(open_meter(device, index, watts, shares_machine=index > 0), began)


@dataclass(frozen=True)
class Spent:
    """Time and energy of everything that contributed to the result of a run."""

    wall_seconds: float
    joules: float | None
    """Energy of all devices; None if no part of it can be measured or estimated."""
    source: str | None
    """How the energy is known, one of cost.energy.Source."""


class Spending(pl.Callback):
    """Adds what this attempt spends to what earlier attempts spent up to the checkpoint that it continues from."""

    def __init__(self, watch: Watch, device_share: float = 1.0) -> None:
        """The run's energy is `device_share` times what the watch counts, which is for whole devices."""
        self.watch, self.device_share = watch, device_share
        self.trainer: pl.Trainer | None = None
        self.before = self.spent = Spent(0.0, 0.0, None)

    def setup(self, trainer: pl.Trainer, task: pl.LightningModule, stage: str) -> None:
        """Keep the Trainer, which reaches the energy meters of the other processes."""
        self.trainer = trainer

    def on_train_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Add up the energy of all processes while they can still communicate."""
        self.spent = self.total(trainer)

    def total(self, trainer: pl.Trainer) -> Spent:
        """Return what was spent, summed over processes; collective, call on every rank."""
        joules, source = self.watch.joules(), self.watch.energy.source
        parts = [(joules or 0.0) * self.device_share, float(joules is None), float(source == "estimated")]
        counts = torch.tensor(parts, dtype=torch.float64)
        if trainer.world_size > 1:
            counts = trainer.strategy.reduce(counts.to(trainer.strategy.root_device), reduce_op="sum")
        used, unknown, estimated = counts.tolist()
        before = self.before.joules
        # One estimated part, of a process or of an earlier attempt, makes the whole an estimate.
        is_estimate = estimated or self.before.source not in (None, source)
        return Spent(
            wall_seconds=self.before.wall_seconds + self.watch.seconds,
            joules=None if unknown or before is None else used + before,
            source="estimated" if is_estimate else source,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; Lightning calls this on every rank.

        The watch counts on from here, because this process itself may continue from the checkpoint.
        """
        assert self.trainer is not None, "called only while a Trainer saves"
        self.before = self.total(self.trainer)
        self.watch.lap()
        return asdict(self.before)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        self.before = Spent(**state_dict)

"""What a run has spent: wall time and energy, of this attempt and of the earlier attempts that it continues."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from lmexp.cost.energy import EnergyMeter


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

    def __init__(self, energy: EnergyMeter, started: float, device_share: float = 1.0) -> None:
        """Count from `started`, when this process began, in seconds since the epoch.

        The meter counts whole devices; `device_share` of that energy is the run's.
        """
        self.energy, self.started, self.device_share = energy, started, device_share
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
        joules = self.energy.joules()
        parts = [(joules or 0.0) * self.device_share, float(joules is None), float(self.energy.source == "estimated")]
        counts = torch.tensor(parts, dtype=torch.float64)
        if trainer.world_size > 1:
            counts = trainer.strategy.reduce(counts.to(trainer.strategy.root_device), reduce_op="sum")
        used, unknown, estimated = counts.tolist()
        before = self.before.joules
        # One estimated part, of a process or of an earlier attempt, makes the whole an estimate.
        is_estimate = estimated or self.before.source not in (None, self.energy.source)
        return Spent(
            wall_seconds=self.before.wall_seconds + time.time() - self.started,
            joules=None if unknown or before is None else used + before,
            source="estimated" if is_estimate else self.energy.source,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; Lightning calls this on every rank."""
        assert self.trainer is not None, "called only while a Trainer saves"
        return asdict(self.total(self.trainer))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        self.before = Spent(**state_dict)

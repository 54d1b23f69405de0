"""The real parts of a small run, put together by hand so that a test can call one callback at a time."""

from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch

from lmexp.config.schema import RunConfig
from lmexp.cost.horizon import Horizon
from lmexp.cost.step_meter import StepMeter
from lmexp.models.build import build_model
from lmexp.runs.directory import RunDir
from lmexp.runs.mirrors.mirror import Mirror
from lmexp.tasks.causal_lm import CausalLM
from lmexp.train.curve import Curve
from lmexp.train.progress import Progress
from lmexp.train.stopping import Signals
from lmexp.train.trainer import build_trainer


@dataclass
class Parts:
    """A run of some steps of 256 tokens, before its first step."""

    config: RunConfig
    run: RunDir
    progress: Progress
    meter: StepMeter
    signals: Signals
    task: CausalLM
    trainer: pl.Trainer
    curve: Curve

    def step(self, loss: float = 5.0) -> None:
        """Do a step as far as callbacks see it: its time, its loss and its count."""
        self.meter.rest()
        self.meter.begin()
        self.meter.end()
        self.task.step_loss = torch.tensor(loss)
        self.progress.advance(self.meter.seconds, 0.0)

    def points(self, name: str) -> list[float]:
        """Return the values of this name in the points of the curve."""
        return [point[name] for point in self.run.read_curve() if name in point]


def make_parts(config: RunConfig, folder: Path, steps: int = 20) -> Parts:
    """Put the parts together; the run directory is in `folder`."""
    config = config.model_copy(update={"model": config.model.model_copy(update={"vocab_size": 257})})
    run = RunDir(folder / "outputs" / "sweep" / "run")
    run.checkpoints.mkdir(parents=True)
    progress = Progress(Horizon(steps=steps), config.batch.tokens, config.batch.tokens // config.model.context)
    meter, signals, trainer = StepMeter(config.batch.tokens), Signals(), build_trainer(config, run)
    task = CausalLM(build_model(config.model, 0), config)
    trainer.strategy.connect(task)
    trainer.strategy.optimizers = [task.configure_optimizers()]
    curve = Curve(progress, meter, config, run, Mirror("no"), 2.0, signals)
    return Parts(config, run, progress, meter, signals, task, trainer, curve)

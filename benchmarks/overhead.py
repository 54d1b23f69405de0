"""What lmexp, and W&B's copy of a run, add to an optimizer step, against bare Lightning and a bare loop in torch.

All train the same weights on the same batches with the same optimizer, in turn, in one process on one thread: a
model whose step is next to nothing, and one whose step takes about 50 ms. The time of a step is that from one
request for a batch to the next, so it holds everything that comes between, heartbeat and points of the curve
included; the first steps, evaluation, checkpoints and start are left out. The last column is the processor time of a
whole run in other processes, such as that in which W&B writes its files and samples the machine every 15 s:

    python benchmarks/overhead.py [rounds]
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from statistics import median

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lmexp.config.schema import RunConfig
from lmexp.data.loading import Batch, TrainBatches
from lmexp.data.open_feed import open_feed
from lmexp.data.prepare import AnyStore, prepare
from lmexp.models.build import build_model
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import STORES, RunDir
from lmexp.tasks.causal_lm import CausalLM
from lmexp.train import training, worker

ROUNDS = 5
LEFT_OUT = 20
"""First steps, in which memory is measured and caches fill."""
WINDOW = 10
"""Steps of a window: as many as lie between two points of the curve, so that each window has one."""
MODELS = {
    "tiny": (["model=gpt_nano", "model.context=32", "model.d_model=32", "batch.tokens=256"], 420),
    "50 ms": (["model=gpt_tiny", "batch.tokens=768"], 420),  # longer than W&B waits between two samples
}
"""Overrides, and steps of a run."""


class Stamped(TrainBatches):
    """Batches that note when each was asked for."""

    stamps: list[float] = []  # noqa: RUF012  the run's own path makes the object, and leaves no other place

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches."""
        Stamped.stamps.clear()
        for batch in super().__iter__():
            Stamped.stamps.append(time.perf_counter())
            yield batch


@dataclass
class TrainingSetup:
    """The config, data and length that all arms train with."""

    config: RunConfig
    store: AnyStore
    steps: int
    made: int = 0

    def loader(self) -> DataLoader[Batch]:
        """Return the batches, from the first."""
        sequences = self.config.batch.tokens // self.config.model.context
        return DataLoader(Stamped(open_feed(self.config, self.store), sequences, sequences), batch_size=None)

    def model(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return fresh weights and their optimizer."""
        model = build_model(self.config.model, self.config.seed)
        return model, CausalLM(model, self.config).configure_optimizers()


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean loss of a batch."""
    return F.cross_entropy(model(batch["inputs"]).flatten(0, 1), batch["targets"].flatten())


def bare_torch(setup: TrainingSetup) -> None:
    """Train as the shortest loop does."""
    model, optimizer = setup.model()
    for batch in islice(setup.loader(), setup.steps):
        loss_of(model, batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), setup.config.optim.grad_clip or 1.0)
        optimizer.step()
        optimizer.zero_grad()


class Bare(pl.LightningModule):
    """The shortest LightningModule."""

    def __init__(self, setup: TrainingSetup) -> None:
        super().__init__()
        self.model, self.optimizer = setup.model()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss."""
        return loss_of(self.model, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return self.optimizer


def bare_lightning(setup: TrainingSetup) -> None:
    """Train with a Trainer that logs, saves and shows nothing."""
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=setup.steps, max_epochs=-1, gradient_clip_val=setup.config.optim.grad_clip,
        plugins=[LightningEnvironment()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Bare(setup), setup.loader())


def lmexp(setup: TrainingSetup, logger: str = "none", **options: bool) -> None:
    """Train as a run does."""
    setup.made += 1
    config = setup.config
    config = config.model_copy(update={"logger": config.logger.model_copy(update={"name": logger, **options})})
    assert config.run is not None, "it was resolved"
    sweep = setup.store.path.parents[1] / "overhead"
    run = RunDir.create(sweep / f"{logger}{setup.made}-{config.run.id}", config)
    with redirect_stdout(StringIO()):
        if worker.main(run.path):
            raise SystemExit(f"the run failed: {run.read_state().reason}")


ARMS: dict[str, Callable[[TrainingSetup], None]] = {
    "torch": bare_torch,
    "Lightning": bare_lightning,
    "lmexp": lmexp,
    "lmexp, W&B's curve": lambda setup: lmexp(setup, "wandb", system_metrics=False, console=False),
    "lmexp, W&B": lambda setup: lmexp(setup, "wandb"),
}
"""W&B is offline. By default it also samples the machine and collects what is printed."""


def measure(arm: Callable[[TrainingSetup], None], setup: TrainingSetup) -> tuple[float, float]:
    """Train, and return the median over windows of a step's milliseconds, and the seconds of other processes."""
    before = os.times()
    arm(setup)
    after = os.times()
    others = after.children_user + after.children_system - before.children_user - before.children_system
    stamps = Stamped.stamps[LEFT_OUT:]
    windows = zip(stamps[::WINDOW], stamps[WINDOW::WINDOW], strict=False)
    return median((end - begin) / WINDOW * 1e3 for begin, end in windows), others


def main() -> None:
    """Print, for each model and arm, the median over rounds, and of the ratios in the same round."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    worker.quieten()
    torch.set_num_threads(1)
    training.TrainBatches = Stamped  # type: ignore[misc]  # the run's own path asks for its batches by this name
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("\n".join(f"line {i} of a text that nobody will read, {i * i % 9973}" for i in range(20_000)))
        for name, (words, steps) in MODELS.items():
            common = [
                "tokenizer=byte", "data=text", f"data.path={text}", "data.document=line", "trainer.accelerator=cpu",
                "evaluation.every=1", "checkpoint.every=1", "launcher.threads=1",
            ]  # fmt: skip
            outputs = Path(folder) / "outputs"
            tokens = int(words[-1].partition("=")[2])
            [planned] = resolve_sweep(None, [*common, *words, f"budget.tokens={steps * tokens}"], outputs).runs
            config = planned.config
            setup = TrainingSetup(config, prepare(config, outputs / STORES), steps)
            lmexp(setup)  # does not count: a run tells malloc to keep memory, and all are to have that
            seen: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
            for _ in range(rounds):
                for arm, train in ARMS.items():
                    seen[arm].append(measure(train, setup))
            for arm, results in seen.items():
                ms, others = zip(*results, strict=True)
                shown = f"{name:6} {arm:19} {median(ms):7.2f} ms a step"
                for base in ("torch", "lmexp"):
                    ratios = [a / b for a, (b, _) in zip(ms, seen[base], strict=True)]
                    shown += f"   {median(ratios):.3f} of {base}'s ({min(ratios):.3f} to {max(ratios):.3f})"
                print(f"{shown}   {median(others):.2f} s elsewhere", flush=True)


if __name__ == "__main__":
    main()

"""Started by torchrun in test_ranks.py and test_sharded.py: train two steps and score, on sequences of unequal length.

    ranks.py CONFIG.yaml FOLDER MICRO[,MICRO...]

Sequences differ in how many of their tokens count, and so in what they add to a loss; whoever averages means
gets another number for every way of sharing them out. Leaves FOLDER/MICRO/metrics.jsonl and weights.pt.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lmexp.config.schema import RunConfig
from lmexp.cost.horizon import Horizon
from lmexp.cost.step_meter import StepMeter
from lmexp.models.build import build_model
from lmexp.runs.directory import RunDir
from lmexp.runs.mirrors.mirror import Mirror
from lmexp.tasks.base import IGNORED
from lmexp.tasks.causal_lm import CausalLM
from lmexp.train.checkpoint import whole
from lmexp.train.clock import Clock, NextStepTimer
from lmexp.train.curve import Curve
from lmexp.train.evaluation import Evaluation
from lmexp.train.micro_batch import with_micro
from lmexp.train.progress import Progress
from lmexp.train.trainer import build_trainer
from lmexp.train.worker import leave

SEQUENCES, STEPS, SCORED = 12, 2, 17
"""For each optimizer step; and to validate on, a number that no number of processes divides."""


def texts(count: int, context: int, seed: int) -> dict[str, Tensor]:
    """Return inputs and targets (count, context); sequence i ends after a length of its own."""
    tokens = torch.randint(0, 257, (count, context + 1), generator=torch.Generator().manual_seed(seed))
    targets = tokens[:, 1:].clone()
    for i, target in enumerate(targets):
        target[1 + (i * i * 7) % context :] = IGNORED
    return {"inputs": tokens[:, :-1], "targets": targets}


class Steps(IterableDataset):
    """The micro-batches of one rank, dealt as TrainBatches deals them."""

    def __init__(self, context: int, micro: int, rank: int, world: int) -> None:
        self.context, self.micro, self.rank, self.world = context, micro, rank, world

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for step in range(STEPS):
            all_ = texts(SEQUENCES, self.context, seed=step)
            counted = (all_["targets"] != IGNORED).sum()
            for at in range(self.rank * self.micro, SEQUENCES, self.world * self.micro):
                part = {name: value[at : at + self.micro] for name, value in all_.items()}
                yield {**part, "step_targets": counted}


def main(config: RunConfig, folder: Path, micro: int) -> None:
    """Train and score with one size of micro-batches."""
    config = with_micro(config, micro)
    context = config.model.context
    run = RunDir(folder)
    trainer = build_trainer(config, run)
    progress = Progress(Horizon(steps=STEPS), config.batch.tokens, SEQUENCES)
    meter = StepMeter(config.batch.tokens)
    scored = texts(SCORED, context, seed=99)
    mine = range(trainer.global_rank, SCORED, trainer.world_size)
    validation = [{name: value[list(mine)[at : at + micro]] for name, value in scored.items()}
                  for at in range(0, len(mine), micro)]  # fmt: skip
    curve = Curve(progress, meter, config, run, Mirror("no"), 1)
    callbacks = [Clock(progress, meter, config), curve, Evaluation(progress, curve, 0.5, validation, 1000)]
    trainer.callbacks += [*callbacks, NextStepTimer(progress, meter)]
    task = CausalLM(build_model(config.model, 0), config)
    steps = Steps(context, micro, trainer.global_rank, trainer.world_size)
    trainer.fit(task, DataLoader(steps, batch_size=None))
    model = whole(task.model, config)
    if trainer.is_global_zero:
        torch.save(model.state_dict(), folder / "weights.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    read = RunConfig.model_validate(yaml.safe_load(Path(sys.argv[1]).read_text()))
    for size in map(int, sys.argv[3].split(",")):
        place = Path(sys.argv[2]) / str(size)
        place.mkdir(parents=True, exist_ok=True)
        main(read, place, size)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    leave(0)

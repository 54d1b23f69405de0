"""Batches for the Trainer: the samples of a feed, dealt to processes and cut into micro-batches.

Both datasets yield whole micro-batches, so a DataLoader takes them with ``batch_size=None``. They hold no
state: where a stream begins is an argument, so resuming needs no saved loader. Workers of a DataLoader, if
there are any, take turns, which leaves the order as it is without them.
"""

from collections.abc import Iterator
from itertools import count, islice, pairwise
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from lmexp.data.feeds import Batch, Feed
from lmexp.data.order import PoissonSamples
from lmexp.errors import UserError

Item = TypeVar("Item")


class TrainBatches(IterableDataset[Batch]):
    """The endless stream of one rank's micro-batches.

    Optimizer step s takes the global samples [s * batch_sequences, (s + 1) * batch_sequences), and of these
    rank r's j-th micro-batch takes `micro` from (j * world_size + r) * micro on. So which samples a step
    sees depends on neither the number of devices nor the accumulation. Each micro-batch also holds `step_targets`, a
    scalar: the targets of the whole optimizer step, over all its micro-batches and ranks.
    """

    def __init__(
        self,
        feed: Feed,
        batch_sequences: int,
        micro: int,
        rank: int = 0,
        world_size: int = 1,
        first_sample: int = 0,
    ) -> None:
        """`first_sample` is the number of sequences already seen over all ranks, a multiple of a batch.

        Raises UserError when a batch does not divide into micro-batches for every rank.
        """
        if batch_sequences % (micro * world_size):
            raise UserError(
                f"a batch of {batch_sequences} sequences does not divide into micro-batches of {micro} "
                f"on {world_size} device{'s' if world_size > 1 else ''}"
            )
        if first_sample % batch_sequences:
            raise ValueError(f"sample {first_sample} begins no batch of {batch_sequences}")
        self.feed = feed
        self.batch_sequences = batch_sequences
        self.micro = micro
        self.rank = rank
        self.world_size = world_size
        self.first_sample = first_sample

    def __iter__(self) -> Iterator[Batch]:
        # Batches follow each other without a gap, so one stride runs through all micro-batches of a rank.
        first = self.first_sample + self.rank * self.micro
        step, targets = -1, torch.tensor(0)
        for sample, following in pairwise(_this_workers(count(first, self.world_size * self.micro))):
            if sample // self.batch_sequences != step:
                step = sample // self.batch_sequences
                targets = torch.tensor(self.feed.targets(step * self.batch_sequences, self.batch_sequences))
            batch = self.feed.batch(sample, self.micro)
            self.feed.expect(following, self.micro)
            yield {**batch, "step_targets": targets}


class PrivateBatches(IterableDataset[Batch]):
    """The endless stream of whole private steps, whose numbers of sequences vary around `sequences`.

    Each also holds `step`, a scalar: its number, from 0 on. Which sequences a step has is a function of the seed and of
    that number.
    """

    def __init__(self, feed: Feed, sequences: int, seed: int, first_step: int = 0) -> None:
        self.feed, self.first_step = feed, first_step
        self.samples = PoissonSamples(feed.disjoint_sequences, sequences, seed)

    def __iter__(self) -> Iterator[Batch]:
        for step in _this_workers(count(self.first_step)):
            yield {**self.feed.disjoint_batch(self.samples.step(step), step), "step": torch.tensor(step)}


class ValidationBatches(IterableDataset[Batch]):
    """One rank's share of all validation samples, each once, in an order that is always the same.

    They are dealt to the ranks in turn, so ranks may differ by one batch: code between batches must not wait for
    other ranks.
    """

    def __init__(self, feed: Feed, batch: int, rank: int = 0, world_size: int = 1) -> None:
        """`batch` is in sequences. Raises UserError when there are fewer samples than ranks."""
        if feed.validation_samples < world_size:  # a rank without batches would skip its part in the reductions
            raise UserError(
                f"the {feed.scored} split has {feed.validation_samples} samples, too few for {world_size} devices"
            )
        self.feed, self.batch = feed, batch
        self._samples = np.arange(rank, feed.validation_samples, world_size, dtype=np.int64)

    def __iter__(self) -> Iterator[Batch]:
        return _this_workers(self._batches())

    def _batches(self) -> Iterator[Batch]:
        for i in range(0, len(self._samples), self.batch):
            yield from self.feed.validation(self._samples[i : i + self.batch])


def _this_workers(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items that this DataLoader worker is to make: all, where there are no workers."""
    worker = get_worker_info()
    return islice(items, worker.id, None, worker.num_workers) if worker else items

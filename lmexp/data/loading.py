"""Batches out of the token store, as torch tensors: index arithmetic over a memory map.

Both datasets yield whole micro-batches, so a DataLoader takes them with ``batch_size=None``. They hold no
state: where a stream begins is an argument, so resuming needs no saved loader. Workers of a DataLoader, if
there are any, take turns, which leaves the order as it is without them.
"""

from collections.abc import Iterator
from itertools import count, islice
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from lmexp.data.order import Order
from lmexp.data.store import Store
from lmexp.errors import UserError

Batch = dict[str, torch.Tensor]
"""``inputs`` and ``targets``, both (sequences, T) int64; a target is the token after its input.

Batches to train on also hold ``step_targets``, a scalar: the targets of the whole optimizer step, over all
its micro-batches and ranks."""

Item = TypeVar("Item")


class TrainBatches(IterableDataset[Batch]):
    """The endless stream of one rank's micro-batches, each (micro, context).

    Optimizer step s takes the global samples [s * batch_sequences, (s + 1) * batch_sequences), and of these
    rank r's j-th micro-batch takes `micro` from (j * world_size + r) * micro on. So which samples a step
    sees depends on neither the number of devices nor the accumulation.
    """

    def __init__(
        self,
        store: Store,
        order: Order,
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
        self.store = store
        self.order = order
        self.step_targets = torch.tensor(batch_sequences * order.context)
        self.micro = micro
        self.rank = rank
        self.world_size = world_size
        self.first_sample = first_sample

    def __iter__(self) -> Iterator[Batch]:
        tokens = self.store.array("train")
        # Batches follow each other without a gap, so one stride runs through all micro-batches of a rank.
        first = self.first_sample + self.rank * self.micro
        for sample in _this_workers(count(first, self.world_size * self.micro)):
            batch = _gather(tokens, self.order.starts(sample, self.micro), self.order.context)
            yield {**batch, "step_targets": self.step_targets}


class ValidationBatches(IterableDataset[Batch]):
    """One rank's share of the whole validation text, in windows that do not overlap.

    Over all ranks every token but the first is a target exactly once. The last window is as short as what
    is left, and is a batch of its own: no padding, no duplicates. Windows are dealt to the ranks in turn, so
    ranks may differ by one batch: code between batches must not wait for other ranks.
    """

    def __init__(self, store: Store, context: int, batch: int, rank: int = 0, world_size: int = 1) -> None:
        """`batch` is in sequences. Raises UserError when there are fewer windows than ranks."""
        self.store = store
        self.context = context
        self.batch = batch
        targets = store.tokens("validation") - 1
        windows = -(-targets // context)
        if windows < world_size:  # a rank without batches would skip its part in the reductions that follow
            raise UserError(
                f"the validation text has {windows} windows of {context} tokens, too few for {world_size} devices"
            )
        self._starts = np.arange(rank, windows, world_size, dtype=np.int64) * context
        self._last_length = targets - int(self._starts[-1])  # of this rank's last window, if it is short

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[Batch]:
        tokens = self.store.array("validation")
        for starts, length in _this_workers(iter(self._batches())):
            yield _gather(tokens, starts, length)

    def _batches(self) -> list[tuple[np.ndarray, int]]:
        """Return the starts of each batch's windows and their length."""
        short = self._last_length < self.context
        full = self._starts[:-1] if short else self._starts
        batches = [(full[i : i + self.batch], self.context) for i in range(0, len(full), self.batch)]
        return [*batches, (self._starts[-1:], self._last_length)] if short else batches


def _gather(tokens: np.ndarray, starts: np.ndarray, length: int) -> Batch:
    """Return the windows of `length` targets that begin at `starts`."""
    windows = tokens[starts[:, None] + np.arange(length + 1)]  # (sequences, length + 1)
    return {
        "inputs": torch.from_numpy(windows[:, :-1].astype(np.int64)),
        "targets": torch.from_numpy(windows[:, 1:].astype(np.int64)),
    }


def _this_workers(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items that this DataLoader worker is to make: all, where there are no workers."""
    worker = get_worker_info()
    return islice(items, worker.id, None, worker.num_workers) if worker else items

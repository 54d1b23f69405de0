"""From a store to batches: what a task sees of a text, or of examples, as a pure function of the sample's number.

Training samples are numbered for ever, and the i-th is the same whatever came before it: a run that stops and
resumes, or that runs on another number of devices, sees the same samples in the same order. A sample takes
`sequence_tokens` positions. Windows of a text fill them; examples are padded, so that what is counted as work is what
is computed.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lmexp.config.data import Split
from lmexp.data.order import Endless

if TYPE_CHECKING:
    import torch

Batch = dict[str, "torch.Tensor"]
"""What a task predicts from: see the feeds. `targets` are IGNORED where nothing is to be predicted."""
IGNORED = -100
ALONE = {1: 1}
"""The parts of a feed whose sequences are not shared."""


class Feed(Protocol):
    """Samples of one task out of one store: for training, and of one split that is scored."""

    scored: Split
    """The split that is scored: validation, or test. What is called validation below is of this split."""
    order: Endless
    """The order of the training samples."""
    epoch_tokens: int
    """Positions in one pass over the training split."""
    validation_samples: int
    cut: int
    """Texts that are longer than the context, and are cut."""
    targets_cut: float
    """Share of the validation split's targets that are cut off, 0 to 1: they are not scored."""
    text_bytes: int | None
    """UTF-8 bytes of all that is predicted in validation; None where bits a byte would mean nothing."""
    text_words: int | None
    """Words of all that is predicted in validation; None where they are not known, or a loss per word means nothing."""

    parts: dict[int, int]
    """In how many steps of an epoch so many examples share a sequence; see ByLength."""

    def batch(self, first: int, count: int) -> Batch:
        """Return training samples `first` to `first + count`."""

    def expect(self, first: int, count: int) -> None:
        """Start to read the training samples that will be asked for next, if that saves time."""

    def targets(self, first: int, count: int) -> int:
        """Return how many targets these have."""

    @property
    def disjoint_sequences(self) -> int:
        """How many training sequences there are on a fixed grid, so that no token is in two of them; 0: no text."""

    def disjoint_batch(self, samples: np.ndarray, step: int) -> Batch:
        """Return some of these by their numbers, as a private step sees them: (B,) int64."""

    def validation(self, samples: np.ndarray) -> Iterator[Batch]:
        """Yield validation samples by their numbers, in as many batches as their lengths ask for."""


def tensors(arrays: dict[str, np.ndarray]) -> Batch:
    """Return arrays as tensors that share their memory."""
    import torch  # here, because a plan opens feeds, and takes seconds less without it

    return {name: torch.from_numpy(array) for name, array in arrays.items()}

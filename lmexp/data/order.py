"""Which stretch of the training text is the i-th sample: a pure function of (seed, i).

The text is cut into windows of `context` inputs and, one further, `context` targets. An epoch takes every
window once, in an order of its own; each epoch also shifts the cuts by an offset of its own, so that the
model does not meet the same windows again. As nothing depends on what was asked before, a run that stops
and resumes, or that runs on another number of devices, sees the same tokens in the same order.

Random bits come straight from numpy's PCG64, whose stream is guaranteed never to change between versions
of numpy (NEP 19); `Generator.permutation` is not.
"""

import numpy as np

from lmexp.errors import UserError


class Order:
    """Token offsets of the samples of a training text, for ever.

    Every epoch has the same number of windows, `windows_per_epoch`. One window less than fits is taken,
    which leaves room for every offset in [0, context); a text of a single window is taken as it is.
    """

    def __init__(self, n_tokens: int, context: int, seed: int) -> None:
        """Raises UserError when the text is shorter than one window, which is context + 1 tokens."""
        if n_tokens < context + 1:
            raise UserError(
                f"the training text has {n_tokens} tokens, fewer than one window of context + 1 = "
                f"{context + 1}; set a smaller model.context"
            )
        self.n_tokens = n_tokens
        self.context = context
        self.seed = seed
        self.windows_per_epoch = max(1, (n_tokens - 1) // context - 1)
        self._cached: tuple[int, np.ndarray] | None = None  # the epoch asked for last

    def starts(self, first: int, count: int) -> np.ndarray:
        """Return the offsets (count,), int64, of samples `first` to `first + count`, over epochs if need be.

        A sample that starts at s has the inputs s .. s + context - 1 and the targets s + 1 .. s + context.
        """
        offsets = np.empty(count, np.int64)
        filled = 0
        while filled < count:
            epoch, window = divmod(first + filled, self.windows_per_epoch)
            part = self._epoch(epoch)[window : window + count - filled]
            offsets[filled : filled + len(part)] = part
            filled += len(part)
        return offsets

    def _epoch(self, epoch: int) -> np.ndarray:
        """Return the offsets of one epoch's windows, in its order."""
        if self._cached is None or self._cached[0] != epoch:
            bits = np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(epoch,)))
            spare = self.n_tokens - 1 - self.windows_per_epoch * self.context
            offset = int(bits.random_raw()) % (min(spare, self.context - 1) + 1)
            permutation = np.argsort(bits.random_raw(self.windows_per_epoch), kind="stable")
            self._cached = epoch, offset + permutation * self.context
        return self._cached[1]

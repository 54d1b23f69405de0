"""Feeds of running text: windows of its tokens, for models that predict the next token or hidden ones."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lmexp.config.data import Split
from lmexp.data.feeds import ALONE, IGNORED, Batch, tensors
from lmexp.data.order import Endless, Order, TooShort
from lmexp.data.store import Store, is_advised, read_soon
from lmexp.errors import UserError

MASKED, REPLACED = 0.8, 0.1
"""Among the tokens that a masked language model predicts, the shares shown as the mask and as another token
(Devlin et al. 2018, section 3.1); the others are shown as they are."""


class _TrainingText:
    """Tokens of a store's training split; the map stays open, since opening it takes longer than reading a batch."""

    store: Store

    @cached_property
    def text(self) -> np.memmap:
        """The tokens: (n,)."""
        return self.store.array("train")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the map out: a process that gets a copy of the feed opens the file itself."""
        return {name: value for name, value in self.__dict__.items() if name != "text"}


class Windows(_TrainingText):
    """Windows of a text: `inputs` and `targets`, both (B, T) int64; a target is the token after its input.

    In validation every token but the first is a target exactly once, and the last window is as short as what is left.
    """

    def __init__(
        self, store: Store, context: int, seed: int, scored: Split = "validation", marks_documents: bool = False
    ) -> None:
        """Raises UserError when the text is shorter than a window, or has nothing to validate on.

        `marks_documents` adds `documents` (B, T) int64 to each batch: which of a window's documents a token is of.
        """
        self.store, self.context, self.scored, self.marks_documents = store, context, scored, marks_documents
        self.order: Endless = Order(store.tokens("train"), context, seed)
        if store.tokens(scored) < 2:
            raise UserError(f"the {scored} split has no token to predict; raise data.{scored}")
        self.epoch_tokens = store.tokens("train")
        self.cut, self.targets_cut = 0, 0.0
        self._last = store.tokens(scored) - 1
        self.validation_samples = -(-self._last // context)
        self.parts = ALONE
        self.text_bytes: int | None = store.bytes(scored)
        self.text_words: int | None = store.splits[scored].words

    def batch(self, first: int, count: int) -> Batch:
        """See Feed."""
        return self._windows(self.text, self.order.take(first, count), self.context)

    def expect(self, first: int, count: int) -> None:
        """See Feed."""
        if is_advised(self.text):
            read_soon(self.text, self.order.take(first, count), self.context + 1)

    @property
    def disjoint_sequences(self) -> int:
        """See Feed; the last target of a sequence is not the first input of the next one, so a token more is taken."""
        return self.store.tokens("train") // (self.context + 1)

    def disjoint_batch(self, samples: np.ndarray, step: int) -> Batch:
        """See Feed."""
        return self._windows(self.text, samples * (self.context + 1), self.context)

    def targets(self, first: int, count: int) -> int:
        """See Feed: every position has one."""
        return count * self.context

    def validation(self, samples: np.ndarray) -> Iterator[Batch]:
        """See Feed; the last window of all is a batch of its own where it is shorter: no padding, no duplicates."""
        text = self.store.array(self.scored)
        starts = samples * self.context
        short = starts + self.context > self._last
        if not short.all():
            yield self._windows(text, starts[~short], self.context)
        for start in starts[short]:
            yield self._windows(text, np.array([start]), self._last - int(start))

    def _windows(self, tokens: np.ndarray, starts: np.ndarray, length: int) -> Batch:
        """Return the windows of `length` targets that begin at `starts`."""
        batch = {"inputs": _stretches(tokens, starts, length), "targets": _stretches(tokens, starts + 1, length)}
        if self.marks_documents:
            batch["documents"] = (batch["inputs"] == self.store.bos_id).cumsum(1)
        return tensors(batch)


class MaskedWindows(_TrainingText):
    """Windows of a text in which some tokens are hidden: `inputs` and `targets`, both (B, T) int64.

    Which tokens, and what stands in their place, is a function of the seed and the sample's number; in validation of
    the number alone, so that every run is asked the same. The same number of tokens in every window is predicted.
    """

    def __init__(self, store: Store, context: int, seed: int, share: float, scored: Split = "validation") -> None:
        """Raises TooShort when the text has no window for training, or to score."""
        self.store, self.context, self.seed, self.scored = store, context, seed, scored
        self.order: Endless = Order(store.tokens("train"), context, seed)
        self.epoch_tokens = store.tokens("train")
        self.validation_samples = store.tokens(scored) // context
        if not self.validation_samples:
            raise TooShort(
                f"the {scored} split is shorter than model.context={context}: it has {store.tokens(scored)} tokens"
            )
        self.cut, self.targets_cut = 0, 0.0
        self.parts = ALONE
        self.text_bytes: int | None = None  # only some tokens are predicted, and these from both sides
        self.text_words: int | None = None
        self.hidden = max(1, round(share * context))
        """Tokens of a window that are predicted."""
        special = [store.bos_id, store.mask_id]
        self._ordinary = np.setdiff1d(np.arange(store.vocab_size, dtype=np.int64), special)

    def batch(self, first: int, count: int) -> Batch:
        """See Feed."""
        tokens = _stretches(self.text, self.order.take(first, count), self.context)
        return self._hide(tokens, [(self.seed, 0, first + i) for i in range(count)])

    def expect(self, first: int, count: int) -> None:
        """See Feed."""
        if is_advised(self.text):
            read_soon(self.text, self.order.take(first, count), self.context)

    @property
    def disjoint_sequences(self) -> int:
        """See Feed."""
        return self.store.tokens("train") // self.context

    def disjoint_batch(self, samples: np.ndarray, step: int) -> Batch:
        """See Feed; a step hides other tokens of a sequence than the step before it."""
        tokens = _stretches(self.text, samples * self.context, self.context)
        return self._hide(tokens, [(self.seed, 1, step, int(i)) for i in samples])

    def targets(self, first: int, count: int) -> int:
        """See Feed."""
        return count * self.hidden

    def validation(self, samples: np.ndarray) -> Iterator[Batch]:
        """See Feed; what is left after the last whole window is not read."""
        tokens = _stretches(self.store.array(self.scored), samples * self.context, self.context)
        yield self._hide(tokens, [(0, 1, int(i)) for i in samples])

    def _hide(self, tokens: np.ndarray, keys: Sequence[tuple[int, ...]]) -> Batch:
        inputs, targets = tokens.copy(), np.full_like(tokens, IGNORED)
        for row, key in enumerate(keys):
            # Raw bits, whose stream numpy guarantees; one generator a sample, so that none depends on another.
            bits = np.random.PCG64(np.random.SeedSequence(key[0], spawn_key=key[1:]))
            where = np.argsort(bits.random_raw(self.context), kind="stable")[: self.hidden]
            dice = bits.random_raw(self.hidden) / 2.0**64
            others = self._ordinary[bits.random_raw(self.hidden) % np.uint64(len(self._ordinary))]
            targets[row, where] = tokens[row, where]
            masked, replaced = dice < MASKED, (dice >= MASKED) & (dice < MASKED + REPLACED)
            inputs[row, where[masked]] = self.store.mask_id
            inputs[row, where[replaced]] = others[replaced]
        return tensors({"inputs": inputs, "targets": targets})


def _stretches(tokens: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Return the stretches of `length` tokens that begin at `starts`: (B, length) int64."""
    stretches = np.empty((len(starts), length), np.int64)
    tokens = np.asarray(tokens)  # slicing a memory map takes longer than copying it
    for row, start in zip(stretches, starts.tolist(), strict=True):
        row[:] = tokens[start : start + length]
    return stretches

"""What every language model has in common: hidden states, and logits made of them."""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


class Cache(Protocol):
    """What one layer keeps of the tokens seen so far, so that none is read twice."""

    @property
    def length(self) -> int:
        """Tokens seen."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes, filled or not."""


class LanguageModel(nn.Module):
    """A model that turns tokens into hidden states, and those into logits over its vocabulary.

    Tasks that predict something else than tokens put a head of their own on the hidden states.
    """

    def hidden(self, tokens: Tensor, cache: Sequence[Cache] | None = None, valid: Tensor | None = None) -> Tensor:
        """Return what the head reads at every position: (B, T) int64 -> (B, T, C).

        Args:
            cache: of `new_cache`; `tokens` then follow those seen with it before, and are added to it.
            valid: (B, T) bool, False where a token is padding, which comes last in its sequence; None: no padding.

        Raises ValueError when the tokens, cached ones included, are more than the model's context.
        """
        raise NotImplementedError

    def logits(self, hidden: Tensor) -> Tensor:
        """Score every token of the vocabulary: (..., C) -> (..., vocab_size)."""
        raise NotImplementedError

    def forward(
        self,
        tokens: Tensor,
        cache: Sequence[Cache] | None = None,
        last_only: bool = False,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Return logits at every position, (B, T) int64 -> (B, T, vocab_size); see `hidden`.

        `last_only` scores the last position alone, (B, 1, vocab_size): all that a continuation needs.
        """
        hidden = self.hidden(tokens, cache, valid)
        return self.logits(hidden[:, -1:] if last_only else hidden)

    @property
    def width(self) -> int:
        """C, the width of the hidden states."""
        raise NotImplementedError

    def drop_head(self) -> None:
        """Remove whatever only `logits` uses: another head takes its place."""
        raise NotImplementedError

    def layers(self) -> Iterable[nn.Module]:
        """Return the layers, in order: what is gathered at a time where processes share the weights."""
        raise NotImplementedError

    def auxiliary_loss(self) -> Tensor | None:
        """Return what training adds to the loss of the predictions, from the last forward pass; None: nothing."""
        return None


@runtime_checkable
class Decoder(Protocol):
    """A model that continues a text token by token and need not read again what it has read."""

    def new_cache(self, batch: int, capacity: int) -> Sequence[Cache]:
        """Return an empty cache for `batch` sequences of up to `capacity` tokens, one entry a layer."""

    def __call__(self, tokens: Tensor, cache: Sequence[Cache] | None = None, last_only: bool = False) -> Tensor:
        """Score the next token after each of `tokens` (B, T), which follow those in the cache."""

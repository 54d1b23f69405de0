"""What every language model has in common: hidden states, and logits made of them."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from lmexp.config.models.base import ModelSection


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

    A family derives from this, is made from its section, and defines `hidden`. All else has a default for a model whose
    output layer is `self.head`, whose hidden states are `d_model` wide, and whose layers lie in an nn.ModuleList.
    Tasks that predict something else than tokens put a head of their own on the hidden states. A model that can
    continue a text without reading it again has `new_cache` too; see Decoder.
    """

    config: ModelSection
    head: nn.Module
    has_fixed_steps: ClassVar[bool] = False
    """Whether each step over one token can run the same operations on the same addresses; see models/replay.py.
    A class that is derived from one with such steps must say so again."""

    def __init__(self, config: ModelSection, vocab_size: int | None = None) -> None:
        """`vocab_size` stands in for that of a config without one; raise ValueError when neither has one."""
        super().__init__()
        rows = config.vocab_size or vocab_size
        if rows is None:
            raise ValueError("the vocabulary must be resolved before a model is built")
        self.config = config
        self.vocab_size: int = rows

    def hidden(self, tokens: Tensor, cache: Sequence[Cache] | None = None, valid: Tensor | None = None) -> Tensor:
        """Return what the head reads at every position: (B, T) int64 -> (B, T, C).

        Args:
            cache: of `new_cache`; `tokens` then follow those seen with it before, and are added to it.
            valid: (B, T) bool, False where a token is padding, which comes last in its sequence; None: no padding.

        Raises ValueError when the tokens, cached ones included, are more than the model's context.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `hidden`")

    def first_position(self, tokens: Tensor, cache: Sequence[Cache] | None = None) -> int:
        """Return the position of the first of `tokens` (B, T), which follow those in the cache.

        Raises ValueError when they are more than the model's context.
        """
        start = cache[0].length if cache else 0
        end = start + tokens.shape[1]
        if end > self.config.context:
            raise ValueError(f"{end} tokens are more than the model's context of {self.config.context}")
        return start

    def features(self, hidden: Tensor) -> Tensor:
        """Return what the output layer multiplies; the hidden states themselves, unless a family has more."""
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Score every token of the vocabulary: (..., C) -> (..., vocab_size)."""
        scores: Tensor = self.head(self.features(hidden))
        return scores

    @property
    def output_layer(self) -> nn.Linear | None:
        """The linear layer that makes the logits of the features; None if they are made in another way."""
        kind, head = type(self), getattr(self, "head", None)
        is_plain = kind.logits is LanguageModel.logits and kind.forward is LanguageModel.forward
        return head if is_plain and type(head) is nn.Linear else None

    def forward(
        self,
        tokens: Tensor,
        cache: Sequence[Cache] | None = None,
        last_only: bool = False,
        valid: Tensor | None = None,
        documents: Tensor | None = None,
        features_only: bool = False,
    ) -> Tensor:
        """Return logits at every position, (B, T) int64 -> (B, T, vocab_size); see `hidden`.

        Args:
            last_only: score the last position alone, (B, 1, vocab_size): all that a continuation needs.
            documents: (B, T) int64, the number of each token's document: no position sees another document, and each
                document is read as if it stood alone. For a family whose `hidden` has it (`masks_documents`).
            features_only: return what the output layer multiplies, (B, T, C), instead of logits.
        """
        given: dict[str, Any] = {} if documents is None else {"documents": documents}
        hidden = self.hidden(tokens, cache, valid, **given)
        if features_only:
            return self.features(hidden)
        return self.logits(hidden[:, -1:] if last_only else hidden)

    @property
    def width(self) -> int:
        """C, the width of the hidden states."""
        assert self.config.d_model is not None, "a model whose section has no d_model defines `width`"
        return self.config.d_model

    def drop_head(self) -> None:
        """Remove whatever only `logits` uses: another head takes its place."""
        del self.head

    def layers(self) -> Iterable[nn.Module]:
        """Return the layers, in order: what is gathered at a time where processes share the weights."""
        return find_layers(self)

    def auxiliary_loss(self) -> Tensor | None:
        """Return what training adds to the loss of the predictions, from the last forward pass; None: nothing."""
        return None


def find_layers(body: nn.Module) -> list[nn.Module]:
    """Return the members of a model's outermost lists of modules that hold matrices: its blocks, in order."""
    layers: list[nn.Module] = []
    for child in body.children():
        if not isinstance(child, nn.ModuleList):
            layers += find_layers(child)
        elif all(any(weight.ndim > 1 for weight in layer.parameters()) for layer in child):
            layers += child
    return layers


@runtime_checkable
class Decoder(Protocol):
    """A model that continues a text token by token and need not read again what it has read."""

    def new_cache(self, batch: int, capacity: int) -> Sequence[Cache]:
        """Return an empty cache for `batch` sequences of up to `capacity` tokens, one entry a layer."""

    def __call__(self, tokens: Tensor, cache: Sequence[Cache] | None = None, last_only: bool = False) -> Tensor:
        """Score the next token after each of `tokens` (B, T), which follow those in the cache."""

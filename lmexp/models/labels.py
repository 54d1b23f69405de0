"""A head over labels on any model's hidden states, in place of the one over its vocabulary."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lmexp.config.tasks.base import Pooling
from lmexp.models.base import LanguageModel


class LabelModel(nn.Module):
    """Scores labels for a whole sequence, or for each of its positions."""

    def __init__(self, body: LanguageModel, n_labels: int, pooling: Pooling | None) -> None:
        """`body` loses its head; `pooling` says which states a sequence's label is read off, None: each its own."""
        super().__init__()
        body.drop_head()
        self.body, self.pooling = body, pooling
        self.head = nn.Linear(body.width, n_labels)
        nn.init.normal_(self.head.weight, 0.0, 0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Score labels: (B, T) int64 -> (B, labels), or (B, T, labels) without pooling.

        `valid` is (B, T) bool, False where a token is padding, which comes last in its sequence.
        """
        hidden = self.body.hidden(tokens, valid=valid)  # (B, T, C)
        return self.head(hidden if self.pooling is None else _pool(hidden, valid, self.pooling))

    def layers(self) -> Iterable[nn.Module]:
        """Return the layers, in order: what is gathered at a time where processes share the weights."""
        return self.body.layers()

    def auxiliary_loss(self) -> Tensor | None:
        """See LanguageModel.auxiliary_loss."""
        return self.body.auxiliary_loss()


def _pool(hidden: Tensor, valid: Tensor | None, pooling: Pooling) -> Tensor:
    """Return one state for each sequence: (B, T, C) -> (B, C)."""
    if pooling == "first":
        return hidden[:, 0]
    if valid is None:
        return hidden[:, -1] if pooling == "last" else hidden.mean(1)
    lengths = valid.sum(1)
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
    return (hidden * valid.unsqueeze(-1)).sum(1) / lengths.unsqueeze(-1)

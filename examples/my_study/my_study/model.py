"""A causal language model without attention: each position sees the average of the embeddings up to it."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lmexp.config.models.base import CountedSection
from lmexp.models.base import Cache, LanguageModel


class AverageConfig(CountedSection):
    """What the config of the model may say, besides the keys of every model."""

    target: Literal["my_study.model.Average"] = Field(alias="_target_")
    family: str = "average"
    n_layers: int = 2
    d_model: int = 32
    dropout: float = 0.0


class Average(LanguageModel):
    """Residual feed-forward layers, each over the average of all positions up to its own."""

    Config = AverageConfig

    def __init__(self, config: AverageConfig) -> None:
        super().__init__(config)
        width = config.d_model
        self.embedding = nn.Embedding(self.vocab_size, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU()) for _ in range(config.n_layers)
        )
        self.head = nn.Linear(width, self.vocab_size, bias=False)

    def hidden(self, tokens: Tensor, cache: Sequence[Cache] | None = None, valid: Tensor | None = None) -> Tensor:
        """Return what the head reads: (B, T) -> (B, T, C)."""
        stream = self.embedding(tokens)
        counts = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)[:, None]
        for block in self.blocks:
            stream = stream + block(stream.cumsum(1) / counts)  # (B, T, C)
        return stream

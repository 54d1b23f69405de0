"""BERT: the encoder whose positions see the whole sequence.

Notable choices: learned positions; a norm after the embeddings and after each half of a block, none after the last
block; GELU in its exact form; a head that transforms the hidden state before it scores tokens by the embedding's
table and a bias for each (Devlin et al. 2018, and the code published with it). There is one segment, so its embedding
is part of the positions'; the sentence-pair head is left out. Matrices start from N(0, 0.02).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmexp.config.models.bert import BertConfig
from lmexp.models.base import Cache, LanguageModel
from lmexp.models.layers import Attention, LayerNorm, init_normal


class Bert(LanguageModel):
    """A language model that maps tokens to logits over the token at each position, seen from both sides.

    Weights are drawn from torch's global generator: seed it for a model that can be made again.
    """

    config: BertConfig

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        width, eps = config.d_model, config.norm_eps
        self.token_embedding = nn.Embedding(self.vocab_size, width)
        self.position_embedding = nn.Embedding(config.context, width)
        self.norm = nn.LayerNorm(width, eps)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.n_layers))
        self.head_transform = nn.Linear(width, width)
        self.head_norm = nn.LayerNorm(width, eps)
        self.head = nn.Linear(width, self.vocab_size)

        init_normal(self)
        self.head.weight = self.token_embedding.weight

    def hidden(self, tokens: Tensor, cache: Sequence[Cache] | None = None, valid: Tensor | None = None) -> Tensor:
        """See LanguageModel.hidden; there is no cache, for a new token changes what all others see."""
        if cache is not None:
            raise ValueError("an encoder has no cache: each new token changes every position")
        self.first_position(tokens)
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.norm(self.token_embedding(tokens) + self.position_embedding(positions)))  # (B, T, C)
        mask = None if valid is None else valid[:, None, None]  # (B, 1, 1, T): nobody looks at padding
        for block in self.blocks:
            x = block(x, mask)
        return x

    def features(self, hidden: Tensor) -> Tensor:
        """See LanguageModel.features."""
        return self.head_norm(F.gelu(self.head_transform(hidden)))

    def drop_head(self) -> None:
        """See LanguageModel.drop_head: the transform, its norm and the bias go; the table stays with the embedding."""
        del self.head_transform, self.head_norm, self.head


class EncoderBlock(nn.Module):
    """A post-norm Transformer block: attention, then feed-forward, each added to the stream and normalised with it."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width, hidden, eps = config.d_model, config.d_feed_forward, config.norm_eps
        self.attention = Attention(width, config.n_heads, config.dropout)
        self.norm_attention = LayerNorm(width, eps)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.norm_feed_forward = LayerNorm(width, eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """One layer: (B, T, C) -> (B, T, C); `mask` as Attention has it."""
        x = self.norm_attention(x + self.dropout(self.attention(x, mask)))
        return self.norm_feed_forward(x + self.dropout(self.down(F.gelu(self.up(x)))))

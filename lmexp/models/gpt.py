"""GPT: the decoder-only Transformer of GPT-2 and GPT-3.

Notable choices: learned positions, norms before each half of a block and one after the last, GELU,
embedding and output head tied unless asked otherwise. Matrices start from N(0, 0.02), those that write
into the residual stream from N(0, 0.02 / sqrt(2 n_layers)) (Radford et al. 2019, section 2.3). muP, where a base width
is set, changes that (config/models/mup.py).
Attention is dense in every layer, also at GPT-3's sizes, which alternate with banded ones in the paper.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lmexp.config.models.gpt import GPTConfig
from lmexp.models.base import Cache, LanguageModel
from lmexp.models.layers import Block, KVCache, fixed_position, init_normal, places_in_documents, same_document
from lmexp.models.mup import apply_mup


class GPT(LanguageModel):
    """A language model that maps tokens to logits over the next token.

    Weights are drawn from torch's global generator: seed it for a model that can be made again.
    """

    config: GPTConfig
    has_fixed_steps = True

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.token_embedding = nn.Embedding(self.vocab_size, config.d_model)
        self.position_embedding = nn.Embedding(config.context, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(config.d_model, config.n_heads, config.d_feed_forward, config.dropout, config.bias)
            for _ in range(config.n_layers)
        )
        self.norm = nn.LayerNorm(config.d_model, bias=config.bias)
        self.head = nn.Linear(config.d_model, self.vocab_size, bias=False)

        init_normal(self)
        residual_std = 0.02 / math.sqrt(2 * config.n_layers)
        for name, weight in self.named_parameters():
            if name.endswith(("attention.out.weight", "feed_forward.down.weight")):
                nn.init.normal_(weight, 0.0, residual_std)
        apply_mup(self.blocks, config.width_multiple, config.attention_scale(config.d_model // config.n_heads))
        self.output_multiplier = 1 / config.width_multiple
        if config.tie_embeddings:
            self.head.weight = self.token_embedding.weight

    def hidden(
        self,
        tokens: Tensor,
        cache: Sequence[Cache] | None = None,
        valid: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """See LanguageModel.hidden; what is padding comes last, where no other position sees it."""
        positions, mask = fixed_position(cache), same_document(documents)
        if positions is None:
            start = self.first_position(tokens, cache)
            positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        if documents is not None:
            positions = places_in_documents(documents)
        x = self.dropout(self.token_embedding(tokens) + self.position_embedding(positions))  # (B, T, C)
        for index, block in enumerate(self.blocks):
            x = block(x, cache[index] if cache else None, mask)
        x = self.norm(x)
        return x if self.output_multiplier == 1 else x * self.output_multiplier

    def new_cache(self, batch: int, capacity: int | None = None) -> list[KVCache]:
        """Return an empty cache for `batch` sequences of up to `capacity` tokens (the context), one entry a layer."""
        config, like = self.config, self.norm.weight
        shape = (batch, config.n_heads, capacity or config.context, config.d_model // config.n_heads)
        return [KVCache(like.new_empty(shape, requires_grad=False)) for _ in range(config.n_layers)]

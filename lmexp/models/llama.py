"""Llama: the decoder-only Transformer of Touvron et al. 2023, and of Mistral and Qwen3, which differ in settings.

Notable choices: rotary positions, RMSNorm before each half of a block and after the last, SwiGLU, no biases,
keys and values shared by groups of heads where asked for, head untied unless asked otherwise. Weights start as
GPT's: N(0, 0.02), those that write into the residual stream from N(0, 0.02 / sqrt(2 n_layers)), or as muP has it.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from lmexp.config.models.llama import LlamaSection
from lmexp.models.base import Cache, LanguageModel
from lmexp.models.layers import (
    Attention,
    FixedCache,
    KVCache,
    RMSNorm,
    Rotary,
    SwiGLU,
    fixed_position,
    init_normal,
    same_document,
)
from lmexp.models.mup import apply_mup


class LlamaBlock(nn.Module):
    """A pre-norm Transformer block: attention, then any feed-forward layer, each added to the stream."""

    def __init__(self, config: LlamaSection, feed_forward: nn.Module) -> None:
        super().__init__()
        self.window = config.window
        self.norm_attention = RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(
            config.d_model,
            config.n_heads,
            config.dropout,
            bias=False,
            n_kv_heads=config.kv_heads,
            head_size=config.d_head,
            qk_norm_eps=config.norm_eps if config.qk_norm else None,
        )
        self.norm_feed_forward = RMSNorm(config.d_model, config.norm_eps)
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, rotary: Rotary, cache: KVCache | FixedCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """One layer: (B, T, C) -> (B, T, C); `mask` as Attention has it."""
        mixed = self.attention(self.norm_attention(x), mask, True, rotary, cache, self.window)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))


class Llama(LanguageModel):
    """A language model that maps tokens to logits over the next token.

    Weights are drawn from torch's global generator: seed it for a model that can be made again.
    """

    config: LlamaSection
    has_fixed_steps = True

    def __init__(self, config: LlamaSection) -> None:
        super().__init__(config)
        self.token_embedding = nn.Embedding(self.vocab_size, config.d_model)
        self.rotary = Rotary(config.d_head, config.context, config.rope_theta)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(LlamaBlock(config, self.new_feed_forward()) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = nn.Linear(config.d_model, self.vocab_size, bias=False)

        init_normal(self)
        residual_std = 0.02 / math.sqrt(2 * config.n_layers)
        for name, weight in self.named_parameters():
            if name.endswith(("attention.out.weight", "down.weight")):
                nn.init.normal_(weight, 0.0, residual_std)
        apply_mup(self.blocks, config.width_multiple, config.attention_scale(config.d_head))
        self.output_multiplier = 1 / config.width_multiple
        if config.tie_embeddings:
            self.head.weight = self.token_embedding.weight

    def new_feed_forward(self) -> nn.Module:
        """Return a layer's second half, which families that are built on this one replace: (B, T, C) -> (B, T, C)."""
        return SwiGLU(self.config.d_model, self.config.d_feed_forward)

    def hidden(
        self,
        tokens: Tensor,
        cache: Sequence[Cache] | None = None,
        valid: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """See LanguageModel.hidden; what is padding comes last, where no other position sees it."""
        if fixed_position(cache) is None:
            self.first_position(tokens, cache)
        mask = same_document(documents)
        x = self.dropout(self.token_embedding(tokens))  # (B, T, C)
        for index, block in enumerate(self.blocks):
            x = block(x, self.rotary, cache[index] if cache else None, mask)
        x = self.norm(x)
        return x if self.output_multiplier == 1 else x * self.output_multiplier

    def new_cache(self, batch: int, capacity: int | None = None) -> list[KVCache]:
        """Return an empty cache for `batch` sequences of up to `capacity` tokens (the context), one entry a layer.

        All tokens are kept, also those that have left the window.
        """
        config, like = self.config, self.norm.weight
        shape = (batch, config.kv_heads, capacity or config.context, config.d_head)
        return [KVCache(like.new_empty(shape, requires_grad=False)) for _ in range(config.n_layers)]

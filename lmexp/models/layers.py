"""Layers that model families share. Shapes: B sequences, T positions, C = d_model, H heads of D."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class KVCache:
    """The keys and values of one layer for the tokens seen so far, in buffers that are made once.

    Appending writes into the buffers, so a step costs no copy of what is there already.
    """

    def __init__(self, keys: Tensor) -> None:
        """`keys` is an empty buffer (B, H, T_max, D); one like it is made for the values."""
        self.keys = keys
        self.values = torch.empty_like(keys)
        self.length = 0
        """Positions that are filled, from the first on."""

    @property
    def capacity(self) -> int:
        """T_max, the positions there is room for."""
        return self.keys.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of both buffers, filled or not."""
        return self.keys.nbytes + self.values.nbytes

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store those of the next T positions, (B, H, T, D) each, and return all so far: (B, H, length, D).

        Raises ValueError when there is no room for them.
        """
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"{end} tokens are more than the cache's {self.capacity}")
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


@runtime_checkable
class Decoder(Protocol):
    """A model that continues a text token by token and need not read again what it has read."""

    def new_cache(self, batch: int, capacity: int) -> list[KVCache]:
        """Return an empty cache for `batch` sequences of up to `capacity` tokens, one entry a layer."""
        ...

    def __call__(self, tokens: Tensor, cache: list[KVCache] | None = None, last_only: bool = False) -> Tensor:
        """Score the next token after each of `tokens` (B, T), which follow those in the cache."""
        ...


class CausalSelfAttention(nn.Module):
    """Multi-head self-attention in which a position sees itself and those before it.

    Vaswani et al. 2017, section 3.2. The softmax and both of its matmuls run in torch's fused kernel.
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=bias)
        self.out = nn.Linear(d_model, d_model, bias=bias)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Mix positions, and those in the cache into them: (B, T, C) -> (B, T, C)."""
        batch, length, width = x.shape
        heads = self.qkv(x).view(batch, length, 3, self.n_heads, width // self.n_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        before = cache.length if cache is not None else 0
        if cache is not None:
            key, value = cache.append(key, value)  # each (B, H, before + T, D)
        # A single new token sees everything. Several see all that is cached and a triangle of themselves;
        # `is_causal` alone would align that triangle with the first position instead of the last.
        mask = None
        if before and length > 1:
            mask = torch.ones(length, before + length, dtype=torch.bool, device=x.device).tril(before)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=not before,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class FeedForward(nn.Module):
    """Two linear layers with GELU, in its tanh form (Hendrycks and Gimpel 2016), as GPT-2 has it."""

    def __init__(self, d_model: int, d_ff: int, bias: bool) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position by itself: (B, T, C) -> (B, T, C)."""
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """A pre-norm Transformer block: attention, then feed-forward, each added to the stream."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(d_model, bias=bias)
        self.attention = CausalSelfAttention(d_model, n_heads, dropout, bias)
        self.norm_feed_forward = nn.LayerNorm(d_model, bias=bias)
        self.feed_forward = FeedForward(d_model, d_ff, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """One layer: (B, T, C) -> (B, T, C)."""
        x = x + self.dropout(self.attention(self.norm_attention(x), cache))
        return x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))


@torch.no_grad()
def init_normal(module: nn.Module, std: float = 0.02) -> None:
    """Draw every matrix and embedding from N(0, std), as GPT-2 does; biases start at 0, norms at 1."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            layer.weight.normal_(0.0, std)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            layer.bias.zero_()

"""Layers that model families share. Shapes: B sequences, T positions, C = d_model, H heads of D."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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

    def forward(self, x: Tensor) -> Tensor:
        """Mix positions: (B, T, C) -> (B, T, C)."""
        batch, length, width = x.shape
        heads = self.qkv(x).view(batch, length, 3, self.n_heads, width // self.n_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        mixed = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, dropout_p=self.dropout if self.training else 0.0
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

    def forward(self, x: Tensor) -> Tensor:
        """One layer: (B, T, C) -> (B, T, C)."""
        x = x + self.dropout(self.attention(self.norm_attention(x)))
        return x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))


@torch.no_grad()
def init_normal(module: nn.Module, std: float = 0.02) -> None:
    """Draw every matrix and embedding from N(0, std), as GPT-2 does; biases start at 0, norms at 1."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            layer.weight.normal_(0.0, std)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            layer.bias.zero_()

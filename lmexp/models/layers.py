"""Layers that model families share. Shapes: B sequences, T positions, C = d_model, H heads of D."""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmexp.models import cpu_attention
from lmexp.models.stacked import stack_on_load


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

    def select(self, rows: Tensor) -> None:
        """Keep these of the B sequences, in this order, some several times or not at all: (B',) int64."""
        self.keys, self.values = self.keys[rows], self.values[rows]


class FixedCache:
    """The buffers of a KVCache, filled one token at a time at a position that is a tensor on the device.

    So each step runs the same operations on the same addresses. Attention reads the whole buffers, with a mask over
    what is not filled yet.
    """

    def __init__(self, cache: KVCache, position: Tensor) -> None:
        """Take over the buffers; `position`, (1,) int64, is where the next token goes, and the caller moves it."""
        self.keys, self.values, self.position = cache.keys, cache.values, position
        # Masked values are multiplied by 0, which is not a number for some of what lies in new memory.
        self.keys[:, :, cache.length :] = 0
        self.values[:, :, cache.length :] = 0

    @property
    def length(self) -> int:
        """Positions that are filled. This waits for the device, so no step may ask for it."""
        return int(self.position)

    @property
    def nbytes(self) -> int:
        """Bytes of both buffers, filled or not."""
        return self.keys.nbytes + self.values.nbytes

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store those of the next token, (B, H, 1, D) each, and return the whole buffers: (B, H, T_max, D)."""
        self.keys.index_copy_(2, self.position, keys)
        self.values.index_copy_(2, self.position, values)
        return self.keys, self.values

    def sees(self, window: int | None) -> Tensor:
        """Return which positions the next token may look at: (1, T_max) bool."""
        positions = torch.arange(self.keys.shape[2], device=self.position.device)
        filled = positions <= self.position
        return (filled if window is None else filled & (positions > self.position - window))[None]


def fixed_position(cache: Sequence[object] | None) -> Tensor | None:
    """Return where the next token goes, (1,) int64 on the device, if the layers' caches are fixed to a tensor."""
    return cache[0].position if cache and isinstance(cache[0], FixedCache) else None


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021, section 3.4.2): pairs of a head's values are turned by angles that grow with
    the position, so that products of queries and keys depend on distances alone.

    The pairs are the i-th value of the first half and the i-th of the second, as in Llama's published weights.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, head_size: int, positions: int, theta: float) -> None:
        super().__init__()
        self.head_size, self.positions, self.theta = head_size, positions, theta
        cos, sin = self._tables()
        self.register_buffer("cos", cos, persistent=False)  # (positions, D) each
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x: Tensor, start: int | Tensor) -> Tensor:
        """Turn queries or keys (B, H, T, D) in float32; `start` is the first position, or a tensor of a single one."""
        places = start if isinstance(start, Tensor) else slice(start, start + x.shape[2])
        cos, sin = self.cos[places], self.sin[places]
        first, second = x.chunk(2, dim=-1)
        return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)

    def _tables(self) -> tuple[Tensor, Tensor]:
        wavelengths = self.theta ** (torch.arange(0, self.head_size, 2, dtype=torch.float32) / self.head_size)
        angles = torch.outer(torch.arange(self.positions, dtype=torch.float32), 1 / wavelengths).repeat(1, 2)
        return angles.cos(), angles.sin()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the model to another device, and stay in float32 where it goes to another type."""
        super()._apply(fn, recurse)
        cos, sin = self._tables()
        self.cos, self.sin = cos.to(self.cos.device), sin.to(self.sin.device)
        return self


class LayerNorm(nn.LayerNorm):
    """torch's, for weights in another type than what comes in, such as those that fsdp gathers in bf16."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        weight, bias = (None if each is None else each.to(x.dtype) for each in (self.weight, self.bias))
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class RMSNorm(nn.RMSNorm):
    """Divides by the root mean square (Zhang and Sennrich 2019), computed in float32, in the type of what comes in.

    Under autocast that may be another than the weight's, for which torch has no fused kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Multi-head attention of a sequence on itself (Vaswani et al. 2017, section 3.2).

    One matmul makes queries, keys and values. Keys and values may have fewer heads than queries, each read by several
    of them (Ainslie et al. 2023).
    """

    scale: float | None = None
    """What the scores are multiplied by; None means 1 / sqrt(head_size)."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        n_kv_heads: int | None = None,
        head_size: int | None = None,
        qk_norm_eps: float | None = None,
    ) -> None:
        """`qk_norm_eps`, where given, normalises the queries and keys of each head (Dehghani et al. 2023)."""
        super().__init__()
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads or n_heads
        self.head_size, self.dropout = head_size or d_model // n_heads, dropout
        self.qkv = nn.Linear(d_model, (self.n_heads + 2 * self.n_kv_heads) * self.head_size, bias=bias)
        self.out = nn.Linear(self.n_heads * self.head_size, d_model, bias=bias)
        self.register_load_state_dict_pre_hook(stack_on_load)
        norms = [nn.Identity() if qk_norm_eps is None else RMSNorm(self.head_size, qk_norm_eps) for _ in range(2)]
        self.norm_query, self.norm_key = norms

    def stacked(self) -> dict[str, dict[str, int]]:
        """See models/stacked.py."""
        queries, keys = self.n_heads * self.head_size, self.n_kv_heads * self.head_size
        return {"qkv": {"query": queries, "key": keys, "value": keys}}

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        is_causal: bool = False,
        rotary: Rotary | None = None,
        cache: KVCache | FixedCache | None = None,
        window: int | None = None,
    ) -> Tensor:
        """Mix positions, and those in the cache into them: (B, T, C) -> (B, T, C).

        Args:
            mask: bool, broadcast to (B, H, T, S), True where a position may look; besides `is_causal` and `window`.
            is_causal: whether a position sees itself and those before it only.
            window: how many of these it sees, itself included; None: all.
        """
        fixed = cache if isinstance(cache, FixedCache) else None
        before = 0 if cache is None or isinstance(cache, FixedCache) else cache.length
        heads = self.qkv(x).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
        query, key, value = heads.split((self.n_heads, self.n_kv_heads, self.n_kv_heads), dim=1)  # (B, H, T, D) each
        query, key = self.norm_query(query), self.norm_key(key)
        if rotary is not None:
            start = before if fixed is None else fixed.position
            query, key = rotary(query, start), rotary(key, start)
            if isinstance(self.norm_query, nn.Identity):
                value = value.contiguous()  # a view would keep all of what the projection made until the backward pass
        if cache is not None:
            key, value = cache.append(key, value)
        if fixed is not None:
            return self.attend(query, key, value, fixed.sees(window), False)
        return self.attend(query, key, value, *_causal_mask(x.shape[1], before, mask, is_causal, window, x.device))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
        """Return the heads' mixture, projected: (B, H, T, D), ... -> (B, T, C)."""
        dropout = self.dropout if self.training else 0.0
        by_matmuls = is_causal and mask is None and not dropout and cpu_attention.is_faster(query, key, value)
        is_grouped = self.n_kv_heads < self.n_heads
        if is_grouped and query.shape[2] == 1 and not is_causal:
            # A group's queries at one position see the same keys, as queries at several positions do: (B, KV heads, H /
            # KV heads, D). So no kernel needs to know of groups, and no keys are copied.
            query, is_grouped = query.unflatten(1, (self.n_kv_heads, -1)).squeeze(3), False
        # Among torch's kernels on CUDA, only flash attention knows groups, and it takes neither masks nor float32: what
        # is left then holds all T x T scores. Copies of keys and values are cheaper, and other fused kernels read them.
        if is_grouped and (by_matmuls or mask is not None or query.dtype == torch.float32):
            key, value = (heads.repeat_interleave(self.n_heads // self.n_kv_heads, 1) for heads in (key, value))
            is_grouped = False
        if by_matmuls:
            mixed = cpu_attention.causal_attention(query, key, value, self.scale or self.head_size**-0.5)
            return self.out(mixed.transpose(1, 2).flatten(2))
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=is_causal,
            dropout_p=dropout,
            scale=self.scale,
            enable_gqa=is_grouped,
        )
        if mixed.shape[1] < self.n_heads:  # (B, KV heads, H / KV heads, D), from above
            return self.out(mixed.flatten(1)[:, None])
        return self.out(mixed.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head attention of a sequence on another one (Vaswani et al. 2017, section 3.2).

    One matmul makes the keys and values of the other sequence.
    """

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.head_size = d_model // n_heads
        self.query = nn.Linear(d_model, d_model)
        self.kv = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.register_load_state_dict_pre_hook(stack_on_load)

    def stacked(self) -> dict[str, dict[str, int]]:
        """See models/stacked.py."""
        return {"kv": dict.fromkeys(("key", "value"), self.query.out_features)}

    def keys_and_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values of what is looked at: (B, S, C) -> twice (B, H, S, D)."""
        key, value = self.kv(memory).unflatten(-1, (-1, self.head_size)).transpose(1, 2).chunk(2, dim=1)
        return key, value

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix the other sequence's values into each position: (B, T, C), twice (B, H, S, D) -> (B, T, C).

        `mask` is bool, broadcast to (B, H, T, S), True where a position may look.
        """
        query = self.query(x).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
        return self.out(F.scaled_dot_product_attention(query, keys, values, mask).transpose(1, 2).flatten(2))


def padding_mask(valid: Tensor | None) -> Tensor | None:
    """Say which source positions may be seen, for every head and every position that looks: (B, S) -> (B, 1, 1, S)."""
    return None if valid is None else valid[:, None, None, :]


def same_document(documents: Tensor | None) -> Tensor | None:
    """Return which positions are of one document, as a mask of attention: (B, T) int64 -> (B, 1, T, T) bool."""
    return None if documents is None else documents[:, None, :, None] == documents[:, None, None, :]


def places_in_documents(documents: Tensor) -> Tensor:
    """Return the place of each position in its document, from 0 on: (B, T) int64 -> (B, T) int64."""
    places = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return places - torch.where(begins, places, 0).cummax(1).values


def _causal_mask(
    length: int, before: int, mask: Tensor | None, is_causal: bool, window: int | None, device: torch.device
) -> tuple[Tensor | None, bool]:
    """Return the mask of `length` positions that follow `before` others, and whether the kernel's own triangle does.

    That triangle is aligned with the first key, so it serves only where nothing comes before.
    """
    narrow = window is not None and window < before + length
    if not is_causal or (length == 1 and not narrow):
        return mask, False
    if mask is None and not before and not narrow:
        return None, True
    sees = torch.ones(length, before + length, dtype=torch.bool, device=device).tril(before)
    if window is not None and narrow:
        sees = sees.triu(before - window + 1)
    return sees if mask is None else sees & mask, False


class SwiGLU(nn.Module):
    """A feed-forward layer whose hidden values are gated (Shazeer 2020): three matrices, no biases."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=False)
        self.up = nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position by itself: (..., C) -> (..., C)."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


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
        self.norm_attention = LayerNorm(d_model, bias=bias)
        self.attention = Attention(d_model, n_heads, dropout, bias)
        self.norm_feed_forward = LayerNorm(d_model, bias=bias)
        self.feed_forward = FeedForward(d_model, d_ff, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KVCache | FixedCache | None = None, mask: Tensor | None = None) -> Tensor:
        """One layer: (B, T, C) -> (B, T, C); `mask` as Attention has it."""
        x = x + self.dropout(self.attention(self.norm_attention(x), mask, is_causal=True, cache=cache))
        return x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))


@torch.no_grad()
def init_normal(module: nn.Module, std: float = 0.02) -> None:
    """Draw every matrix and embedding from N(0, std), as GPT-2 does; biases start at 0, norms at 1."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            layer.weight.normal_(0.0, std)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            layer.bias.zero_()

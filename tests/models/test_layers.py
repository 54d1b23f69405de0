"""Layers that families share, where no family's test looks."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lmexp.models.layers import Attention, CausalSelfAttention, KVCache

LENGTH = 6


def mask_of(length: int) -> torch.Tensor:
    """A window of two."""
    return torch.ones(length, length, dtype=torch.bool).tril().triu(-1)


@pytest.mark.parametrize(
    ("dtype", "masked", "grouped"),
    [(torch.float32, False, False), (torch.float32, True, False), (torch.bfloat16, True, False),
     (torch.bfloat16, False, True)],
)  # fmt: skip
@torch.no_grad()
def test_groups_of_heads_are_left_to_the_kernel_only_where_a_fused_one_on_cuda_knows_them(
    dtype: torch.dtype, masked: bool, grouped: bool, monkeypatch: pytest.MonkeyPatch
):
    attention = Attention(24, 6, n_kv_heads=2).to(dtype).eval()
    dice = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(2, heads, LENGTH, 4, generator=dice).to(dtype) for heads in (6, 2, 2))
    mask = mask_of(LENGTH) if masked else None
    kernel, asked = F.scaled_dot_product_attention, []

    def spy(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        asked.append((key.shape[1], value.shape[1], options["enable_gqa"]))
        return kernel(query, key, value, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    mixed = attention.attend(query, key, value, mask, not masked)
    assert asked == [(2, 2, True) if grouped else (6, 6, False)]
    expected = kernel(query, key, value, attn_mask=mask, is_causal=not masked, enable_gqa=True)
    expected = attention.out(expected.transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(mixed[0, 0], attention.out(value[0, [0, 0, 0, 1, 1, 1], 0].flatten()))


@pytest.mark.parametrize("pieces", [[LENGTH], [1] * LENGTH, [2, 3, 1], [1, 4, 1]])
@torch.no_grad()
def test_both_kinds_of_attention_look_at_the_same_positions(pieces: list[int]):
    ours, other = CausalSelfAttention(24, 3, 0.0, bias=True).eval(), Attention(24, 3).eval()
    for index, part in enumerate((other.query, other.key, other.value)):
        part.weight.copy_(ours.qkv.weight.chunk(3)[index])
        part.bias.copy_(ours.qkv.bias.chunk(3)[index])
    other.out.load_state_dict(ours.out.state_dict())
    x = torch.randn(2, LENGTH, 24, generator=torch.Generator().manual_seed(3))
    caches = [KVCache(torch.empty(2, 3, LENGTH, 8)) for _ in range(2)]
    read = [(ours(piece, caches[0]), other(piece, is_causal=True, cache=caches[1])) for piece in x.split(pieces, dim=1)]
    first, second = (torch.cat(each, dim=1) for each in zip(*read, strict=True))
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first, ours(x))

"""Layers that families share, where no family's test looks."""

from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lmexp.models import cpu_attention
from lmexp.models.layers import Attention, KVCache
from lmexp.models.stacked import split_parts

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
    monkeypatch.setattr(cpu_attention, "is_faster", lambda *heads: False)  # as on CUDA
    mixed = attention.attend(query, key, value, mask, not masked)
    assert asked == [(2, 2, True) if grouped else (6, 6, False)]
    expected = kernel(query, key, value, attn_mask=mask, is_causal=not masked, enable_gqa=True)
    expected = attention.out(expected.transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(mixed[0, 0], attention.out(value[0, [0, 0, 0, 1, 1, 1], 0].flatten()))


@pytest.mark.parametrize("pieces", [[1] * LENGTH, [2, 3, 1], [1, 4, 1]])
@torch.no_grad()
def test_attention_sees_the_same_positions_in_pieces_as_at_once(pieces: list[int]):
    attention, cache = Attention(24, 3).eval(), KVCache(torch.empty(2, 3, LENGTH, 8))
    x = torch.randn(2, LENGTH, 24, generator=torch.Generator().manual_seed(3))
    read = [attention(piece, is_causal=True, cache=cache) for piece in x.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(read, dim=1), attention(x, is_causal=True))


class Apart(Attention):
    """Attention with a matmul each for queries, keys and values, as earlier versions had it."""

    def __init__(self) -> None:
        super().__init__(24, 6, n_kv_heads=2)
        self.query, self.key, self.value = nn.Linear(24, 24), nn.Linear(24, 8), nn.Linear(24, 8)
        del self.qkv
        self._load_state_dict_pre_hooks.clear()

    def qkv(self, x: torch.Tensor) -> torch.Tensor:
        """Return queries, keys and values side by side."""
        return torch.cat([self.query(x), self.key(x), self.value(x)], dim=-1)


@torch.no_grad()
def test_weights_of_queries_keys_and_values_that_were_apart_are_stacked_when_they_are_loaded_and_split_again():
    old, new = Apart(), Attention(24, 6, n_kv_heads=2)
    new.load_state_dict(old.state_dict())  # strict: every weight has its place
    x = torch.randn(2, LENGTH, 24, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(new(x, is_causal=True), old(x, is_causal=True))
    split = split_parts(new.state_dict(), new)
    assert split.keys() == old.state_dict().keys()
    assert all(torch.equal(split[name], weight) for name, weight in old.state_dict().items())


@pytest.mark.parametrize(("length", "n_kv_heads"), [(40, 6), (128, 6), (300, 2)])
def test_attention_in_bf16_on_a_cpu_is_as_exact_as_bf16_allows_without_torchs_kernel(
    length: int, n_kv_heads: int, monkeypatch: pytest.MonkeyPatch
):
    dice, kernel = torch.Generator().manual_seed(3), Mock(wraps=F.scaled_dot_product_attention)
    monkeypatch.setattr(F, "scaled_dot_product_attention", kernel)
    attention = Attention(192, 6, n_kv_heads=n_kv_heads)
    attention.scale = 0.9
    x, toward = torch.randn(2, 12, length, 192, generator=dice)  # two pieces, but for the shortest
    results = []
    for narrow in (True, False):
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            mixed = attention(given, is_causal=True)
        assert kernel.called != narrow
        mixed.backward(toward.to(mixed.dtype))
        assert given.grad is not None
        results.append((mixed.float(), given.grad))
    for narrow_result, exact in zip(*results, strict=True):
        assert (narrow_result - exact).norm() < 0.02 * exact.norm()

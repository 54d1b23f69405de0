"""bf16 on a CPU without fast kernels for it: the products are those in float32 of the same numbers, then rounded."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lmexp.cost import cpu_products
from lmexp.cost.cpu_products import are_replaced, replace_kernels
from lmexp.cost.device import compiles_bf16
from lmexp.train.products import products

NARROW = torch.bfloat16


@pytest.fixture(autouse=True)
def replaced() -> Iterator[None]:
    """The kernels are there on every CPU, also on one that does not need them."""
    replace_kernels()
    yield
    replace_kernels(False)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small matrices take several pieces too."""
    monkeypatch.setattr(cpu_products, "PIECE", 64)
    monkeypatch.setattr(cpu_products, "MIN_SIDE", 3)


def random(*shape: int) -> Tensor:
    return torch.randn(shape).to(NARROW)


def same_numbers(compute: Callable[..., Tensor], *narrow: Tensor) -> None:
    """Check that a result in bf16 is the rounded result in float32 of the same numbers, up to the order of the sums."""
    result, exact = compute(*narrow), compute(*(each.double() for each in narrow)).float()
    assert result.dtype == NARROW
    torch.testing.assert_close(result.float(), exact, rtol=2**-8, atol=1e-5)  # 2**-8: half of bf16's last digit, twice


sides = st.integers(0, 20)


@given(sides, sides, sides, st.booleans(), st.booleans())
@pytest.mark.usefixtures("small_pieces")
def test_a_product_is_that_of_float32_rounded(rows: int, inner: int, columns: int, turned: bool, added: bool):
    torch.manual_seed(0)
    left = random(inner, rows).T if turned else random(rows, inner)
    right, bias = random(inner, columns), random(columns)
    same_numbers(torch.mm, left, right)
    if added:
        same_numbers(lambda a, b, c: torch.addmm(c, a, b, beta=0.5, alpha=2.0), left, right, bias)
        same_numbers(lambda a, b, c: torch.addmm(c, a, b), left, right, random(rows, columns))


@given(st.integers(0, 5), sides, sides, sides)
@pytest.mark.usefixtures("small_pieces")
def test_a_batch_of_products_is_that_of_float32_rounded(count: int, rows: int, inner: int, columns: int):
    torch.manual_seed(0)
    left, right = random(count, rows, inner), random(count, inner, columns)
    same_numbers(torch.bmm, left, right)
    same_numbers(lambda a, b, c: torch.baddbmm(c, a, b, alpha=0.3), left, right, random(rows, columns))
    assert torch.equal(
        torch.bmm(left, right, out=random(1, 1, 1).resize_(count, rows, columns)), torch.bmm(left, right)
    )


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("mask", "is_causal"),
    [(None, False), (None, True), ("bool", False), ("numbers", False), ("one for all", False)],
)
def test_torchs_fused_attention_and_its_gradients_are_those_of_float32_rounded(mask: str | None, is_causal: bool):
    torch.manual_seed(0)
    heads = [random(5, 2, 12, 8) for _ in range(3)]
    masks: dict[str | None, Any] = {
        "bool": torch.rand(5, 1, 12, 12) > 0.3,
        "numbers": random(5, 2, 12, 12),
        "one for all": torch.rand(12, 12) > 0.3,
    }
    known = masks.get(mask)

    def computed(dtype: torch.dtype) -> list[Tensor]:
        given = [each.detach().to(dtype).requires_grad_() for each in heads]
        wide = known.to(dtype) if mask == "numbers" else known
        mixed = F.scaled_dot_product_attention(*given, attn_mask=wide, is_causal=is_causal, scale=0.4)
        mixed.square().sum().backward()
        return [mixed.detach(), *(each.grad for each in given if each.grad is not None)]

    narrow, exact = computed(NARROW), computed(torch.float64)
    assert [each.dtype for each in narrow] == [NARROW] * 4
    assert narrow[0].transpose(1, 2).is_contiguous(), "as torch's own: what follows needs no copy"
    for mine, true in zip(narrow, exact, strict=True):
        torch.testing.assert_close(mine.double(), true, rtol=2e-2, atol=2e-2 * float(true.abs().max()))


def test_a_layer_learns_with_the_gradients_of_float32():
    """As a run in bf16 does it: autocast, and a backward pass outside of it."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(24, 48), torch.nn.GELU(), torch.nn.Linear(48, 8))
    x = torch.randn(32, 24)

    def gradients(compute: str) -> list[Tensor]:
        layers.zero_grad()
        with torch.autocast("cpu", NARROW, enabled=compute == "bf16"):
            loss = layers(x).float().square().mean()
        loss.backward()
        return [each.grad.clone() for each in layers.parameters() if each.grad is not None]

    for mine, true in zip(gradients("bf16"), gradients("fp32"), strict=True):
        assert float((mine - true).norm() / true.norm()) < 0.01


def test_an_lstm_under_autocast_learns_with_the_gradients_of_float32():
    """On a CPU without bf16 instructions, oneDNN refuses it."""
    torch.manual_seed(0)
    lstm, x = torch.nn.LSTM(12, 16, num_layers=2, batch_first=True), torch.randn(4, 9, 12)

    def gradients(is_narrow: bool) -> list[Tensor]:
        lstm.zero_grad()
        with torch.autocast("cpu", NARROW, enabled=is_narrow):
            mixed, _ = lstm(x)
        assert mixed.dtype == (NARROW if is_narrow else torch.float32)
        mixed.float().square().mean().backward()
        return [each.grad.clone() for each in lstm.parameters() if each.grad is not None]

    narrow, wide = gradients(True), gradients(False)
    assert len(narrow) == len(wide) == 8
    for mine, true in zip(narrow, wide, strict=True):
        assert float((mine - true).norm() / true.norm()) < 0.02


def test_other_types_have_torchs_own_kernels(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a kernel of bf16 was asked")

    monkeypatch.setattr(cpu_products, "_product", refuse)
    replace_kernels(False)
    replace_kernels()
    wide = torch.randn(6, 6)
    assert torch.equal(wide @ torch.eye(6), wide) and torch.equal(torch.bmm(wide[None], torch.eye(6)[None])[0], wide)
    with pytest.raises(AssertionError, match="was asked"):
        wide.to(NARROW) @ wide.to(NARROW)


@pytest.mark.parametrize("is_slow", [False, True])
def test_only_bf16_on_a_cpu_that_needs_it_gets_other_kernels_and_they_go_with_the_block(
    is_slow: bool, monkeypatch: pytest.MonkeyPatch
):
    replace_kernels(False)
    monkeypatch.setattr("lmexp.train.products.has_slow_bf16", lambda: is_slow)
    for compute in ("bf16", "fp8"):
        with pytest.raises(RuntimeError), products(compute):
            assert are_replaced() is is_slow
            with products("fp32"):
                assert not are_replaced()
            assert are_replaced() is is_slow
            raise RuntimeError
        assert not are_replaced()
    for compute in ("fp32", "tf32", "fp16"):
        with products(compute):
            assert not are_replaced()


def test_the_plan_knows_without_torch_whether_bf16_is_fast_here():
    assert compiles_bf16() is not cpu_products.has_slow_bf16()


def test_a_large_product_takes_little_memory(monkeypatch: pytest.MonkeyPatch):
    """No more than three pieces in float32 are there at a time."""
    monkeypatch.setattr(cpu_products, "PIECE", 2**16)
    left, right = random(1024, 512), random(512, 1024)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        torch.mm(left, right)
    now = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    assert 0 < peak <= 1024 * 1024 * 2 + 4 * 256 * 512 * 4

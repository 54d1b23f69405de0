"""The loss that is computed in pieces: torch's own, with its gradients, and less memory."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lmexp.config.pieces import MAX_LOGITS, MIN_ROWS, rows_at_a_time
from lmexp.data.feeds import IGNORED
from lmexp.tasks import cross_entropy
from lmexp.tasks.cross_entropy import linear_cross_entropy

SCALE = 0.37
"""What the loss is multiplied by before its gradient is taken."""


def example(tokens: int, width: int, vocab: int, has_bias: bool, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """Return features, weight and perhaps bias, in float64, and targets, of which some are not predicted."""
    random = torch.Generator().manual_seed(seed)
    shapes = [(tokens, width), (vocab, width), *([(vocab,)] if has_bias else [])]
    tensors = [torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_() for shape in shapes]
    targets = torch.randint(vocab, (tokens,), generator=random)
    targets[torch.rand(tokens, generator=random) < 0.2] = IGNORED
    return tensors, targets


def gradients(loss: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss * SCALE, tensors))


@settings(max_examples=30)
@given(
    tokens=st.integers(1, 40), width=st.integers(1, 9), vocab=st.integers(2, 30), rows=st.integers(1, 50),
    has_bias=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_pieces_of_any_size_give_the_loss_and_the_gradients_of_torch(tokens, width, vocab, rows, has_bias, seed):
    tensors, targets = example(tokens, width, vocab, has_bias, seed)
    bias = tensors[2] if has_bias else None
    whole = F.cross_entropy(F.linear(tensors[0], tensors[1], bias), targets, ignore_index=IGNORED, reduction="sum")
    pieces = linear_cross_entropy(tensors[0], tensors[1], bias, targets, rows)
    assert pieces.item() == pytest.approx(whole.item(), rel=1e-5, abs=1e-5)
    for ours, torchs in zip(gradients(pieces, tensors), gradients(whole, tensors), strict=True):
        assert ours.dtype == torchs.dtype
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-5)  # shares are of float32


def test_few_rows_are_added_up_in_fp16_at_a_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cross_entropy, "MAX_FP16_ROWS", 16)
    tensors, targets = example(50, 8, 30, has_bias=False)
    sizes: list[int] = []

    def piece(features: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        sizes.append(len(features))
        return cross_entropy.piece_of(features, *rest)

    for kind in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", kind):
            linear_cross_entropy(tensors[0].float(), tensors[1].float(), None, targets, rows=40, piece=piece)
    assert sizes == [16, 16, 16, 2, 40, 10]


def test_a_frozen_output_layer_gets_no_gradient_and_the_features_get_theirs():
    tensors, targets = example(20, 8, 30, has_bias=False)
    whole = F.cross_entropy(F.linear(*tensors), targets, ignore_index=IGNORED, reduction="sum")
    frozen = tensors[1].detach()
    linear_cross_entropy(tensors[0], frozen, None, targets, rows=4).backward()
    torch.testing.assert_close(tensors[0].grad, gradients(whole, tensors)[0] / SCALE, rtol=1e-4, atol=1e-5)
    assert frozen.grad is None


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_under_autocast_it_rounds_no_more_than_torch_does(kind: torch.dtype):
    tensors, targets = example(300, 32, 50, has_bias=True)
    exact = gradients(F.cross_entropy(F.linear(*tensors), targets, ignore_index=IGNORED, reduction="sum"), tensors)
    narrow = [tensor.detach().float().requires_grad_() for tensor in tensors]
    with torch.autocast("cpu", kind):
        logits = F.linear(*narrow)
        whole = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")
        pieces = linear_cross_entropy(*narrow, targets, rows=64)
    assert logits.dtype == kind  # the comparison is with products of that type
    assert pieces.item() == pytest.approx(whole.item(), rel=1e-5)
    for ours, torchs, right in zip(gradients(pieces, narrow), gradients(whole, narrow), exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - right).norm() <= 1.1 * (torchs - right).norm() + 1e-6 * right.norm()


class Largest(TorchDispatchMode):
    """Notes the most elements of any tensor that is made in its block."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.elements = max(self.elements, made.numel())
        return made


def test_no_tensor_holds_the_logits_of_more_tokens_than_a_piece_has():
    tensors, targets = example(600, 4, 100, has_bias=False)
    with Largest() as largest:
        gradients(linear_cross_entropy(*tensors, None, targets, rows=50), tensors)
    assert largest.elements == 50 * 100


def test_a_larger_vocabulary_is_taken_in_smaller_pieces():
    for kind, most in MAX_LOGITS.items():
        sizes = [rows_at_a_time(vocab, kind) for vocab in (256, 8192, 50304, 10**9)]
        assert all(larger >= smaller for larger, smaller in pairwise(sizes)) and sizes[-1] == MIN_ROWS
        assert sizes[0] * 256 <= most

"""Causal attention in bf16 on a CPU, by matmuls of a block of queries at a time.

torch's fused kernel for CPUs makes little use of the fast matmuls of bf16: forward and backward, it takes 1.3 to 4
times as long at contexts of 32 to 1,024 (docs/performance.md). Scores are rounded to bf16 before the softmax, which
computes in float32, as in the eager attention of transformers. Nothing of the size of the scores is kept for the
backward pass, which computes them again.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lmexp.config.attention import QUERIES, by_matmuls, sequences_at_once


def is_faster(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether causal attention is faster here than by torch's fused kernel; queries are (B, H, T, D)."""
    is_narrow = query.dtype == key.dtype == value.dtype == torch.bfloat16  # a cache may have another type
    return query.device.type == "cpu" and is_narrow and by_matmuls(*query.shape)


@torch.library.custom_op("lmexp::causal_attention", mutates_args=())
def causal_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Mix the values of each position and those before it: (B, H, T, D) each -> (B, H, T, D).

    It is one operation for torch.compile and for autograd. `scale` is what the scores are multiplied by.
    """
    mixed, later = _heads_last(query), _later(query)
    with torch.autocast("cpu", enabled=False):
        for rows in _pieces(query):
            q, k, v = _contiguous(rows, query, key, value)
            for start, end, shares in _shares(q, k, later, scale):
                block = torch.bmm(shares, v[:, :end])
                mixed[rows, :, start:end] = block.unflatten(0, mixed[rows].shape[:2])
                del shares  # so that it is freed before the next block is computed
    return mixed


@causal_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    return _heads_last(query)


@torch.library.custom_op("lmexp::causal_attention_backward", mutates_args=())
def causal_attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values: (B, H, T, D) each."""
    gradients, later = (_heads_last(query), _heads_last(query), _heads_last(query)), _later(query)
    for rows in _pieces(query):
        g, q, k, v = _contiguous(rows, gradient, query, key, value)
        of_query = torch.empty_like(q)
        sums: list[Tensor] = []  # over the blocks: the gradients of keys and values
        for start, end, shares in _shares(q, k, later, scale):
            part = g[:, start:end]
            of_shares = torch.bmm(part, v[:, :end].transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_shares, shares, -1, shares.dtype).mul_(scale)
            del of_shares
            of_query[:, start:end] = torch.bmm(of_scores, k[:, :end])
            terms = torch.bmm(of_scores.transpose(1, 2), q[:, start:end]), torch.bmm(shares.transpose(1, 2), part)
            if not sums:  # the last block, which sees all keys
                sums = [term.float() if start else term for term in terms]
            else:
                for total, term in zip(sums, terms, strict=True):
                    total[:, :end] += term
            del shares, of_scores, terms
        for heads, result in zip(gradients, (of_query, *sums), strict=True):
            heads[rows] = result.view(heads[rows].shape)
    return gradients


@causal_attention_backward.register_fake
def _(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    return _heads_last(query), _heads_last(query), _heads_last(query)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: Tensor) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    return *causal_attention_backward(gradient, *ctx.saved_tensors, ctx.scale), None


causal_attention.register_autograd(_backward, setup_context=_keep)


def _heads_last(like: Tensor) -> Tensor:
    """Return an empty tensor, (B, H, T, D) as `like`, in the order that the next matmul reads: (B, T, H, D)."""
    batch, heads, length, size = like.shape
    return like.new_empty(batch, length, heads, size).transpose(1, 2)


def _pieces(query: Tensor) -> Iterator[slice]:
    """Yield which sequences are computed at a time; `query` is (B, H, T, D)."""
    size = sequences_at_once(*query.shape[1:3])
    for start in range(0, len(query), size):
        yield slice(start, start + size)


def _contiguous(rows: slice, *tensors: Tensor) -> Iterator[Tensor]:
    """Yield these sequences of each (B, H, T, D) as a contiguous (b H, T, D), which no product has to copy again."""
    for heads in tensors:
        yield heads[rows].flatten(0, 1).contiguous()


def _later(query: Tensor) -> Tensor:
    """Return what is added to the scores of each position: -inf for those after it, (T, T)."""
    length = query.shape[2]
    return torch.full((length, length), -torch.inf, dtype=query.dtype).triu_(1)


def _shares(query: Tensor, key: Tensor, later: Tensor, scale: float) -> Iterator[tuple[int, int, Tensor]]:
    """Yield the first and the last position of each block of queries, and the softmax of its scores, from the end on.

    Queries and keys are (b H, T, D), `later` is that of `_later`, a softmax (b H, end - start, end).
    """
    length = query.shape[1]
    for start in reversed(range(0, length, QUERIES)):
        end = min(start + QUERIES, length)
        seen = key[:, :end].transpose(1, 2)
        yield start, end, torch.baddbmm(later[start:end, :end], query[:, start:end], seen, alpha=scale).softmax(-1)

"""Causal attention in bf16 on a CPU, by matmuls of a block of queries at a time.

torch's fused kernel for CPUs makes little use of the fast matmuls of bf16: forward and backward, it takes 1.3 to 1.6
times as long at contexts of 128 and 256 (docs/performance.md). Scores are rounded to bf16 before the softmax, which
computes in float32, as in the eager attention of transformers. Nothing of the size of the scores is kept for the
backward pass, which computes them again.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lmexp.config.attention import MAX_MATMUL_CONTEXT, MIN_MATMUL_CONTEXT

BLOCK = 128
"""Queries that are scored at a time; they are scored against the keys up to the last of them only."""
SCORES_PER_THREAD = 2**14
"""About so many scores are computed at a time for each thread, but at least those of one sequence: small matmuls are
fast enough, and their results take little memory."""


def is_faster(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether causal attention is faster here than by torch's fused kernel; queries are (B, H, T, D)."""
    is_narrow = query.dtype == key.dtype == value.dtype == torch.bfloat16  # a cache may have another type
    has_length = MIN_MATMUL_CONTEXT <= query.shape[2] <= MAX_MATMUL_CONTEXT
    return query.device.type == "cpu" and is_narrow and has_length


@torch.library.custom_op("lmexp::causal_attention", mutates_args=())
def causal_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Mix the values of each position and those before it: (B, H, T, D) each -> (B, H, T, D).

    It is one operation for torch.compile and for autograd. `scale` is what the scores are multiplied by.
    """
    mixed = _heads_last(query)
    with torch.autocast("cpu", enabled=False):
        for rows in _pieces(query):
            q, k, v = (heads[rows].flatten(0, 1) for heads in (query, key, value))  # (b H, T, D) each
            for start, end, shares in _shares(q, k, scale):
                block = torch.bmm(shares, v[:, :end])
                mixed[rows, :, start:end] = block.unflatten(0, mixed[rows].shape[:2])
    return mixed


@causal_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    return _heads_last(query)


@torch.library.custom_op("lmexp::causal_attention_backward", mutates_args=())
def causal_attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values: (B, H, T, D) each."""
    gradients = _heads_last(query), _heads_last(query), _heads_last(query)
    for rows in _pieces(query):
        g, q, k, v = (heads[rows].flatten(0, 1) for heads in (gradient, query, key, value))  # (b H, T, D) each
        of_query = torch.empty_like(q)
        sums: list[Tensor] = []  # over the blocks: the gradients of keys and values
        for start, end, shares in _shares(q, k, scale):
            part = g[:, start:end]
            of_shares = torch.bmm(part, v[:, :end].transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_shares, shares, -1, shares.dtype).mul_(scale)
            of_query[:, start:end] = torch.bmm(of_scores, k[:, :end])
            terms = torch.bmm(of_scores.transpose(1, 2), q[:, start:end]), torch.bmm(shares.transpose(1, 2), part)
            if not sums:  # the last block, which sees all keys
                sums = [term.float() if start else term for term in terms]
            else:
                for total, term in zip(sums, terms, strict=True):
                    total[:, :end] += term
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
    batch, heads, length, _ = query.shape
    size = max(1, SCORES_PER_THREAD * torch.get_num_threads() // (heads * length * min(length, BLOCK)))
    for start in range(0, batch, size):
        yield slice(start, start + size)


def _shares(query: Tensor, key: Tensor, scale: float) -> Iterator[tuple[int, int, Tensor]]:
    """Yield the first and the last position of each block of queries, and the softmax of its scores, from the end on.

    Queries and keys are (b H, T, D), a softmax (b H, end - start, end).
    """
    length = query.shape[1]
    later = torch.full((length, length), -torch.inf, dtype=query.dtype).triu_(1)
    for start in reversed(range(0, length, BLOCK)):
        end = min(start + BLOCK, length)
        scores = torch.bmm(query[:, start:end], key[:, :end].transpose(1, 2)).mul_(scale).add_(later[start:end, :end])
        yield start, end, scores.softmax(-1)

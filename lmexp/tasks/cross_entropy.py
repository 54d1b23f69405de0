"""The cross-entropy behind a linear output layer, without all of its logits in memory at once.

With a large vocabulary the logits of a micro-batch, their float32 copy and their gradients are the largest tensors of a
training step: at 32,768 tokens and 50,304 words each float32 one takes 6.6 GB. Here the tokens are taken in pieces. The
gradients of a piece follow from its softmax, so they are computed in the forward pass, while its logits are at hand:
nothing is computed twice, and nothing of the vocabulary's width is kept for the backward pass. Liger Kernel does the
same (Hsu et al. 2024, arXiv 2410.10989, section 3.2).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lmexp.data.feeds import IGNORED

Piece = Callable[[Tensor, Tensor, Tensor | None, Tensor], tuple[Tensor, Tensor]]
"""What computes the loss and the gradients of the logits of some tokens; see `piece_of`."""


MAX_FP16_ROWS = 2**14
"""The gradient of the output layer is summed over the rows of a piece, without loss scaling. With more rows it could be
more than 65504, the largest number of fp16."""


def piece_of(features: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed loss of some tokens in nats, and its gradient with respect to their logits.

    Args:
        features: (N, C).
        weight, bias: (V, C) and (V,) or None, in the same type.
        targets: (N,) int64. A row whose target is IGNORED adds nothing to the loss; its gradient means nothing.
    """
    # In float32 whatever the model computes in: a softmax over thousands of bf16 logits is not exact enough.
    log_shares = F.log_softmax(F.linear(features, weight, bias), -1, dtype=torch.float32)  # (N, V)
    has_target = targets != IGNORED
    rows = targets.where(has_target, 0)[:, None]
    loss = -log_shares.gather(1, rows)[:, 0].where(has_target, 0.0).sum()
    if torch.compiler.is_compiling():  # one kernel, without a float32 table in between
        is_target = torch.arange(len(weight), device=targets.device) == rows
        return loss, (log_shares.exp() - is_target.float()).to(features.dtype)
    gradient = log_shares.exp_()
    gradient.scatter_(1, rows, gradient.gather(1, rows) - 1.0)
    return loss, gradient.to(features.dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    """See `linear_cross_entropy`."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rows: int, piece: Piece
    ) -> Tensor:
        kind = features.device.type
        computed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        if computed == torch.float16:
            rows = min(rows, MAX_FP16_ROWS)
        ctx.types, ctx.rows = (features.dtype, weight.dtype), rows
        with torch.autocast(kind, enabled=False):
            narrow = weight.to(computed)
            narrow_bias = None if bias is None else bias.to(computed)
            loss = features.new_zeros((), dtype=torch.float32)
            of_features = torch.empty_like(features, dtype=computed)
            trains = ctx.needs_input_grad[1]  # or the output layer is frozen
            of_weight = torch.zeros_like(weight, dtype=torch.float32) if trains else None
            of_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
            for part, right, out in zip(
                features.split(rows), targets.split(rows), of_features.split(rows), strict=True
            ):
                part, has_target = part.to(computed), (right != IGNORED)[:, None]
                part_loss, gradient = piece(part, narrow, narrow_bias, right)
                loss += part_loss
                torch.mm(gradient, narrow, out=out)
                out *= has_target
                if of_weight is not None:
                    of_weight += gradient.t() @ (part * has_target)
                if of_bias is not None:
                    of_bias += (gradient * has_target).sum(0, dtype=torch.float32)
                del gradient  # makes room for the next piece
        ctx.gradients = of_features, of_weight, of_bias
        return loss

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        of_features, of_weight, of_bias = ctx.gradients
        del ctx.gradients
        of_layer = (None if each is None else each.mul_(outer[0]).to(ctx.types[1]) for each in (of_weight, of_bias))
        return _scaled(of_features.to(ctx.types[0]), outer[0], ctx.rows), *of_layer, None, None, None


def _scaled(gradient: Tensor, factor: Tensor, rows: int) -> Tensor:
    """Multiply in place by a float32 scalar, which torch would round to the type of a narrow gradient on a GPU."""
    if gradient.element_size() >= factor.element_size():
        return gradient.mul_(factor)
    for part in gradient.split(rows):
        part.copy_(part.float().mul_(factor))
    return gradient


def linear_cross_entropy(
    features: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rows: int, piece: Piece = piece_of
) -> Tensor:
    """Return the summed cross-entropy of `features @ weight.T + bias` in nats, a float32 scalar with a gradient.

    It equals F.cross_entropy of the logits in float32, with `reduction="sum"`; under autocast the products have its
    type. It can be differentiated once.

    Args:
        features: (N, C).
        weight, bias: (V, C) and (V,) or None.
        targets: (N,) int64, IGNORED where nothing is to be predicted.
        rows: how many of the N tokens are computed at a time.
        piece: computes a piece; `piece_of`, or a compiled copy of it.
    """
    loss: Tensor = _LinearCrossEntropy.apply(features, weight, bias, targets, rows, piece)
    return loss

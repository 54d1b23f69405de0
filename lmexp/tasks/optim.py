"""The optimizer that a config names, one of torch's or from outside, and the groups of weights that it gets.

    group       weights                                       weight decay    where
    matrices    two dimensions or more, in the blocks         yes             Muon, and under muP
    tables      all others of two dimensions or more          yes             always
    vectors     norms and biases                              no              always

Groups carry `lr_factor`, which the schedule's learning rate is multiplied by, if it is not 1 for all of them.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lmexp.config.code import arguments_of, load_target
from lmexp.config.optimizers import MuonConfig, OptimConfig, OtherOptim
from lmexp.errors import UserError
from lmexp.models.stacked import stacked_rows

LR_FACTOR = "lr_factor"
"""The key of a group of weights that says what the schedule's learning rate is multiplied by [default: 1]."""


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    optim: OptimConfig,
    may_fuse: bool,
    blocks: Iterable[nn.Module] = (),
    width_multiple: float = 1.0,
) -> Optimizer:
    """Build the optimizer that the config's `_target_` names, over the parameters that are trained.

    It is called as torch's are: with groups of parameters, the learning rate, and the section's own keys. Weight decay
    applies to matrices and embeddings only.

    Args:
        may_fuse: whether a fused kernel is known to work here.
        blocks: the model's layers.
        width_multiple: the model's width divided by that of muP's base model.

    Raises UserError if the optimizer does not let a schedule set its learning rate.
    """
    weights = [weight for weight in parameters if weight.requires_grad]
    if isinstance(optim, MuonConfig):
        return _build_muon(weights, optim, may_fuse, list(blocks), width_multiple)
    groups = [group for group in _groups(weights, optim, blocks, width_multiple) if group is not None]
    loaded = load_target(optim.target, "optimizer")
    arguments = arguments_of(optim, loaded) if isinstance(optim, OtherOptim) else optim.arguments
    if optim.has_fused_kernel:
        arguments["fused"] = may_fuse
    optimizer: Optimizer = loaded(groups, lr=optim.peak_lr, **arguments)
    if any("lr" not in group for group in optimizer.param_groups):
        raise UserError(
            f"the optimizer {optim.target} has no 'lr' in its param_groups, where the schedule sets the learning rate"
        )
    return optimizer


def can_fuse(compute: str, device: torch.device) -> bool:
    """Whether fused kernels work: half-precision loss scaling with clipping does not go with them."""
    return compute != "fp16" and device.type in ("cpu", "cuda")


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of the step to come, which each group multiplies by a factor of its own."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(LR_FACTOR, 1.0)


class MuonWithAdamW(Optimizer):
    """One optimizer of two: torch's Muon for the first group of weights, torch's AdamW for all others.

    Groups and state are those of its members, so schedules, checkpoints and gradient scaling see one optimizer. Each
    weight's state is under the weight itself, as in its member alone.
    """

    def __init__(self, muon: Optimizer, adamw: Optimizer) -> None:
        """`muon` has one group."""
        self._members = (muon, adamw)
        super().__init__([*muon.param_groups, *adamw.param_groups], {})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Let both members take a step; `closure` computes the loss, once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Shared anew each time: loading a checkpoint replaces both.
        for member, groups in zip(self._members, (self.param_groups[:1], self.param_groups[1:]), strict=True):
            member.param_groups, member.state = groups, self.state
            member.step()
        return loss


def _groups(
    weights: list[nn.Parameter], optim: OptimConfig, blocks: Iterable[nn.Module], width_multiple: float
) -> list[dict[str, Any] | None]:
    """Return the groups of weights: matrices, tables and vectors; None for matrices that have no group of their own."""
    in_blocks = {id(weight) for block in blocks for weight in block.parameters()}
    factor = optim.matrix_lr_factor(width_multiple)
    if not isinstance(optim, MuonConfig) and width_multiple == 1:
        in_blocks, factor = set(), None
    tables: dict[str, Any] = {
        "params": [weight for weight in weights if weight.ndim >= 2 and id(weight) not in in_blocks],
        "weight_decay": optim.weight_decay,
    }
    vectors: dict[str, Any] = {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0}
    if factor is None:
        return [None, tables, vectors]
    matrices = {
        "params": [weight for weight in weights if weight.ndim >= 2 and id(weight) in in_blocks],
        # At each step, a weight shrinks by rate times decay: the same at every width, as in muP's own package.
        "weight_decay": optim.weight_decay / factor,
        LR_FACTOR: factor,
    }
    return [matrices, tables, vectors]


def _build_muon(
    weights: list[nn.Parameter], optim: MuonConfig, may_fuse: bool, blocks: list[nn.Module], width_multiple: float
) -> Optimizer:
    matrices, *others = (group or {} for group in _groups(weights, optim, blocks, width_multiple))
    adamw_lr = optim.adamw_lr or optim.peak_lr
    for group in others:
        group[LR_FACTOR] = adamw_lr / optim.peak_lr
    settings = {name: getattr(optim, name) for name in ("momentum", "nesterov", "ns_steps", "adjust_lr_fn")}
    return MuonWithAdamW(
        _muon(matrices, stacked_rows(blocks), lr=optim.peak_lr, **settings),
        torch.optim.AdamW(others, lr=adamw_lr, betas=optim.betas, eps=optim.eps, fused=may_fuse),
    )


def _muon(group: dict[str, Any], stacked: dict[int, list[int]], **settings: Any) -> Optimizer:
    """Return torch's Muon for a group; it orthogonalises matrices that are stacked in one weight separately."""

    class SplittingMuon(torch.optim.Muon):  # defined here, so that a torch without Muon can import this module
        def _init_group(self, group: Any, params: list[Tensor], grads: list[Tensor], buffers: list[Tensor]) -> bool:
            has_complex = super()._init_group(group, params, grads, buffers)
            sizes = [stacked.get(id(weight), [len(weight)]) for weight in params]
            for tensors in (params, grads, buffers):  # views: what is changed in them changes the weight
                tensors[:] = [part for whole, rows in zip(tensors, sizes, strict=True) for part in whole.split(rows)]
            return has_complex

    return SplittingMuon([group], **settings)

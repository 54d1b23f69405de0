"""The optimizer that a config names, of torch's or from outside."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from lmexp.config.code import arguments_of, load_target
from lmexp.config.optimizers import OptimConfig, OtherOptim
from lmexp.errors import UserError


def build_optimizer(parameters: Iterable[nn.Parameter], optim: OptimConfig, may_fuse: bool) -> Optimizer:
    """Build the optimizer that the config's `_target_` names, over the parameters that are trained.

    It is called as torch's are: with two groups of parameters, the learning rate, and the section's own keys. Weight
    decay applies to matrices and embeddings only. `may_fuse` says whether a fused kernel is known to work here.

    Raises UserError if the optimizer does not let a schedule set its learning rate.
    """
    weights = [weight for weight in parameters if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": optim.weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    loaded = load_target(optim.target, "optimizer")
    arguments = arguments_of(optim, loaded) if isinstance(optim, OtherOptim) else optim.arguments
    if optim.has_fused_kernel:
        arguments["fused"] = may_fuse
    optimizer: Optimizer = loaded(groups, lr=optim.lr, **arguments)
    if any("lr" not in group for group in optimizer.param_groups):
        raise UserError(
            f"the optimizer {optim.target} has no 'lr' in its param_groups, where the schedule sets the learning rate"
        )
    return optimizer


def can_fuse(compute: str, device: torch.device) -> bool:
    """Whether fused kernels work: half-precision loss scaling with clipping does not go with them."""
    return compute != "fp16" and device.type in ("cpu", "cuda")

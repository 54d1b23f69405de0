"""Activation checkpointing: layers keep less for the backward pass, and compute it again there (Chen et al. 2016).

    full         a layer keeps its input alone, and its whole forward pass is done again
    selective    besides, it keeps what its matmuls and its attention give out; only the cheap rest is done again

Results stay the same: the same operations run on the same values, with the same random numbers. The wrapper lies around
a layer's own `forward`, inside of whatever is compiled or hooked around the layer, and changes no name of a weight.
"""

from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from lmexp.config.trainer import Recompute
from lmexp.errors import UserError
from lmexp.models import cpu_attention  # noqa: F401 (registers an operation)

KEPT = (
    "mm", "addmm", "bmm", "baddbmm", "linear", "_scaled_mm",
    "_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)  # fmt: skip
"""Operations of aten whose results `selective` keeps: most of a layer's FLOPs."""
_KEPT_OPERATIONS = {getattr(torch.ops.aten, name).default for name in KEPT if hasattr(torch.ops.aten, name)} | {
    torch.ops.lmexp.causal_attention.default
}


def recompute_layers(model: nn.Module, how: Recompute) -> None:
    """Have a model's layers compute again what they need in the backward pass, in place; `none` changes nothing.

    Raises UserError for a model that does not say what its layers are.
    """
    if how == "none":
        return
    layers = list(model.layers())  # type: ignore[operator]
    if not layers:
        raise UserError(
            f"trainer.activation_checkpointing={how} works layer by layer, "
            f"and {type(model).__name__}.layers() names none"
        )
    for layer in layers:
        layer.forward = _recomputed(layer, how)


def _recomputed(layer: nn.Module, how: Recompute) -> Callable[..., Any]:
    """Return a layer's forward pass with checkpointing in training, and without it where there is no backward pass."""
    forward = layer.forward
    options: dict[str, Any] = {"use_reentrant": False}
    if how == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, policy)

    @wraps(forward)  # some libraries look at its signature
    def recomputed(*arguments: Any, **named: Any) -> Any:
        if layer.training and torch.is_grad_enabled():
            return checkpoint(forward, *arguments, **options, **named)
        return forward(*arguments, **named)

    return recomputed


def policy(context: Any, operation: Any, *arguments: Any, **named: Any) -> CheckpointPolicy:
    """Return what `selective` does with the result of an operation.

    What draws random numbers needs care. A result that is kept draws none when the layer is computed again, so
    everything after it would draw others than before. On a GPU, fused attention with dropout draws some and is kept,
    and so are the results of all other such operations there. On a CPU, kept operations draw none, and all others draw
    the same numbers again.
    """
    if operation in _KEPT_OPERATIONS:
        return CheckpointPolicy.MUST_SAVE
    draws = torch.Tag.nondeterministic_seeded in operation.tags
    if not draws or not _on_gpu(arguments, named):
        return CheckpointPolicy.PREFER_RECOMPUTE
    if operation._schema.is_mutable:
        raise UserError(
            f"trainer.activation_checkpointing=selective cannot keep what {operation} draws in place: use full"
        )
    return CheckpointPolicy.MUST_SAVE


def _on_gpu(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
    """Whether an operation runs elsewhere than on the CPU, by its tensors, or by the device that it is given."""
    devices = [value.device for value in arguments if isinstance(value, torch.Tensor)]
    devices = devices or [torch.device(named.get("device") or "cpu")]
    return any(device.type != "cpu" for device in devices)

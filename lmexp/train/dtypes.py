"""What tensors really are stored and multiplied in, read off the live objects."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

MATMULS = ("mm", "addmm", "bmm", "baddbmm", "_scaled_mm", "linear", "mkldnn_linear", "_mkldnn_linear")


def stored_dtypes(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, str | None]:
    """Return what most weights, gradients and optimizer state are stored in; None where there are none."""
    weights = list(model.parameters())
    states = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    return {
        "dtype_weights": _usual(weights),
        "dtype_grads": _usual([weight.grad for weight in weights if weight.grad is not None]),
        "dtype_optimizer": _usual([value for value in states if value.ndim]),  # Adam also counts its steps
    }


class ComputeWitness(TorchDispatchMode):
    """Sees the operands of every matmul inside its block, in eager mode."""

    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[str] = Counter()
        """Multiply-adds by the type of what was multiplied."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """Note a matmul, and let it happen."""
        if func.__name__.split(".")[0] in MATMULS:
            a, b = [arg for arg in args if isinstance(arg, Tensor) and arg.ndim >= 2][:2]
            self.flops[_multiplied_in(a)] += a.numel() * b.shape[-1]
        return func(*args, **(kwargs or {}))

    @property
    def dtype(self) -> str | None:
        """What most was multiplied in."""
        return self.flops.most_common(1)[0][0] if self.flops else None


def _multiplied_in(operand: Tensor) -> str:
    """Return an operand's type; that of its 8-bit content for torchao's, which says if it only emulates."""
    content = getattr(operand, "_data", operand)
    if content.dtype == torch.float32 and operand.is_cuda and torch.get_float32_matmul_precision() != "highest":
        return "tf32"
    configs = getattr(getattr(operand, "_linear_mm_config", None), "output", None)
    return _name(content.dtype) + (" emulated" if getattr(configs, "emulate", False) else "")


def _usual(tensors: Sequence[Tensor]) -> str | None:
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[_name(tensor.dtype)] += tensor.numel()
    return sizes.most_common(1)[0][0] if sizes else None


def _name(dtype: torch.dtype) -> str:
    """Return `float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")

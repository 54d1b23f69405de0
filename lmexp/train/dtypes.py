"""The types that tensors are really stored and multiplied in, read from the tensors themselves."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lmexp.tasks.base import Batch, Task

MATMULS = ("mm", "addmm", "bmm", "baddbmm", "_scaled_mm", "linear", "mkldnn_linear", "_mkldnn_linear")
"""Names of the operations of aten that multiply matrices."""


class DtypeReader(pl.Callback):
    """Reads the types at the end of training, when gradients and optimizer state still exist."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        """One sample of the first of `batches` passes through the model to see what it multiplies in."""
        self.batches = batches
        self.dtypes: dict[str, str | None] = {}
        """The columns of the record: dtype_weights, dtype_grads, dtype_optimizer, dtype_compute."""

    def on_train_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Read the types."""
        assert isinstance(task, Task)
        self.dtypes = stored_dtypes(task.model, trainer.optimizers[0])
        sample = {name: value[:1].to(task.device) for name, value in next(iter(self.batches)).items()}
        eager = torch.compiler.set_stance("force_eager")
        with torch.no_grad(), trainer.precision_plugin.forward_context(), eager, MatmulTypes() as matmuls:
            task.predict(sample)
        self.dtypes["dtype_compute"] = matmuls.most_used


def stored_dtypes(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, str | None]:
    """Return the types that most weights, gradients and optimizer state are stored in; None if there are none."""
    weights = list(model.parameters())
    states = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    return {
        "dtype_weights": _most_used(weights),
        "dtype_grads": _most_used([weight.grad for weight in weights if weight.grad is not None]),
        "dtype_optimizer": _most_used([value for value in states if value.ndim]),  # Adam's step counters are scalars
    }


class MatmulTypes(TorchDispatchMode):
    """Records the operand types of every matmul inside its `with` block, in eager mode."""

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds: Counter[str] = Counter()
        """Multiply-adds by the type of the operands."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """Count an operation if it is a matmul, then run it."""
        if func.__name__.split(".")[0] in MATMULS:
            a, b = [arg for arg in args if isinstance(arg, Tensor) and arg.ndim >= 2][:2]
            self.multiply_adds[_operand_type(a)] += a.numel() * b.shape[-1]
        return func(*args, **(kwargs or {}))

    @property
    def most_used(self) -> str | None:
        """The type with the most multiply-adds; None if nothing was multiplied."""
        return self.multiply_adds.most_common(1)[0][0] if self.multiply_adds else None


def _operand_type(operand: Tensor) -> str:
    """Return the type of an operand. Of torchao's 8-bit tensors it is the content's, with a mark if it is emulated."""
    content = getattr(operand, "_data", operand)
    if content.dtype == torch.float32 and operand.is_cuda and torch.get_float32_matmul_precision() != "highest":
        return "tf32"
    configs = getattr(getattr(operand, "_linear_mm_config", None), "output", None)
    return _name(content.dtype) + (" emulated" if getattr(configs, "emulate", False) else "")


def _most_used(tensors: Sequence[Tensor]) -> str | None:
    """Return the type that holds the most numbers."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[_name(tensor.dtype)] += tensor.numel()
    return sizes.most_common(1)[0][0] if sizes else None


def _name(dtype: torch.dtype) -> str:
    """Return `float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")

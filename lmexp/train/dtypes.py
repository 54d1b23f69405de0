"""The types that tensors are really stored and multiplied in, read from the tensors themselves."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils._python_dispatch import TorchDispatchMode

from lmexp.tasks.base import Batch, Task

MATMULS = ("mm", "addmm", "bmm", "baddbmm", "_scaled_mm", "linear", "mkldnn_linear", "_mkldnn_linear")
"""Names of the operations of aten that multiply matrices."""


COMPILED_MATMULS = {"mm", "addmm", "bmm", "baddbmm", "_scaled_mm", "mkldnn_linear", "_linear_pointwise"}
"""Those among them that are not names for several operations; torch.compile calls them by these names."""
PROFILED_STEP = 2
"""The step of an attempt whose forward pass is profiled: in the first one, torch.compile still traces the model."""


class DtypeReader(pl.Callback):
    """Reads the types at the end of training; those of gradients before the first step, after which they are dropped.

    A compiled model can multiply in other types than the same model in eager mode. So what it multiplies in is read
    from a profile of a forward pass in training: that of the first micro-batch of the second step, within the warm-up.
    If an attempt has a single step, its last micro-batch goes forward once more at the end, to be profiled.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        """One sample of the first of `batches` passes through a model that is not compiled, to see its types."""
        self.batches = batches
        self.dtypes: dict[str, str | None] = {}
        """The columns of the record: dtype_weights, dtype_grads, dtype_optimizer, dtype_compute."""
        self._is_compiled = False
        self._micro_batches = 0
        self._profile: torch.profiler.profile | None = None
        self._profiled: str | None = None
        self.gradients: str | None = None
        """The type that most gradients are stored in."""
        self._last: Batch | None = None

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Decide how to read the types. Emulated fp8 is read in eager mode: what counts is the emulated type."""
        assert isinstance(task, Task)
        self._is_compiled = is_compiled(task.model) and not task.config.precision.emulate

    def on_train_batch_start(self, trainer: pl.Trainer, task: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the profile of a compiled model, if this is the micro-batch for it."""
        self._micro_batches += 1
        profiled = 1 + (PROFILED_STEP - 1) * trainer.accumulate_grad_batches
        self._last = batch if self._is_compiled and self._micro_batches < profiled else None
        if self._is_compiled and self._micro_batches == profiled:
            self._profile = _start_profile()

    def on_before_backward(self, trainer: pl.Trainer, task: pl.LightningModule, loss: Tensor) -> None:
        """End the profile; the forward pass is over."""
        if self._profile is not None:
            self._profiled = profiled_type(_end_profile(self._profile), is_on_cuda=task.device.type == "cuda")
            self._profile = None

    def on_before_optimizer_step(self, trainer: pl.Trainer, task: pl.LightningModule, optimizer: Any) -> None:
        """Read the type of the gradients, once."""
        if self.gradients is None:
            self.gradients = _most_used([weight.grad for weight in task.parameters() if weight.grad is not None])

    def on_train_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Read the other types."""
        assert isinstance(task, Task)
        if self._last is not None:
            self._profile_again(trainer, task, self._last)
        self.dtypes = stored_dtypes(task.model, trainer.optimizers[0]) | {"dtype_grads": self.gradients}
        self.dtypes["dtype_compute"] = self._profiled if self._is_compiled else self._eager_type(trainer, task)

    def _profile_again(self, trainer: pl.Trainer, task: Task, batch: Batch) -> None:
        """Profile the forward pass of a micro-batch for which the graphs are there; its gradients are not computed."""
        self._last, self._profile = None, _start_profile()
        with torch.enable_grad(), trainer.precision_plugin.forward_context():
            loss = task.batch_nll(batch)
        self.on_before_backward(trainer, task, loss)
        if isinstance(task.model, FSDPModule):
            task.model.reshard()  # what stays gathered for a backward pass

    def _eager_type(self, trainer: pl.Trainer, task: Task) -> str | None:
        sample = {name: value[:1].to(task.device) for name, value in next(iter(self.batches)).items()}
        eager = torch.compiler.set_stance("force_eager")
        with torch.no_grad(), trainer.precision_plugin.forward_context(), eager, MatmulTypes() as matmuls:
            task.predict(sample)
        return matmuls.most_used


def is_compiled(model: nn.Module) -> bool:
    """Whether `compile` was called on the model or on a part of it."""
    return any(getattr(module, "_compiled_call_impl", None) is not None for module in model.modules())


def profiled_type(events: Iterable[Any], is_on_cuda: bool) -> str | None:
    """Return the type of the operands with the most multiply-adds in a profile; None if it shows no matmul.

    Kernels that torch.compile writes itself, and CUDA graphs, show no operations, so their types are unknown.
    """
    multiply_adds: Counter[str] = Counter()
    for event in events:
        if event.name().rpartition("::")[2] in COMPILED_MATMULS:
            operands = [
                (shape, kind) for shape, kind in zip(event.shapes(), event.dtypes(), strict=True) if len(shape) > 1
            ]
            (first, kind), (second, _) = operands[:2]
            multiply_adds[_name_in_c(kind, is_on_cuda)] += math.prod(first) * second[-1]
    return _most(multiply_adds)


def _start_profile() -> torch.profiler.profile | None:
    """Return a running profile of the host's calls; None if another profiler is in the way."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise it reports its start and its end on standard error
    profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True)
    with suppress(RuntimeError):
        profile.start()
        return profile
    return None


def _end_profile(profile: torch.profiler.profile) -> list[Any]:
    """Stop a profile and return its events, with the types of their arguments, which torch's public events lack."""
    with suppress(RuntimeError):
        profile.stop()
        results = profile.profiler.kineto_results if profile.profiler else None
        return list(results.events()) if results else []
    return []


def _name_in_c(kind: str, is_on_cuda: bool) -> str:
    """Return torch's name of a type that a profile names as in C++, such as `c10::BFloat16`."""
    name = {"float": "float32", "double": "float64", "c10::Half": "float16"}.get(kind)
    name = name or kind.removeprefix("c10::").lower()
    return "tf32" if name == "float32" and is_on_cuda and _rounds_float32() else name


def stored_dtypes(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, str | None]:
    """Return the types that most weights and most of the optimizer's state are stored in; None if there are none."""
    weights = list(model.parameters())
    states = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    return {
        "dtype_weights": _most_used(weights),
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
        return _most(self.multiply_adds)


def _operand_type(operand: Tensor) -> str:
    """Return the type of an operand. Of torchao's 8-bit tensors it is the content's, with a mark if it is emulated."""
    content = getattr(operand, "_data", operand)
    if content.dtype == torch.float32 and operand.is_cuda and _rounds_float32():
        return "tf32"
    configs = getattr(getattr(operand, "_linear_mm_config", None), "output", None)
    return _name(content.dtype) + (" emulated" if getattr(configs, "emulate", False) else "")


def _rounds_float32() -> bool:
    """Whether a GPU multiplies float32 in tf32 now."""
    return torch.get_float32_matmul_precision() != "highest"


def _most_used(tensors: Sequence[Tensor]) -> str | None:
    """Return the type that holds the most numbers."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[_name(tensor.dtype)] += tensor.numel()
    return _most(sizes)


def _most(counts: Counter[str]) -> str | None:
    """Return the name that was counted most; None if nothing was."""
    return counts.most_common(1)[0][0] if counts else None


def _name(dtype: torch.dtype) -> str:
    """Return `float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")

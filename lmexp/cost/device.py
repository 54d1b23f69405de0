"""The device that a run trains on: what it is, and which precisions it can run.

This is checked before anything starts, so that a precision that the device lacks is an error, instead of a run that
silently trained in another precision.
"""

import ctypes
import math
import os
import platform
import re
import runpy
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import psutil

from lmexp.config.schema import PrecisionConfig
from lmexp.cost.cgroups import cpu_limit
from lmexp.errors import UserError, nearest

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
"""Lightning's accelerators that lmexp knows."""
AMPERE = (8, 0)
"""The first compute capability with bf16 and TF32 in its tensor cores (NVIDIA A100 whitepaper, 2020)."""
ADA = (8, 9)
"""The first compute capability with fp8 in its tensor cores (NVIDIA Ada whitepaper, 2022)."""
VOLTA = (7, 0)
"""The first compute capability with tensor cores, for fp16 (NVIDIA V100 whitepaper, 2017)."""


@dataclass(frozen=True)
class Device:
    """A kind of device on this machine. If there are several GPUs, it describes the first of them."""

    kind: Literal["cpu", "cuda", "mps"]
    name: str
    """The name that a GPU reports; for a CPU, its model and the number of cores that this process may use."""
    count: int
    """Number of visible GPUs; 1 for a CPU."""
    memory_gb: float
    """GB (1e9 bytes) of one device."""
    capability: tuple[int, int] | None
    """CUDA compute capability; None for other devices than NVIDIA's."""
    native_bf16: bool
    """Whether it has instructions that multiply bf16."""
    elsewhere: bool = False
    """Whether it belongs to a node of a cluster, so that only the run can find out what it can do."""


def detect(accelerator: str = "auto") -> Device:
    """Return the device that Lightning would choose for `accelerator`.

    If there is a GPU, this initialises CUDA in the process, so it is never called in the fork server.
    Raises UserError for an accelerator that is unknown or not present.
    """
    if accelerator not in ACCELERATORS:
        raise UserError(
            f"trainer.accelerator={accelerator}: lmexp knows {', '.join(ACCELERATORS)}."
            f"{nearest(accelerator, ACCELERATORS)}"
        )
    if accelerator == "cpu" or (accelerator == "auto" and not _may_have_gpu()):
        return _cpu()
    import torch

    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    wanted = {"auto": ("cuda", "mps", "cpu"), "gpu": ("cuda", "mps")}.get(accelerator, (accelerator,))
    kind = next((kind for kind in wanted if here[kind]), None)
    if kind == "cuda":
        first = torch.cuda.get_device_properties(0)
        return Device(
            kind="cuda",
            name=first.name,
            count=torch.cuda.device_count(),
            memory_gb=first.total_memory / 1e9,
            capability=None if torch.version.hip else (first.major, first.minor),  # on AMD they mean something else
            native_bf16=torch.cuda.is_bf16_supported(including_emulation=False),
        )
    if kind == "mps":
        return Device("mps", f"{_cpu_model()} GPU", 1, _host_memory_gb(), None, native_bf16=True)
    if kind == "cpu":
        return _cpu()
    built = "" if torch.version.cuda or torch.version.hip else " (this torch is built without CUDA)"
    raise UserError(f"trainer.accelerator={accelerator}, but torch finds no such device here{built}")


def unsupported_precision(precision: PrecisionConfig, device: Device) -> str | None:
    """Return why a precision cannot run on a device; None if it can."""
    compute = precision.compute
    if compute == "fp16" and device.kind == "cpu":
        return "fp16 does not train on a CPU: Lightning would silently train in bf16 instead"
    if compute == "fp16" and device.kind == "mps":
        return "fp16 with loss scaling is untested on MPS: use bf16 or fp32"
    if compute == "tf32" and (device.capability is None or device.capability < AMPERE):
        return f"tf32 needs an NVIDIA GPU of compute capability 8.0 or above{_but_has(device)}"
    if compute == "fp8" and not precision.emulate and (device.capability is None or device.capability < ADA):
        return (
            f"fp8 needs an NVIDIA GPU of compute capability 8.9 or above{_but_has(device)}; "
            "precision.emulate=true studies its quality on any device, slowly"
        )
    if compute == "bf16" and device.kind == "cuda" and not device.native_bf16:
        return f"bf16 needs a GPU of compute capability 8.0 or above{_but_has(device)}; torch would only emulate it"
    return None


def slow_precision(precision: PrecisionConfig, device: Device) -> str | None:
    """Return why a precision is expected to be slow on a device; None if it is not."""
    if precision.compute == "bf16" and device.kind == "cpu" and not device.native_bf16:
        return "this CPU has no bf16 instructions (avx512_bf16, amx_bf16): expect bf16 to be slower than fp32"
    if precision.compute == "fp8" and precision.emulate:
        return "emulated fp8 multiplies in float32: it has the quality of fp8, but not its speed"
    if precision.compute == "fp16" and device.capability is not None and device.capability < VOLTA:
        return f"{device.name} has no tensor cores: expect fp16 to be little faster than fp32, or slower"
    return None


VOCABULARY_STEP = 64
"""Tensor cores work with matrices of any size, and are most efficient if their sides are multiples of 128 bytes, 64
values of 16 bits (NVIDIA, "Matrix Multiplication Background User's Guide", section "Tensor Core Requirements")."""
MIN_LARGE_VOCABULARY = 4096
"""A smaller output layer is a small part of a step, and would grow by more than 1.5 % to fit."""


def slow_vocabulary(vocab_size: int, precision: PrecisionConfig, device: Device) -> str | None:
    """Return why an output layer over so many tokens is slower on a GPU than a slightly larger one; None if not."""
    larger = -(-vocab_size // VOCABULARY_STEP) * VOCABULARY_STEP
    has_tensor_cores = device.kind == "cuda" and precision.compute != "fp32"
    if larger == vocab_size or vocab_size < MIN_LARGE_VOCABULARY or not has_tensor_cores:
        return None
    return (
        f"a vocabulary of {vocab_size} is no multiple of {VOCABULARY_STEP}, which makes the output layer slower on a "
        f"GPU; model.vocab_size={larger} is one"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on the device or on the host."""
    import torch

    phrases = ("not enough memory", "allocate memory", "out of memory", "ALLOC_FAILED")
    has_phrase = isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)
    return has_phrase or isinstance(error, MemoryError | torch.OutOfMemoryError)


def devices_used(kind: str, processes: int) -> int:
    """Return how many devices draw power and have a price; the processes of a run on a CPU share one."""
    return 1 if kind == "cpu" else processes


def cores() -> int:
    """Return the number of CPU cores that this process may use; Slurm and containers often grant only some.

    A container with 2 of 64 cores sees them all: with 64 threads, it would be stopped most of the time.
    """
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = cpu_limit()
    return seen if limit is None else max(1, min(seen, math.ceil(limit)))


def _may_have_gpu() -> bool:
    """Whether torch may find a GPU here, as far as can be known without importing torch, which takes seconds."""
    spec = find_spec("torch")
    if "torch" in sys.modules or sys.platform == "darwin" or spec is None or spec.origin is None:
        return True
    try:
        built = runpy.run_path(str(Path(spec.origin).with_name("version.py")))  # what torch.version is
    except OSError:
        return True
    if not built.get("cuda"):
        return bool(built.get("hip"))
    try:  # the driver, which torch does not bring with it
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _cpu() -> Device:
    granted = cores()
    name = f"{_cpu_model()}, {granted} core{'s' if granted > 1 else ''}"
    return Device("cpu", name, 1, _host_memory_gb(), None, native_bf16=_cpu_has_bf16())


def _host_memory_gb() -> float:
    return psutil.virtual_memory().total / 1e9


def _but_has(device: Device) -> str:
    """Return what the device has instead, as the end of a sentence."""
    if device.capability is None:
        others = {"cpu": "a CPU", "mps": "a Mac"}
        return f", and this is {others.get(device.kind, device.name)}"
    return f"; {device.name} has {device.capability[0]}.{device.capability[1]}"


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def _cpu_model() -> str:
    line = re.search(r"^model name\s*: (.+)$", _cpuinfo(), re.MULTILINE)
    return line[1].strip() if line else platform.processor() or platform.machine()


@cache
def compiles_bf16() -> bool:
    """Whether oneDNN compiles kernels for bf16 on this CPU, as far as can be known without importing torch.

    On x86 that takes AVX-512. True if unknown.
    """
    flags = _cpu_flags()
    return not flags or {"avx512bw", "avx512vl", "avx512dq"} <= flags or "bf16" in flags


def _cpu_has_bf16() -> bool:
    """Whether the kernel lists bf16 instructions; False if unknown."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & _cpu_flags())


def _cpu_flags() -> set[str]:
    """Return what the kernel lists, in `flags` on x86 or `Features` on ARM; nothing if unknown."""
    line = re.search(r"^(?:flags|Features)\s*: (.+)$", _cpuinfo(), re.MULTILINE)
    return set(line[1].split()) if line else set()

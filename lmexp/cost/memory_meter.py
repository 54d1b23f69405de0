"""The memory that training takes: what torch's allocator gives out on a GPU, by how much the process grows on a CPU."""

import ctypes
import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

MEMORY_STEPS = 3
"""Steps at the start whose memory is measured on a CPU: in the second step, the gradients of the step before exist too;
in the third, so do the buffers through which several processes exchange gradients."""


class MemoryMeter:
    """The peak memory since the meter was created: what tensors needed, and what the process reserved.

    On CUDA both come from the allocator. On a CPU they are the growth of the pages of the process; code and
    memory-mapped tokens, which the system can drop, do not count. There malloc keeps much of the memory that tensors
    free: a third or more for a small model, and a different share in each run. So malloc is set to return freed
    memory at once until the third optimizer step is done, and the peak until then is what was needed; later steps need
    no more. These slower steps belong to the warm-up. Afterwards malloc may keep memory again. What the process
    reserved is the growth over the whole run, with kept memory, evaluation and checkpoints. If malloc cannot be set
    (without glibc), both columns hold that.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.init()  # torch refuses to reset the statistics of an unused device
            torch.cuda.reset_peak_memory_stats(device)
            return
        self._needed: int | None = None
        self._steps_left = MEMORY_STEPS
        self._sets_malloc = _keep_freed_memory(False)
        _return_freed_memory()  # otherwise memory freed earlier would be used again, without visible growth
        with suppress(OSError):  # not on Linux, or not allowed: the peak is then that of the whole process
            Path("/proc/self/clear_refs").write_text("5")  # restarts the kernel's count of the peak
        self._start = _process_memory()

    def step(self) -> None:
        """Count an optimizer step; after the first MEMORY_STEPS, keep the memory that was needed."""
        if self.device.type == "cuda" or not self._sets_malloc or self._needed is not None:
            return
        self._steps_left -= 1
        if not self._steps_left:
            self._needed = self._growth()
            _keep_freed_memory(True)

    def summary(self) -> dict[str, float | None]:
        """Return the columns of memory, in GB (1e9 bytes)."""
        if self.device.type == "cuda":
            return {
                "peak_memory_gb": torch.cuda.max_memory_allocated(self.device) / 1e9,
                "reserved_memory_gb": torch.cuda.max_memory_reserved(self.device) / 1e9,
            }
        reserved = self._growth()
        if reserved is None:
            return {}
        needed = reserved if self._needed is None else self._needed
        # Memory-mapped files are subtracted at their present size, so the later reading can be a little lower.
        return {"peak_memory_gb": needed / 1e9, "reserved_memory_gb": max(needed, reserved) / 1e9}

    def _growth(self) -> int | None:
        """Return the peak growth of the pages of this process in bytes; None if the system does not report it."""
        now = _process_memory()
        if self._start is None or now is None:
            return None
        files_growth = max(now["RssFile"] - self._start["RssFile"], 0)
        return max(now["VmHWM"] - self._start["VmRSS"] - files_growth, 0)


def _keep_freed_memory(keep: bool) -> bool:
    """Set whether malloc keeps freed memory for later use or returns it; return False if malloc has no such setting.

    Blocks above a threshold get pages of their own, which are returned when the block is freed. By default, glibc
    raises this threshold up to 32 MiB while a process frees such blocks; `keep` sets it to that value.
    """
    mallopt = _glibc_function("mallopt")
    if mallopt is None:
        return False
    threshold = 32 * 2**20 if keep else 64 * 2**10
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    return bool(mallopt(mmap_threshold, threshold) and mallopt(trim_threshold, 2 * threshold))


def _return_freed_memory() -> None:
    """Return freed memory to the system, if glibc can."""
    gc.collect()
    if malloc_trim := _glibc_function("malloc_trim"):
        malloc_trim(0)


def _glibc_function(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def _process_memory() -> dict[str, int] | None:
    """Return the memory of this process in bytes, as Linux reports it; None on other systems."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    names = {"VmHWM", "VmRSS", "RssFile"}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name: int(value.split()[0]) * 1024 for name, value in pairs if name in names}

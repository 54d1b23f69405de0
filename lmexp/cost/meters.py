"""The time and the memory that training takes.

Time is measured by the clock of the host around optimizer steps. Everything between two steps (validation,
checkpoints, logging) is left out. Waiting for data counts as time of the step, and is also counted separately. A GPU
runs behind the host, so the clock is read only at the edges of windows of several steps, when the device has caught
up. On a CPU every step is a window of its own.
"""

import ctypes
import gc
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

WARMUP_STEPS = 5
"""Steps at the start that speeds leave out, because allocators, caches and clock rates settle in them."""
MEMORY_STEPS = 3
"""Steps at the start whose memory is measured on a CPU: in the second step, the gradients of the step before exist too;
in the third, so do the buffers through which several processes exchange gradients."""


@dataclass
class StepMeter:
    """Times optimizer steps, in windows that end when the host reads a result from the device.

    Call `begin` when the first micro-batch of a step has arrived, `end` when the step is done, `close` before its
    results are read, and `rest` when everything between two steps is over.
    """

    batch_tokens: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    clock: Callable[[], float] = time.perf_counter
    windows: list[tuple[int, float]] = field(default_factory=list)
    """The steps and the seconds of each window."""
    wait_seconds: float = 0.0
    train_seconds: float = 0.0
    """Seconds in closed windows."""
    _rested: float = field(default=0.0, repr=False)
    _ended: float = field(default=0.0, repr=False)
    _open: tuple[int, float] = field(default=(0, 0.0), repr=False)

    def begin(self) -> None:
        """Count the time since `rest` as waiting for data; the first micro-batch of a step has arrived."""
        self.wait_seconds += self.clock() - self._rested

    def end(self) -> None:
        """Add a finished step to the window; on a CPU, also close the window."""
        steps, seconds = self._open
        self._open = (steps + 1, seconds + self.clock() - self._rested)
        self._ended = self.clock()
        if self.device.type == "cpu":
            self.close()

    def close(self) -> None:
        """Close the window, if it has steps: wait for the device, and keep the time."""
        steps, seconds = self._open
        if not steps:
            return
        if self.device.type != "cpu":
            synchronise(self.device)
            seconds += self.clock() - self._ended
        self.windows.append((steps, seconds))
        self.train_seconds += seconds
        self._open = (0, 0.0)

    def rest(self) -> None:
        """Start the clock of the next step."""
        self._rested = self.clock()

    @property
    def seconds(self) -> float:
        """Seconds of training steps so far, with the part of the open window that the host has seen."""
        return self.train_seconds + self._open[1]

    def recent_step_seconds(self, steps: int) -> float:
        """Return the mean seconds of about the last `steps` steps; 0 before the first window is closed."""
        counted, seconds = 0, 0.0
        for window_steps, window_seconds in reversed(self.windows):
            counted, seconds = counted + window_steps, seconds + window_seconds
            if counted >= steps:
                break
        return seconds / counted if counted else 0.0

    def recent_tokens_per_second(self, steps: int) -> float | None:
        """Return the throughput of about the last `steps` steps in tokens per second; None before it is known."""
        seconds = self.recent_step_seconds(steps)
        return self.batch_tokens / seconds if seconds else None

    def summary(self) -> dict[str, float | None]:
        """Return the columns of speed: medians over windows, without the windows of the warm-up."""
        settled, seen = [], 0
        for steps, seconds in self.windows:
            if seen >= WARMUP_STEPS:
                settled.append(seconds / steps)
            seen += steps
        if not settled:  # in a very short run, use the second half instead
            settled = [seconds / steps for steps, seconds in self.windows[len(self.windows) // 2 :]]
        if not settled:
            return {"train_seconds": self.train_seconds}
        middle = median(settled)
        return {
            "tokens_per_second": self.batch_tokens / middle,
            "step_ms_p50": middle * 1e3,
            "step_ms_p95": float(np.percentile(settled, 95)) * 1e3,
            "data_wait_fraction": min(self.wait_seconds / self.train_seconds, 1.0),
            "train_seconds": self.train_seconds,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; checkpoints are written between two windows."""
        return {
            "windows": list(self.windows),
            "wait_seconds": self.wait_seconds,
            "train_seconds": self.train_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        self.windows = [(int(steps), float(seconds)) for steps, seconds in state["windows"]]
        self.wait_seconds, self.train_seconds = state["wait_seconds"], state["train_seconds"]


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its work; a CPU has no work pending."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


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

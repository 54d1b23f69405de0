"""What a run costs while it runs: time by the step, and memory.

Time is the host's clock around optimizer steps. What is not training (validation, checkpoints, logging)
lies between two steps and is not counted; waiting for data is, and is also told apart. On a GPU the host
runs ahead of the device, so the clock is read only at the edges of windows of several steps, after the
device has caught up; on a CPU every step is a window.
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
"""First steps left out of speed: allocators, caches and clocks settle in them."""
MEMORY_STEPS = 3
"""First steps whose memory is measured on a CPU: gradients of the step before stand from the second on, and what
several processes exchange them through from the third."""


@dataclass
class StepMeter:
    """Times optimizer steps, in windows that end where somebody reads a result from the device.

    Call `begin` when a step's first batch has arrived, `end` when the step is done, `close` where its results
    are read next, `rest` when whatever lies between two steps is over.
    """

    batch_tokens: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    clock: Callable[[], float] = time.perf_counter
    windows: list[tuple[int, float]] = field(default_factory=list)
    """Steps and seconds of each window."""
    wait_seconds: float = 0.0
    train_seconds: float = 0.0
    """Seconds in closed windows."""
    _rested: float = field(default=0.0, repr=False)
    _ended: float = field(default=0.0, repr=False)
    _open: tuple[int, float] = field(default=(0, 0.0), repr=False)

    def begin(self) -> None:
        """A step's first batch is here: the time since `rest` was spent waiting for it."""
        self.wait_seconds += self.clock() - self._rested

    def end(self) -> None:
        """A step is done; on a CPU, which does not run behind the host, it is a window."""
        steps, seconds = self._open
        self._open = (steps + 1, seconds + self.clock() - self._rested)
        self._ended = self.clock()
        if self.device.type == "cpu":
            self.close()

    def close(self) -> None:
        """Close the window.

        A GPU runs behind the host: only here, after it has caught up, is the time of a window known.
        """
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
        """What lay between two steps is over: the next step's clock starts."""
        self._rested = self.clock()

    @property
    def seconds(self) -> float:
        """Seconds of training steps so far, the open window as far as the host has seen it."""
        return self.train_seconds + self._open[1]

    def recent_step_seconds(self, steps: int) -> float:
        """Return the seconds of a step over about the last `steps` of them; 0 before the first window."""
        counted, seconds = 0, 0.0
        for window_steps, window_seconds in reversed(self.windows):
            counted, seconds = counted + window_steps, seconds + window_seconds
            if counted >= steps:
                break
        return seconds / counted if counted else 0.0

    def recent_tokens_per_second(self, steps: int) -> float | None:
        """Return the throughput of about the last `steps` steps, in tokens per second."""
        seconds = self.recent_step_seconds(steps)
        return self.batch_tokens / seconds if seconds else None

    def summary(self) -> dict[str, float | None]:
        """Return the record's columns of speed; medians over windows, those of the warm-up left out whole."""
        settled, seen = [], 0
        for steps, seconds in self.windows:
            if seen >= WARMUP_STEPS:
                settled.append(seconds / steps)
            seen += steps
        if not settled:  # a very short run: its second half is more than nothing
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
        """Return what a checkpoint keeps; it is written between two windows."""
        return {
            "windows": list(self.windows),
            "wait_seconds": self.wait_seconds,
            "train_seconds": self.train_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.windows = [(int(steps), float(seconds)) for steps, seconds in state["windows"]]
        self.wait_seconds, self.train_seconds = state["wait_seconds"], state["train_seconds"]


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class MemoryMeter:
    """The most memory that a run took since the meter was made: what its tensors needed, and what was kept for them.

    On CUDA both are the allocator's own account. On a CPU they are the growth of the process's own pages (code
    and the memory-mapped tokens, which the system can drop, left out). malloc there keeps much of what tensors
    give back, a third and more of a small model's memory and another share in each run. So until the third
    optimizer step is done, which holds all that any later one does, it is told to return what is freed at once:
    the peak of that time is what was needed. Such steps take longer; they belong to the warm-up, and afterwards
    malloc is free to keep memory. The growth over the whole run, kept memory, evaluation and checkpoints
    included, is what was reserved. Where malloc cannot be told (no glibc), both are that.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.init()  # torch refuses to reset the statistics of a device that nobody has used
            torch.cuda.reset_peak_memory_stats(device)
            return
        self._needed: int | None = None
        self._steps_left = MEMORY_STEPS
        self._can_tell = _keep_freed_memory(False)
        _return_freed_memory()  # what others left here would be used again, and not be seen to grow
        with suppress(OSError):  # no Linux, or not allowed: the peak is then the process's own
            Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak starts again from here
        self._start = _process_memory()

    def step(self) -> None:
        """An optimizer step is done; after a few, what is needed is known."""
        if self.device.type == "cuda" or not self._can_tell or self._needed is not None:
            return
        self._steps_left -= 1
        if not self._steps_left:
            self._needed = self._growth()
            _keep_freed_memory(True)

    def summary(self) -> dict[str, float | None]:
        """Return the record's columns of space, in GB (1e9 bytes)."""
        if self.device.type == "cuda":
            return {
                "peak_memory_gb": torch.cuda.max_memory_allocated(self.device) / 1e9,
                "reserved_memory_gb": torch.cuda.max_memory_reserved(self.device) / 1e9,
            }
        reserved = self._growth()
        if reserved is None:
            return {}
        needed = reserved if self._needed is None else self._needed
        # Files are counted off by what they are now, so the later reading may come out a little lower.
        return {"peak_memory_gb": needed / 1e9, "reserved_memory_gb": max(needed, reserved) / 1e9}

    def _growth(self) -> int | None:
        """Return the bytes that the process's own pages have grown by at their most, None where nobody can tell."""
        now = _process_memory()
        if self._start is None or now is None:
            return None
        files_growth = max(now["RssFile"] - self._start["RssFile"], 0)
        return max(now["VmHWM"] - self._start["VmRSS"] - files_growth, 0)


def _keep_freed_memory(keep: bool) -> bool:
    """Tell malloc whether to keep what is freed for later use, or to return it; False where it cannot be told.

    What is larger than a threshold gets pages of its own, which go back when it is freed. Left alone, glibc
    raises the threshold up to 32 MiB as a process frees such blocks: that is what `keep` sets for good.
    """
    mallopt = _of_malloc("mallopt")
    if mallopt is None:
        return False
    threshold = 32 * 2**20 if keep else 64 * 2**10
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    return bool(mallopt(mmap_threshold, threshold) and mallopt(trim_threshold, 2 * threshold))


def _return_freed_memory() -> None:
    """Give what is free already back to the system, as far as glibc is there to do so."""
    gc.collect()
    if malloc_trim := _of_malloc("malloc_trim"):
        malloc_trim(0)


def _of_malloc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def _process_memory() -> dict[str, int] | None:
    """Return this process's memory in bytes, as Linux tells it, or None elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    wanted = {"VmHWM", "VmRSS", "RssFile"}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name: int(value.split()[0]) * 1024 for name, value in pairs if name in wanted}

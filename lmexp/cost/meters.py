"""What a run costs while it runs: time by the step, and memory.

Time is the host's clock around optimizer steps. What is not training (validation, checkpoints, logging)
lies between two steps and is not counted; waiting for data is, and is also told apart. On a GPU the host
runs ahead of the device, so the clock is read only at the edges of windows of several steps, after the
device has caught up; on a CPU every step is a window.
"""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

WARMUP_STEPS = 5
"""First steps left out of speed: allocators, caches and clocks settle in them."""


@dataclass
class StepMeter:
    """Times optimizer steps in windows of `window` steps.

    Call `begin` when a step's first batch has arrived, `end` when the step is done, `rest` when whatever
    lies between two steps is over.
    """

    batch_tokens: int
    window: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    step_seconds: list[float] = field(default_factory=list)
    """Seconds per step: for each step its window's mean."""
    wait_seconds: float = 0.0
    _rested: float = field(default_factory=time.perf_counter, repr=False)
    _open: list[float] = field(default_factory=list, repr=False)

    def begin(self) -> None:
        """A step's first batch is here: the time since `rest` was spent waiting for it."""
        self.wait_seconds += time.perf_counter() - self._rested

    def end(self, flush: bool) -> None:
        """A step is done; `flush` closes the window early, as something else comes next."""
        full = len(self._open) + 1 >= self.window
        if (full or flush) and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._open.append(time.perf_counter() - self._rested)
        if full or flush:
            mean = sum(self._open) / len(self._open)
            self.step_seconds += [mean] * len(self._open)
            self._open = []

    def rest(self) -> None:
        """What lay between two steps is over: the next step's clock starts."""
        self._rested = time.perf_counter()

    @property
    def train_seconds(self) -> float:
        """Seconds in steps so far."""
        return sum(self.step_seconds) + sum(self._open)

    def summary(self) -> dict[str, float | None]:
        """Return the record's columns of speed; medians are null for a run of too few steps."""
        # A very short run keeps its second half: half of it is more than nothing.
        settled = self.step_seconds[min(WARMUP_STEPS, len(self.step_seconds) // 2) :]
        if not settled:
            return {"train_seconds": self.train_seconds}
        middle = median(settled)
        return {
            "tokens_per_second": self.batch_tokens / middle,
            "step_ms_p50": middle * 1e3,
            "step_ms_p95": float(np.percentile(settled, 95)) * 1e3,
            "data_wait_fraction": self.wait_seconds / self.train_seconds,
            "train_seconds": self.train_seconds,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"step_seconds": list(self.step_seconds), "wait_seconds": self.wait_seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.step_seconds, self.wait_seconds = list(state["step_seconds"]), state["wait_seconds"]


class MemoryMeter:
    """The most memory that a run took since the meter was made.

    On CUDA what torch's allocator had given out and had reserved; on a CPU the growth of the process's own
    pages (code and the memory-mapped tokens, which the system can drop, left out).
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        with suppress(OSError):  # no Linux, or not allowed: the peak is then the process's own
            Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak starts again from here
        self._start = _process_memory()

    def summary(self) -> dict[str, float | None]:
        """Return the record's columns of space, in GB (1e9 bytes)."""
        if self.device.type == "cuda":
            return {
                "peak_memory_gb": torch.cuda.max_memory_allocated(self.device) / 1e9,
                "reserved_memory_gb": torch.cuda.max_memory_reserved(self.device) / 1e9,
            }
        now = _process_memory()
        if self._start is None or now is None:
            return {}
        peak_growth = now["VmHWM"] - self._start["VmRSS"]
        files_growth = max(now["RssFile"] - self._start["RssFile"], 0)
        return {"peak_memory_gb": max(peak_growth - files_growth, 0) / 1e9}


def _process_memory() -> dict[str, int] | None:
    """Return this process's memory in bytes, as Linux tells it, or None elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    wanted = {"VmHWM", "VmRSS", "RssFile"}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name: int(value.split()[0]) * 1024 for name, value in pairs if name in wanted}

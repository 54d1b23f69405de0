"""The time that training takes.

It is measured by the clock of the host around optimizer steps. Everything between two steps (validation,
checkpoints, logging) is left out. A GPU runs behind the host, so the clock is read only at the edges of windows of
several steps, when the device has caught up. On a CPU every step is a window of its own.

Waiting for the data of each micro-batch counts as time of the step, and is also counted separately. While the host
fetches a micro-batch, a CUDA device may still work on the previous one, and is not delayed. So there the wait is the
time between two events on the device: the end of the work that it was given before the fetch, and the arrival of the
batch, its copy included. Elsewhere it is the time of the host: the exact wait on a CPU, an upper bound on a Mac's GPU.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch

WARMUP_STEPS = 5
"""Steps at the start that speeds leave out, because allocators, caches and clock rates settle in them."""


@dataclass
class StepMeter:
    """Times optimizer steps, in windows that end when the host reads a result from the device.

    Call `rest` when everything between two steps is over, `await_batch` before each further micro-batch of the step,
    `begin` when a micro-batch has arrived, `end` when the step is done, and `close` before its results are read.
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
    _asked: Any = field(default=0.0, repr=False)
    """When the micro-batch that comes next was asked for: a time of the clock, or an event on a CUDA device."""
    _waits: list[tuple[Any, Any]] = field(default_factory=list, repr=False)
    """Pairs of events of the open window, before and after each wait."""
    _ended: float = field(default=0.0, repr=False)
    _open: tuple[int, float] = field(default=(0, 0.0), repr=False)

    def await_batch(self) -> None:
        """Start to count a wait: the next micro-batch is asked for."""
        self._asked = self._moment()

    def begin(self) -> None:
        """Count the wait until now; a micro-batch has arrived."""
        if self.device.type == "cuda":
            self._waits.append((self._asked, self._moment()))  # their times are known when the device has caught up
        else:
            self.wait_seconds += self._moment() - self._asked

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
        self.wait_seconds += sum(before.elapsed_time(after) for before, after in self._waits) / 1e3
        self._waits.clear()
        self.windows.append((steps, seconds))
        self.train_seconds += seconds
        self._open = (0, 0.0)

    def rest(self) -> None:
        """Start the clock of the next step, and the wait for its first micro-batch."""
        self._rested = self.clock()
        self.await_batch()

    def _moment(self) -> Any:
        """Return the time of the host's clock, or an event after all the work that a CUDA device was given so far."""
        if self.device.type != "cuda":
            return self.clock()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

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

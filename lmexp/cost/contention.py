"""Whether other programs kept a run waiting for the cores of a CPU, which makes all its speeds too low."""

import os
import time
from contextlib import suppress
from pathlib import Path

import psutil

MAX_WAIT_FRACTION = 0.1
"""A run that waited for its cores for a larger share of its time is marked: its speeds are too low."""
SAMPLE_SECONDS = 0.25
"""How long other programs are watched. The kernel counts in ticks of 10 ms at most, so this tells 4 % of a core."""
MIN_BUSY_CORES = 0.25
"""Other programs that use less of a core than this hardly slow the work down."""


class CpuWait:
    """How long the threads of this process wait for a core, from now on.

    Linux counts for each thread the time in which it could run but no core was free (`run_delay` in
    `/proc/PID/task/TID/schedstat`, Documentation/scheduler/sched-stats).
    """

    def __init__(self, process: Path = Path("/proc/self")) -> None:
        self._process = process
        self._before = self._waits()
        self._started = time.perf_counter()

    def fraction(self) -> float | None:
        """Return the share of the time since the start in which the thread that waited longest waited; None if unknown.

        The longest counts, because the threads of an operation wait for the last of them.
        """
        now, seconds = self._waits(), time.perf_counter() - self._started
        if not now or seconds <= 0:
            return None
        longest = max(wait - self._before.get(thread, 0) for thread, wait in now.items())
        return min(1.0, max(0.0, longest / 1e9 / seconds))

    def _waits(self) -> dict[str, int]:
        """Return the nanoseconds that each thread has waited; empty if the system does not count them."""
        waits = {}
        for file in self._process.glob("task/*/schedstat"):
            with suppress(OSError, ValueError, IndexError):  # the thread has ended
                waits[file.parent.name] = int(file.read_text().split()[1])
        return waits


def cores_of_others(seconds: float | None = None) -> float:
    """Return how many of the cores that this process may use are busy with other programs.

    They are watched for `seconds`, or for SAMPLE_SECONDS if that is None. The load average would still count what this
    process did a minute ago, such as the runs of the sweep before.
    """
    seconds = SAMPLE_SECONDS if seconds is None else seconds
    mine = psutil.Process()
    own_before = _own_seconds(mine)
    busy = psutil.cpu_percent(seconds, percpu=True)
    own = (_own_seconds(mine) - own_before) / seconds
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(busy))
    return max(0.0, sum(busy[core] for core in allowed if core < len(busy)) / 100 - own)


def busy_warning(threads: int, at_once: int, cores: int, setting: str, note: str = "") -> str | None:
    """Return a warning if work on the CPU would have to share its cores; None if there are enough cores.

    Other programs must be busy in two samples in a row, because one that is about to end is no reason to warn. The
    warning suggests fewer threads if they are faster: a step waits for its slowest thread (docs/performance.md).

    Args:
        threads: number of threads of each run.
        at_once: number of runs that train at the same time.
        cores: number of cores that this process may use.
        setting: key or environment variable that sets the number of threads, such as `launcher.threads`.
        note: text that follows "the speeds will be too low", such as how tables mark these speeds.
    """
    needed = threads * at_once
    others = cores_of_others()
    if others >= MIN_BUSY_CORES and others + needed > cores:
        others = min(others, cores_of_others())
    if others >= MIN_BUSY_CORES and others + needed > cores:
        fewer = max(1, int(cores - others + MIN_BUSY_CORES) // at_once)
        faster = f"; beside them, {setting}={fewer} is faster" if fewer < threads else ""
        return f"warning: other programs use {others:.1f} of {cores} cores, so the speeds will be too low{note}{faster}"
    if needed > cores and threads > 1:
        what = f"a run of {threads} threads has" if at_once == 1 else f"{at_once} runs of {threads} threads have"
        return f"warning: {what} only {cores} cores; {setting}={max(1, cores // at_once)} is faster"
    return None


def _own_seconds(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and its children, such as the server that runs are forked from."""
    seconds = 0.0
    for each in [process, *process.children(recursive=True)]:
        with suppress(psutil.Error):
            times = each.cpu_times()
            seconds += times.user + times.system
    return seconds

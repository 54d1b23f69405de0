"""The energy that a run uses, from the best source that the device has.

    nvml        the counter of a GPU for its whole board (Volta and later), in mJ
    rapl        the counters of the CPU packages that Linux shows, in µJ
    estimated   rated power times time, if no counter can be read and the power is known

A counter includes everything that the device uses, also for other programs; the column `exclusive` warns of that. The
counters of RAPL wrap around after minutes under load, so `sample` must be called more often than that. Without a
counter and without a rated power, the energy is unknown: None, never 0.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from lmexp.cost.device import Device
from lmexp.cost.nvml import Gpu

Source = Literal["nvml", "rapl", "estimated"]
POWERCAP = Path("/sys/class/powercap")
JOULES_PER_KWH = 3.6e6


class Counter(Protocol):
    """A counter of energy."""

    def joules(self) -> float:
        """Return the joules used since a fixed moment. Raises OSError or RuntimeError if the counter cannot be read."""


class EnergyMeter:
    """Counts the joules used since the meter was created."""

    def __init__(
        self,
        counter: Counter | None,
        source: Source | None,
        watts: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read `counter`; without one, multiply `watts` by time if the power is known."""
        self._counter, self._watts, self._clock = counter, watts, clock
        self.source: Source | None = source if counter else ("estimated" if watts else None)
        self._joules = 0.0
        self._lock = threading.Lock()
        self._last = self._read()

    def sample(self) -> None:
        """Add what was used since the last sample. After a counter fails or starts anew, the energy is unknown."""
        with self._lock:  # the heartbeat and the end of a run may call this at the same time
            if self.source is None:
                return
            try:
                now = self._read()
            except Exception:  # a driver that was unloaded can raise anything
                self.source = None
                return
            if now < self._last:  # the GPU was reset, and nobody knows what it had used until then
                self.source = None
                return
            self._joules += now - self._last
            self._last = now

    def joules(self) -> float | None:
        """Return the joules used so far; None if they are unknown."""
        self.sample()
        return None if self.source is None else self._joules

    def _read(self) -> float:
        if self._counter is not None:
            return self._counter.joules()
        return self._clock() * (self._watts or 0.0)


def open_meter(device: Device, index: int, watts: float | None, shares_machine: bool) -> EnergyMeter:
    """Return the energy meter of one process of a run.

    Args:
        index: the index of its GPU among the visible ones.
        watts: the rated power of one device, if known.
        shares_machine: whether another process of the run already counts the CPU of this machine.
    """
    if device.kind == "cpu" and shares_machine:
        return EnergyMeter(_CountedElsewhere(), "rapl")
    with suppress(Exception):  # without the counter or the permission, use an estimate
        if device.kind == "cuda":
            gpu = Gpu(index)
            gpu.joules()  # raises an error if there is no counter
            return EnergyMeter(gpu, "nvml", watts)
        if device.kind == "cpu":
            return EnergyMeter(RaplCounter(), "rapl", watts)
    return EnergyMeter(None, None, watts)


class _CountedElsewhere:
    """The counter of a device that another process already counts: always 0."""

    def joules(self) -> float:
        return 0.0


class RaplCounter:
    """The sum of the counters of all CPU packages. Raises OSError if they cannot be read."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._packages = [_Package(path) for path in packages(folder)]
        if not self._packages:
            raise FileNotFoundError(folder)

    def joules(self) -> float:
        """Return joules since this object was created."""
        return sum(package.joules() for package in self._packages)


class _Package:
    def __init__(self, path: Path) -> None:
        self._file = path / "energy_uj"
        self._limit = int((path / "max_energy_range_uj").read_text())
        self._last, self._used = self._read(), 0

    def joules(self) -> float:
        now = self._read()
        self._used += (now - self._last) % (self._limit + 1)  # the counter wraps around at its limit
        self._last = now
        return self._used / 1e6

    def _read(self) -> int:
        return int(self._file.read_text())


def packages(folder: Path = POWERCAP) -> list[Path]:
    """Return the domains of RAPL that are whole packages; their parts and `psys` would count the same energy twice."""
    domains = []
    for path in sorted(folder.glob("intel-rapl:*")):
        with suppress(OSError):
            if path.name.count(":") == 1 and (path / "name").read_text().startswith("package"):
                domains.append(path)
    return domains


def why_no_energy(device: Device) -> str | None:
    """Return why no energy counter of a device can be read; None if one can."""
    if device.kind == "cuda":
        return None if find_spec("pynvml") else "no NVML: pip install 'lmexp[energy]'"
    if device.kind == "mps":
        return "the energy counter of a Mac is not read"
    counters = [path / "energy_uj" for path in packages()]
    if not counters:
        return "this kernel shows no energy counter of the CPU (RAPL); set hardware.watts for an estimate"
    if not all(os.access(counter, os.R_OK) for counter in counters):
        return f"the CPU has an energy counter (RAPL), but only root can read {counters[0]}"
    return None

"""Energy that a run used, from the best source there is.

    nvml        the GPU's own counter of its whole board, since it was started (Volta and later), in mJ
    rapl        the counters of the CPU's packages, as Linux shows them, in µJ
    estimated   rated power times time, where no counter can be read and the power is known

A counter tells all that the device used, other programs included, as `exclusive` warns. It is read as a
difference. RAPL's counters begin again at a limit, after minutes under load, so `sample` must be called more
often than that. Where there is neither counter nor power, energy is unknown: None, never 0.
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

Source = Literal["nvml", "rapl", "estimated"]
POWERCAP = Path("/sys/class/powercap")
JOULES_PER_KWH = 3.6e6


class Counter(Protocol):
    """Something that counts energy."""

    def joules(self) -> float:
        """Return joules used since some moment in the past; raises OSError or RuntimeError when it cannot."""


class EnergyMeter:
    """Joules since the meter was made, and since before that where a run goes on from a checkpoint."""

    def __init__(
        self,
        counter: Counter | None,
        source: Source | None,
        watts: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Count with `counter`; without one, `watts` times time if that is known."""
        self._counter, self._watts, self._clock = counter, watts, clock
        self.source: Source | None = source if counter else ("estimated" if watts else None)
        self._joules = 0.0
        self._lock = threading.Lock()
        self._last = self._read()

    def sample(self) -> None:
        """Add what was used since the last sample. A counter that fails once is not trusted again."""
        with self._lock:  # a heartbeat and the end of a run may ask at once
            if self.source is None:
                return
            try:
                now = self._read()
            except Exception:  # whatever a driver that went away raises
                self.source = None
                return
            self._joules += now - self._last
            self._last = now

    def joules(self) -> float | None:
        """Return the joules used so far, or None where nobody can tell."""
        self.sample()
        return None if self.source is None else self._joules

    def _read(self) -> float:
        if self._counter is not None:
            return self._counter.joules()
        return self._clock() * (self._watts or 0.0)


def open_meter(device: Device, index: int, watts: float | None, shares_machine: bool) -> EnergyMeter:
    """Return the meter of one process of a run.

    Args:
        index: which of the visible GPUs it has.
        watts: rated power of one device.
        shares_machine: whether another process of the run on this machine counts the CPU already; the device
            of this one is then part of what that one counts.
    """
    if device.kind == "cpu" and shares_machine:
        return EnergyMeter(_Elsewhere(), "rapl")
    with suppress(Exception):  # a driver without the counter, no permission: an estimate is next
        if device.kind == "cuda":
            return EnergyMeter(NvmlCounter(index), "nvml", watts)
        if device.kind == "cpu":
            return EnergyMeter(RaplCounter(), "rapl", watts)
    return EnergyMeter(None, None, watts)


class _Elsewhere:
    """What another process counts."""

    def joules(self) -> float:
        return 0.0


class NvmlCounter:
    """The counter of a GPU. Raises what NVML raises when there is none."""

    def __init__(self, index: int) -> None:
        """`index` is torch's: of several visible GPUs, NVML may count others first."""
        import pynvml
        import torch

        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(index).uuid
        self._nvml = pynvml
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        self.joules()

    def joules(self) -> float:
        """Return joules since the driver was loaded."""
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3


class RaplCounter:
    """The counters of all CPU packages together. Raises OSError when they cannot be read."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._packages = [_Package(path) for path in packages(folder)]
        if not self._packages:
            raise FileNotFoundError(folder)

    def joules(self) -> float:
        """Return joules since this object was made."""
        return sum(package.joules() for package in self._packages)


class _Package:
    def __init__(self, path: Path) -> None:
        self._file = path / "energy_uj"
        self._limit = int((path / "max_energy_range_uj").read_text())
        self._last, self._used = self._read(), 0

    def joules(self) -> float:
        now = self._read()
        self._used += (now - self._last) % (self._limit + 1)  # it begins again at its limit
        self._last = now
        return self._used / 1e6

    def _read(self) -> int:
        return int(self._file.read_text())


def packages(folder: Path = POWERCAP) -> list[Path]:
    """Return RAPL's domains that are whole packages: their parts, and `psys`, would count them twice."""
    found = []
    for path in sorted(folder.glob("intel-rapl:*")):
        with suppress(OSError):
            if path.name.count(":") == 1 and (path / "name").read_text().startswith("package"):
                found.append(path)
    return found


def why_no_energy(device: Device) -> str | None:
    """Return why no energy counter can be read on a device, or None."""
    if device.kind == "cuda":
        return None if find_spec("pynvml") else "no NVML: pip install 'lmexp[energy]'"
    if device.kind == "mps":
        return "a Mac's counter is not read"
    counters = [path / "energy_uj" for path in packages()]
    if not counters:
        return "this kernel shows no CPU counter (RAPL); hardware.watts gives an estimate"
    if not all(os.access(counter, os.R_OK) for counter in counters):
        return f"the CPU counter (RAPL) is there, but {counters[0]} is readable by root only"
    return None

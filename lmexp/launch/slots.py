"""The devices and threads of this machine, assigned to runs.

A run has whole devices to itself, or a share of one if `launcher.devices_per_run` is a fraction. The CPU is one device,
and its cores are split evenly between the runs that train at the same time.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lmexp.config.checks import devices_of, world_size
from lmexp.config.launchers import LocalLauncher
from lmexp.config.schema import RunConfig
from lmexp.cost import contention
from lmexp.cost.device import Device, cores
from lmexp.resolve.planned import PlannedRun

NEARLY = 1e-9


@dataclass(frozen=True)
class Place:
    """The devices and threads of one run."""

    devices: tuple[str, ...]
    """Names for CUDA_VISIBLE_DEVICES; empty on a CPU."""
    threads: int
    """CPU threads for all the processes of the run."""
    share: float = 1.0
    """The run's share of each of its devices."""

    def environment(self) -> dict[str, str]:
        """Return the environment variables that restrict a run to its devices."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.devices)} if self.devices else {}


def slots_of(config: RunConfig, device: Device) -> int:
    """Return how many runs like this one fit on this machine at a time."""
    if slots := _launcher(config).slots:
        return slots
    share = devices_of(config)
    # Several processes on a CPU are one run on one device.
    devices = share if device.kind != "cpu" else min(share, 1.0)
    return max(1, math.floor(device.count / devices + NEARLY))


def threads_of(config: RunConfig, device: Device) -> int:
    """Return the CPU threads of a run, for all its processes together.

    A share of the cores is cut to OMP_NUM_THREADS per process, where the user has set it, as torch itself would do.
    """
    processes = world_size(config)
    if (threads := config.launcher.threads_of(processes)) is not None:
        return threads
    share = max(1, cores() // slots_of(config, device))
    limit = re.match(r"[1-9]\d*", os.environ.get("OMP_NUM_THREADS", ""))
    return min(share, int(limit[0]) * processes) if limit else share


def busy_warning(runs: Sequence[PlannedRun]) -> str | None:
    """Return a warning if runs on this machine's CPU would have to share its cores with other programs."""
    needed = [
        (slots_of(planned.config, planned.device), threads_of(planned.config, planned.device))
        for planned in runs
        if planned.device.kind == "cpu" and not planned.device.elsewhere
    ]
    if not needed:
        return None
    at_once, threads = max(needed, key=math.prod)
    note = " (tables mark them with ~ if a run waited for its cores)"
    return contention.busy_warning(threads, at_once, cores(), "launcher.threads", note)


def _launcher(config: RunConfig) -> LocalLauncher:
    assert isinstance(config.launcher, LocalLauncher)
    return config.launcher


class Places:
    """The devices and threads of this machine, given out to runs."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._taken = 0
        self._free = dict.fromkeys(visible_devices(device), 1.0) if device.kind == "cuda" else {}
        """The share of each GPU that is free, by name."""

    def take(self, config: RunConfig) -> Place | None:
        """Return devices and threads for a run, or None if they are not free now."""
        limit = _launcher(config).slots
        if self._device.kind != "cuda":
            limit = slots_of(config, self._device)
        if limit is not None and self._taken >= limit:
            return None
        mine: tuple[str, ...] = ()
        share = min(devices_of(config), 1.0)
        if self._device.kind == "cuda":
            fitting = [name for name, free in self._free.items() if free >= share - NEARLY]
            fitting.sort(key=lambda name: self._free[name])  # those in use first: whole ones stay whole
            wanted = math.ceil(devices_of(config))
            if len(fitting) < wanted:
                return None
            mine = tuple(fitting[:wanted])
            for name in mine:
                self._free[name] -= share
        self._taken += 1
        return Place(mine, threads_of(config, self._device), share)

    def give_back(self, place: Place) -> None:
        """Free the devices of a run that has ended."""
        self._taken -= 1
        for name in place.devices:
            self._free[name] += place.share


def visible_devices(device: Device) -> list[str]:
    """Return the GPUs that this process may use: indices, or the names in its environment (GPU-..., MIG-...).

    As in CUDA, a negative index hides itself and all that follow it. If the devices are not on this machine, all their
    indices are returned.
    """
    outer = None if device.elsewhere else os.environ.get("CUDA_VISIBLE_DEVICES")
    if outer is None:
        return [str(i) for i in range(device.count)]
    names = []
    for name in filter(None, map(str.strip, outer.split(","))):
        if name.startswith("-"):
            break
        names.append(name)
    return names

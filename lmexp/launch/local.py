"""This machine as an engine: each run has a place among its devices, and processes of its own."""

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lmexp.config.checks import world_size
from lmexp.cost.cgroups import memory_groups
from lmexp.launch.engine import Engine
from lmexp.launch.processes import Process, start, stop_all
from lmexp.launch.slots import Place, Places
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.runs.directory import StateName

RECENT_SECONDS = 60.0
"""A run is gone within this time of a process of its being ended: torchrun gives the others half a minute."""


class OomWatcher:
    """Watches for processes that the system ends for want of memory, among those that share ours."""

    def __init__(self, root: Path = Path("/")) -> None:
        """Find what counts them; `root` is the file system's."""
        found = ((file, count) for file in _counters(root) if (count := _count(file)) is not None)
        self._counter: Path | None
        self._counter, self._ended = next(found, (None, 0))
        self._ended_at = -math.inf

    def look(self) -> None:
        """See whether there are more of them; what is not looked at often is seen late."""
        ended = _count(self._counter) if self._counter else None
        if ended is not None and ended > self._ended:
            self._ended, self._ended_at = ended, time.monotonic()

    @property
    def was_short(self) -> bool:
        """Whether one has been ended within the last minute."""
        return time.monotonic() - self._ended_at < RECENT_SECONDS


@dataclass(frozen=True)
class LocalHandle:
    """A run on this machine."""

    process: Process
    processes: int
    """How many train it; more than one are torchrun's."""
    place: Place
    memory: OomWatcher
    job: None = None

    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        self.memory.look()
        return self.process.exit_code()

    @property
    def was_killed(self) -> bool:
        """Whether it ended as by SIGKILL; of one of its processes, torchrun says no more than that it failed."""
        code = self.process.exit_code()
        return code == -signal.SIGKILL or (self.processes > 1 and code == 1)


class LocalEngine(Engine[LocalHandle]):
    """Runs on this machine."""

    def __init__(self, sweep: Sweep) -> None:
        self._places = Places(sweep.examples[0].device)
        self._reserved: list[Place] = []
        self._memory = OomWatcher()

    def reserve(self, planned: PlannedRun) -> bool:
        """Take a place for a run that is to be started next; False while there is none."""
        place = self._places.take(planned.config)
        if place:
            self._reserved.append(place)
        return place is not None

    def start(self, runs: Sequence[PlannedRun]) -> Iterator[LocalHandle]:
        """Start runs that have places, in order, each as it is asked for."""
        for planned in runs:
            place, processes = self._reserved.pop(0), world_size(planned.config)
            process = start(planned.run, processes, place)
            yield LocalHandle(process, processes, place, self._memory)

    def release(self, handle: LocalHandle) -> None:
        """A run has ended: its place is free."""
        self._places.give_back(handle.place)

    def why(self, handle: LocalHandle) -> tuple[StateName, str] | None:
        """Say so where the run was killed just after the system has ended a process for want of memory."""
        self._memory.look()  # it may have come to pass between the last look and the end
        if handle.was_killed and self._memory.was_short:
            return "oom", "the system ended it for want of memory"
        return None

    def stop(self, handles: Sequence[LocalHandle]) -> None:
        """End runs with all their processes, and return when they are gone."""
        stop_all([handle.process for handle in handles])


def _counters(root: Path) -> Iterator[Path]:
    """Yield the files that may count processes ended for want of memory: of our control group, else of the machine.

    A group without a count of its own (or, in a container, under a name from outside it) is a part of one above it.
    """
    version, folders = memory_groups(root)
    for folder in folders:
        yield folder / ("memory.events" if version == 2 else "memory.oom_control")
    yield root / "proc/vmstat"


def _count(file: Path) -> int | None:
    with suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None

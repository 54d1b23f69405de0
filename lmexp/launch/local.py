"""The engine for this machine: each run gets a share of the devices and its own processes."""

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
from lmexp.runs.state import StateName

RECENT_SECONDS = 60.0
"""A run ends within this time after one of its processes was killed: torchrun gives the others half a minute."""


class OomWatcher:
    """Watches whether the system has killed a process of this control group because memory ran out."""

    def __init__(self, root: Path = Path("/")) -> None:
        """Find the file that counts kills; `root` is the root of the file system."""
        counts = ((file, count) for file in _counters(root) if (count := _count(file)) is not None)
        self._counter: Path | None
        self._counter, self._kills = next(counts, (None, 0))
        self._killed_at = -math.inf

    def look(self) -> None:
        """Read the counter; a kill gets the time of the first reading after it."""
        kills = _count(self._counter) if self._counter else None
        if kills is not None and kills > self._kills:
            self._kills, self._killed_at = kills, time.monotonic()

    @property
    def was_short(self) -> bool:
        """Whether a process has been killed within the last minute."""
        return time.monotonic() - self._killed_at < RECENT_SECONDS


@dataclass(frozen=True)
class LocalHandle:
    """A run on this machine."""

    process: Process
    processes: int
    """How many processes train the run; torchrun starts them if there are several."""
    place: Place
    memory: OomWatcher
    job: None = None

    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        self.memory.look()
        return self.process.exit_code()

    @property
    def was_killed(self) -> bool:
        """Whether the run ended as if by SIGKILL; torchrun reports only that one of its processes failed."""
        code = self.process.exit_code()
        return code == -signal.SIGKILL or (self.processes > 1 and code == 1)


class LocalEngine(Engine[LocalHandle]):
    """Runs on this machine."""

    def __init__(self, sweep: Sweep) -> None:
        self._places = Places(sweep.examples[0].device)
        self._reserved: list[Place] = []
        self._memory = OomWatcher()

    def reserve(self, planned: PlannedRun) -> bool:
        """Reserve devices for a run that starts next; False if none are free now."""
        place = self._places.take(planned.config)
        if place:
            self._reserved.append(place)
        return place is not None

    def start(self, runs: Sequence[PlannedRun]) -> Iterator[LocalHandle]:
        """Start reserved runs in order, one each time a handle is requested."""
        for planned in runs:
            place, processes = self._reserved.pop(0), world_size(planned.config)
            process = start(planned.run, processes, place)
            yield LocalHandle(process, processes, place, self._memory)

    def release(self, handle: LocalHandle) -> None:
        """Free the devices of a run that has ended."""
        self._places.give_back(handle.place)

    def why(self, handle: LocalHandle) -> tuple[StateName, str] | None:
        """Return `oom` if the run was killed just after the system killed a process because memory ran out."""
        self._memory.look()  # the kill may have happened since the last reading
        if handle.was_killed and self._memory.was_short:
            return "oom", "the system killed it because memory ran out"
        return None

    def stop(self, handles: Sequence[LocalHandle]) -> None:
        """End runs with all their processes, and return when they are gone."""
        stop_all([handle.process for handle in handles])


def _counters(root: Path) -> Iterator[Path]:
    """Yield the files that may count processes killed because memory ran out: of our groups, then of the machine."""
    version, folders = memory_groups(root)
    yield from (folder / ("memory.oom_control" if version == 1 else "memory.events") for folder in folders)
    yield root / "proc/vmstat"


def _count(file: Path) -> int | None:
    with suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None

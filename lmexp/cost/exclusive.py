"""Whether a run had its devices to itself: speeds that were measured beside another run cannot be compared.

There are two sources. While it trains, each run holds a lock on each of its devices, named by the UUID of the GPU, and
a run that finds the lock taken leaves a mark beside it. So both runs find out: the later one at once, the earlier one
when it ends. This covers the runs of all sweeps and coordinators on the machine, also those that a killed coordinator
left behind. NVML lists the processes that compute on a GPU, also those of other programs, of other users and of jobs
with a /tmp of their own. A run looks at that list every few seconds. Neither source shows other programs on a CPU; the
column `cpu_wait_fraction` shows their effect.
"""

import fcntl
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from lmexp.cost.nvml import Gpu, uuid_of


class Exclusive:
    """The locks that a run holds from before its first step until its record."""

    def __init__(
        self, devices: Sequence[str], has_neighbours: Callable[[], bool] = lambda: False, folder: Path | None = None
    ) -> None:
        """Lock devices by their names; `has_neighbours` says whether other programs are on them now."""
        root = folder or Path(tempfile.gettempdir())
        self._has_neighbours = has_neighbours
        self._shared = False
        self._locks: list[IO[str]] = []
        self._marks: list[Path] = []
        for device in devices:
            name = "".join(letter if letter.isalnum() else "_" for letter in device)
            file = root / f"lmexp-{os.getuid()}-{name}.lock"
            lock, mark = file.open("a"), file.with_suffix(".shared")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_held(mark):
                    self._shared = True
                else:
                    mark.unlink(missing_ok=True)  # from runs that have ended
            except BlockingIOError:
                self._shared = True
                self._locks.append(_hold(mark))
            self._locks.append(lock)
            self._marks.append(mark)

    def look(self) -> None:
        """Look at what else is on the devices now; call this every few seconds."""
        self._shared = self._shared or self._has_neighbours()

    @property
    def alone(self) -> bool:
        """Whether nothing else has been seen on any of the devices so far."""
        self.look()
        return not (self._shared or any(mark.exists() for mark in self._marks))

    def release(self) -> bool:
        """Release the locks; return whether nothing else was seen on any of the devices meanwhile."""
        alone = self.alone
        for lock in self._locks:
            lock.close()  # the kernel drops the lock, as it does when a run is killed
        return alone


def _hold(mark: Path) -> IO[str]:
    """Make a mark, and hold it as long as the run does."""
    held = mark.open("a")
    fcntl.flock(held, fcntl.LOCK_SH)
    return held


def _is_held(mark: Path) -> bool:
    """Whether a run that left this mark still runs: it came while the device was locked, and has no lock of its own."""
    try:
        with mark.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def lock_devices(kind: str, count: int = 1) -> Exclusive:
    """Lock the CPU, or the first `count` GPUs that this process sees, for a run that trains on them."""
    if kind != "cuda":
        return Exclusive(["cpu"])
    gpus = []
    for index in range(count):
        with suppress(Exception):  # no NVML, or a GPU that it does not know
            gpus.append(Gpu(index))
    return Exclusive([_name(index) for index in range(count)], Neighbours(gpus))


class Neighbours:
    """Whether other programs compute on the GPUs of a run."""

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._gpus = gpus
        self._own: set[int] = set()

    def __call__(self) -> bool:
        """Whether there are any now."""
        return any(self._are_others(gpu.processes()) for gpu in self._gpus)

    def _are_others(self, listed: set[int]) -> bool:
        """Whether some of the listed processes do not belong to the run.

        A container has process ids of its own, while NVML lists those of the machine. There the run does not find
        itself in the list, and one of the listed processes, at least, is the run's.
        """
        if not listed <= self._own:
            self._own = own_processes()
        return len(listed) > 1 if listed.isdisjoint(self._own) else not listed <= self._own


def own_processes() -> set[int]:
    """Return the ids of this run's processes, and of those that started it, which may have queried the GPU."""
    this = psutil.Process()
    first = this
    with suppress(psutil.Error):
        if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:  # torchrun started the others too
            first = this.parent() or this
    family = {this.pid, first.pid}
    with suppress(psutil.Error):
        family |= {process.pid for process in [*this.parents(), *first.children(recursive=True)]}
    return family


def _name(index: int) -> str:
    """Return the UUID of a GPU, or its name in CUDA_VISIBLE_DEVICES if torch does not know the UUID."""
    with suppress(Exception):
        return uuid_of(index)
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return names[index] if index < len(names) and names[index] else str(index)

"""Whether a run had its devices to itself: speeds that were measured beside another run cannot be compared.

While it trains, each run holds a lock on each of its devices. A run that finds the lock taken leaves a mark beside it,
so both runs find out: the later one at once, the earlier one when it ends. This covers the runs of all sweeps and
coordinators, also those that a killed coordinator left behind, but no programs other than lmexp.
"""

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO


class Exclusive:
    """The locks that a run holds from before its first step until its record."""

    def __init__(self, devices: str, folder: Path | None = None) -> None:
        """Lock `devices`: `cpu`, or names as in CUDA_VISIBLE_DEVICES."""
        root = folder or Path(tempfile.gettempdir())
        self._shared = False
        self._locks: list[IO[str]] = []
        self._marks: list[Path] = []
        for device in devices.split(","):
            name = "".join(letter if letter.isalnum() else "_" for letter in device)
            file = root / f"lmexp-{os.getuid()}-{name}.lock"
            lock, mark = file.open("a"), file.with_suffix(".shared")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mark.unlink(missing_ok=True)  # from runs that have ended
            except BlockingIOError:
                self._shared = True
                mark.touch()
            self._locks.append(lock)
            self._marks.append(mark)

    @property
    def alone(self) -> bool:
        """Whether no other run has been on any of the devices so far."""
        return not (self._shared or any(mark.exists() for mark in self._marks))

    def release(self) -> bool:
        """Release the locks; return whether no other run was on any of the devices meanwhile."""
        alone = self.alone
        for lock in self._locks:
            lock.close()  # the kernel drops the lock, as it does when a run is killed
        return alone

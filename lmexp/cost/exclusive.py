"""Whether a run had its device to itself: speeds measured beside another run are not to be compared.

Each run holds a lock for each of its devices while it trains. One that finds the lock taken leaves a mark beside
it, so both know: the later one at once, the earlier one when it ends. Runs of any sweep and any coordinator
are seen, those that a killed coordinator left behind included; programs other than lmexp are not.
"""

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO


class Exclusive:
    """Held by a run from before its first step to its record."""

    def __init__(self, devices: str, folder: Path | None = None) -> None:
        """Take the places of `devices`: `cpu`, or names as in CUDA_VISIBLE_DEVICES."""
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
                mark.unlink(missing_ok=True)  # left by runs that have ended
            except BlockingIOError:
                self._shared = True
                mark.touch()
            self._locks.append(lock)
            self._marks.append(mark)

    @property
    def alone(self) -> bool:
        """Whether no other run has been on any of the places so far."""
        return not (self._shared or any(mark.exists() for mark in self._marks))

    def release(self) -> bool:
        """Give the places back and return whether no other run was on any of them meanwhile."""
        alone = self.alone
        for lock in self._locks:
            lock.close()  # the kernel drops the lock, as it does when a run is killed
        return alone

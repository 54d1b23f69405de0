"""Coordinators of a sweep: whether one is at work in the sweep's folder, and how to ask them to stop.

Each coordinator holds a shared lock on a file in the folder, which the kernel releases if the process is killed. The
request to stop is a file as well, so that it works from any machine that sees the folder.
"""

import errno
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LOCK, CANCEL = ".coordinators", ".cancel"


@contextmanager
def coordinating(folder: Path) -> Iterator[None]:
    """Be one of the folder's coordinators."""
    with (folder / LOCK).open("a+") as file:  # NFS grants a shared lock only on a file that is open for reading
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def has_coordinator(folder: Path) -> bool:
    """Whether a coordinator is at work in the folder. Also False on NFS for a user who may not write there."""
    try:
        with _open(folder / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
    return False


def _open(path: Path) -> IO[str]:
    """Open a lock file; read-only if nothing else is allowed, which is enough to try the lock on a local disk."""
    try:
        return path.open("r+")  # NFS needs write access for an exclusive lock
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return path.open("r")


def ask_to_stop(folder: Path) -> None:
    """Ask every coordinator that is at work now to stop its runs and to end."""
    (folder / CANCEL).write_text(f"{time.time()}\n")


def asked_to_stop(folder: Path, since: float) -> bool:
    """Whether a request to stop was made since a time (seconds since the epoch)."""
    try:
        return float((folder / CANCEL).read_text()) >= since
    except (OSError, ValueError):  # there is no request, or it is being written
        return False

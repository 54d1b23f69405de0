"""Coordinators of a sweep's folder: whether there are any, and asking them to stop.

Each holds a shared lock on a file in the folder, which the kernel drops when it is killed. Asking them to stop is
a file as well, so that it works from another machine that sees the folder.
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
    with (folder / LOCK).open("a+") as file:  # NFS shares a lock only with who may read
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def has_coordinator(folder: Path) -> bool:
    """Whether a coordinator is at work in the folder. False, too, where NFS tells only those who may write."""
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
    """Open a lock, for reading alone where that is all that is allowed: a local disk's lock can still be tried."""
    try:
        return path.open("r+")  # NFS asks for that
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return path.open("r")


def ask_to_stop(folder: Path) -> None:
    """Ask every coordinator that is at work now to stop its runs and itself."""
    (folder / CANCEL).write_text(f"{time.time()}\n")


def asked_to_stop(folder: Path, since: float) -> bool:
    """Whether someone has asked since a time (seconds since the epoch)."""
    try:
        return float((folder / CANCEL).read_text()) >= since
    except (OSError, ValueError):  # nobody did, or is just writing it
        return False

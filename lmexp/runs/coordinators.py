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

from lmexp.files import read_text, write_atomically
from lmexp.runs.links import check_sweep_links

LOCK, CANCEL = ".coordinators", ".cancel"
MAX_REQUEST_BYTES = 1000
CHECKS, CHECK_SECONDS = 5, 0.01
"""How often, and with which pause, the lock is found held before that counts: another process may check it just now."""


@contextmanager
def coordinating(folder: Path) -> Iterator[None]:
    """Be one of the folder's coordinators. Raises UserError for a folder with a link that leads out of the outputs."""
    check_sweep_links(folder)
    with (folder / LOCK).open("a+") as file:  # NFS grants a shared lock only on a file that is open for reading
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def has_coordinator(folder: Path) -> bool:
    """Whether a coordinator is at work in the folder. Also False on NFS for a user who may not write there."""
    for _ in range(CHECKS):
        try:
            with _open(folder / LOCK) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            time.sleep(CHECK_SECONDS)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            return False
    return True


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
    write_atomically(folder / CANCEL, f"{time.time()}\n")


def last_request(folder: Path) -> str | None:
    """Return the last request to stop; None if there is none.

    A coordinator stops when this request differs from the one at its start. Their times are not compared, because the
    clocks of two machines may differ by hours.
    """
    try:
        return read_text(folder / CANCEL, MAX_REQUEST_BYTES)
    except (OSError, ValueError):
        return None

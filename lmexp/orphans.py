"""Processes that must not outlive the one that started them: a run's replacement may be training already."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)  # here, and not between fork and exec, where little is safe


def die_with(parent: int) -> None:
    """Have the system kill this process once its parent, `parent`, is gone, however it went; on Linux only."""
    if sys.platform != "linux":
        return
    _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it has gone before it could be noticed
        os.kill(os.getpid(), signal.SIGKILL)

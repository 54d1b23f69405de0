"""Other programs that keep cores busy, for tests of what lmexp says about such a machine."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CODE = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\nwhile True: pass"


@contextmanager
def busy(cores: set[int], programs: int) -> Iterator[None]:
    """Keep each of these cores busy with this many other programs, all of which run when the block begins.

    Each has a session of its own, as a run has. Linux shares the cores between sessions (`autogroup` in sched(7)), and
    not between processes: against one session with all the programs, a run would get a core to itself. Each stays on
    its core, or they could all be moved to the same one.
    """
    others = [
        subprocess.Popen([sys.executable, "-S", "-c", CODE, str(core)], stdout=subprocess.PIPE, start_new_session=True)
        for core in sorted(cores)
        for _ in range(programs)
    ]
    try:
        for other in others:
            assert other.stdout is not None and other.stdout.readline() == b"\n"
        yield
    finally:
        for other in others:
            other.kill()
            other.communicate()

"""Processes on this machine: one a run, each in a session of its own, with its own devices and threads.

A run of one process is forked from a server that has imported torch and Lightning already, which takes
tens of milliseconds where a fresh interpreter takes seconds. A run of several processes is started by
torchrun from its run directory: Lightning's own launcher would run the sweep's command line again.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Protocol

import psutil

from lmexp.launch.slots import Place
from lmexp.runs.directory import RunDir

GRACE_SECONDS = 30.0
"""Between asking a run to stop and killing it: a step is finished, weights and the optimizer's state are saved."""
CLEARING_SECONDS = 10.0
"""The longest wait for the system to clear a killed process away; it takes milliseconds, more under load."""


class Process(Protocol):
    """A started process."""

    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""

    @property
    def pid(self) -> int | None:
        """The first process, which leads the group."""


def warm_up() -> None:
    """Start the server that runs are forked from; it imports torch and Lightning while others do something else."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["lmexp.train.probe", __name__])
    before = os.environ.get("PYTHONSAFEPATH")
    # The server must not find a user's torch.py or data.py in the folder that the command runs in.
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        forkserver.ensure_running()
    finally:  # other programs that the user's process starts may need that folder
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module from multiprocessing, which would import it in each child.

    A script that calls `lmexp.sweep` without `if __name__ == "__main__"` would otherwise call it again in each run.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def start(run: RunDir, processes: int, place: Place, probe: bool = False) -> Process:
    """Start a run, or a probe of its shape; what it prints goes to its log."""
    return _Forked(run, place, probe) if processes == 1 else _Torchrun(run, processes, place, probe)


def worker_command(
    run: Path,
    processes: int,
    nodes: Sequence[str] = (),
    signals: str = "SIGTERM,SIGINT,SIGUSR2",
    probe: bool = False,
) -> list[str]:
    """Return the command that trains a run, or a probe of its shape, from its directory.

    Args:
        run: the run's directory.
        processes: how many train it on this node; more than one are torchrun's.
        nodes: what torchrun is told of a run's nodes, where there are several.
        signals: what torchrun heeds, and ends its processes for; of any other it dies, and leaves them behind.
        probe: whether only its shape is tried.
    """
    worker = ["-m", "lmexp.worker", str(run), *(["--probe"] if probe else [])]
    if processes == 1 and not nodes:
        return [sys.executable, *worker]
    torchrun = ["-m", "torch.distributed.run", *(nodes or ["--standalone"]), f"--signals-to-handle={signals}"]
    return [sys.executable, *torchrun, f"--nproc-per-node={processes}", *worker]


def worker_environment(threads: int) -> dict[str, str]:
    """Return the environment of a run each of whose processes has so many threads."""
    return os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}


class _Forked:
    def __init__(self, run: RunDir, place: Place, probe: bool) -> None:
        warm_up()
        self._process: ForkServerProcess = multiprocessing.get_context("forkserver").Process(
            target=_enter, args=(run.path, run.log, place.environment(), place.threads, probe), daemon=False
        )
        with _without_main():
            self._process.start()

    def exit_code(self) -> int | None:
        return self._process.exitcode

    @property
    def pid(self) -> int | None:
        return self._process.pid


class _Torchrun:
    def __init__(self, run: RunDir, processes: int, place: Place, probe: bool) -> None:
        with run.log.open("ab") as log:
            self._process = subprocess.Popen(
                worker_command(run.path, processes, probe=probe),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=worker_environment(max(1, place.threads // processes)) | place.environment(),
            )

    def exit_code(self) -> int | None:
        return self._process.poll()

    @property
    def pid(self) -> int | None:
        return self._process.pid


def _enter(path: Path, log: Path, environment: dict[str, str], threads: int, probe: bool) -> None:
    """Become the run: a session of its own, output to the log, devices and threads set; then train, or try."""
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.update(environment)  # before the first word to CUDA, which the server has not spoken

    import torch

    from lmexp.train import probe as probes
    from lmexp.train import worker

    torch.set_num_threads(threads)
    sys.exit(probes.main(path) if probe else worker.main(path))


def stop_all(handles: Sequence[Process]) -> None:
    """End runs with all their processes: ask them all, wait a little, kill those that are left."""
    # torchrun puts each rank into a session of its own: the tree is asked, not the group.
    _stop([process for handle in handles if handle.pid for process in _tree(handle.pid)])
    for handle in handles:
        while handle.exit_code() is None:
            time.sleep(0.01)


def stop_process(pid: int) -> None:
    """End a run of which only the process that writes its state is known, with what belongs to it."""
    with suppress(psutil.Error):
        first = psutil.Process(pid)
        above = first.parent()
        # torchrun stops the other processes of the run, and itself.
        is_rank = above is not None and "torch.distributed.run" in " ".join(above.cmdline())
        _stop(_tree(above.pid if is_rank and above is not None else pid))


def _stop(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    for process in _left_after(GRACE_SECONDS, processes):
        with suppress(psutil.Error):
            process.kill()
    _left_after(CLEARING_SECONDS, processes)  # a killed process holds its locks until the system has cleared it away


def _left_after(seconds: float, processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that still live, as soon as none does or after so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if _lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _lives(process: psutil.Process) -> bool:
    # A zombie has let go of its locks once its threads are gone; where no one reaps orphans it stays for ever.
    try:
        return process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    except psutil.Error:
        return False


def _tree(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []

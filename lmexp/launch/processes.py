"""Processes on this machine: one per run, each in its own session, with its own devices and threads.

A run of one process is forked from a server that has imported torch and Lightning already, which takes
tens of milliseconds where a fresh interpreter takes seconds. A run of several processes is started by
torchrun from its run directory: Lightning's own launcher would run the sweep's command line again.
"""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Protocol

import psutil

from lmexp.config.trust import code_environment
from lmexp.errors import UserError
from lmexp.launch.slots import Place
from lmexp.orphans import die_with
from lmexp.runs.directory import RunDir

GRACE_SECONDS = 30.0
"""Time from SIGTERM to SIGKILL: a run finishes its step, then saves weights and optimizer state."""
CLEARING_SECONDS = 10.0
"""How long to wait for the system to remove a killed process; it takes milliseconds, more under load."""

PRELOAD = ("lmexp.launch.server",)
"""What the server from which runs are forked imports; a run that is forked after CUDA has started cannot use CUDA."""
MAX_SERVERS = 3
"""How often the server that runs are forked from is started for one run, if something kills it."""
UNKNOWN_CODE = 255
"""The exit code that multiprocessing reports for a process whose server was killed."""


class Process(Protocol):
    """A started process."""

    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""

    @property
    def pid(self) -> int | None:
        """Id of the first process, which leads the process group; None if it has not started."""


def warm_up() -> None:
    """Start the server that runs are forked from; it imports torch and Lightning in the background."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOAD))
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
    """Start a run, or a probe of its shape; its output goes to its log."""
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
        processes: how many processes train it on this node; torchrun starts them if there are several.
        nodes: torchrun's options for a run on several nodes.
        signals: signals on which torchrun ends its processes; any other signal kills it and leaves them behind.
        probe: whether to train only a few steps, to measure the speed of the run's shape.
    """
    worker = ["-m", "lmexp.worker", str(run), *(["--probe"] if probe else [])]
    if processes == 1 and not nodes:
        return [sys.executable, *worker]
    torchrun = ["-m", "torch.distributed.run", *(nodes or ["--standalone"]), f"--signals-to-handle={signals}"]
    return [sys.executable, *torchrun, f"--nproc-per-node={processes}", *worker]


def worker_environment(threads: int) -> dict[str, str]:
    """Return the environment of a run with this many threads per process."""
    own = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
    return os.environ | code_environment() | own


class _Forked:
    def __init__(self, run: RunDir, place: Place, probe: bool) -> None:
        warm_up()
        self._process = _fork(run.path, run.log, place.environment() | code_environment(), place.threads, probe)
        tree = _tree(self._process.pid or 0)
        self._child = tree[0] if tree else None

    def exit_code(self) -> int | None:
        code = self._process.exitcode
        if code == UNKNOWN_CODE and self._child is not None and _lives(self._child):
            return None  # its server was killed; the run goes on
        return code

    @property
    def pid(self) -> int | None:
        return self._process.pid


def _fork(*arguments: object) -> ForkServerProcess:
    """Return a started process that calls `_enter`. A server that was killed, for its memory perhaps, is replaced."""
    for _ in range(MAX_SERVERS):
        process: ForkServerProcess = multiprocessing.get_context("forkserver").Process(
            target=_enter, args=arguments, daemon=False
        )
        try:
            with _without_main():
                process.start()
        except (EOFError, ConnectionError):
            time.sleep(0.1)  # until the system has removed it
        else:
            return process
    raise UserError(f"the process that runs are forked from was killed {MAX_SERVERS} times; is memory short?")


class _Torchrun:
    def __init__(self, run: RunDir, processes: int, place: Place, probe: bool) -> None:
        with run.log.open("ab") as log:
            self._process = subprocess.Popen(
                worker_command(run.path, processes, probe=probe),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(die_with, os.getpid()) if probe else None,
                env=worker_environment(max(1, place.threads // processes)) | place.environment(),
            )

    def exit_code(self) -> int | None:
        return self._process.poll()

    @property
    def pid(self) -> int | None:
        return self._process.pid


def _enter(path: Path, log: Path, environment: dict[str, str], threads: int, probe: bool) -> None:
    """Become the run: a new session, output to the log, devices and threads set; then train, or probe."""
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.update(environment)  # before CUDA starts; the fork server has not started it
    os.environ["OMP_NUM_THREADS"] = str(threads)  # else Lightning's strategies choose a number of their own

    import torch

    from lmexp.train import probe as probes
    from lmexp.train import worker

    torch.set_num_threads(threads)
    if probe:  # a run goes on without the command that started it, and is found by the next; a probe is of no use then
        threading.Thread(target=_end_with_command, daemon=True).start()
    sys.exit(probes.main(path) if probe else worker.main(path))


def _end_with_command() -> None:
    """End this process when the command that asked for it is gone, however it went.

    Its parent is the server that it was forked from, which lives on as long as one of its processes does.
    """
    command = multiprocessing.parent_process()
    assert command is not None, "it was started by multiprocessing"
    command.join()
    os._exit(1)


def stop_all(handles: Sequence[Process]) -> None:
    """End runs with all their processes: send SIGTERM to all, wait, kill those that are left."""
    # torchrun puts each rank into its own session, so the signal goes to the process tree, not to the group.
    _stop([process for handle in handles if handle.pid for process in _tree(handle.pid)])
    for handle in handles:
        while handle.exit_code() is None:
            time.sleep(0.01)


def has_open(pid: int, file: Path) -> bool:
    """Whether a process has a file open: the id in a file may be that of another process by now, or a stranger's."""
    with suppress(psutil.Error, OSError):
        return os.path.realpath(file) in (one.path for one in psutil.Process(pid).open_files())
    return False


def stop_process(pid: int) -> None:
    """End a run with all its processes, given the id of the process that writes its state."""
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
    _left_after(CLEARING_SECONDS, processes)  # a killed process holds its locks until the system has removed it


def _left_after(seconds: float, processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that are alive after this many seconds, or [] as soon as none is."""
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if _lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _lives(process: psutil.Process) -> bool:
    # A zombie holds no locks once its threads are gone; in a container without an init process it stays forever.
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

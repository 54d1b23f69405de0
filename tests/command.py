"""The command line as a user has it, in a process of its own, but without five seconds of imports each time.

A command of a test is forked from the server that lmexp forks its runs from (`lmexp.launch.processes`), which has
imported torch and Lightning. The runs of the command are forked from the same server.
"""

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import tests.server
from lmexp.launch import processes


def start_server() -> None:
    """Start the server, unless it runs; lmexp, in this process, then uses the same one."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([tests.server.__name__, "tests.small_library"])
    forkserver.ensure_running()


def start_process(function: Callable[..., None], *args: Any) -> ForkServerProcess:
    """Start a process that calls a function. If it coordinates a sweep, the runs come from the same server."""
    start_server()
    process = multiprocessing.get_context("forkserver").Process(target=_call, args=(function, args), daemon=False)
    with processes._without_main():
        process.start()
    return process


def _call(function: Callable[..., None], args: tuple[Any, ...]) -> None:
    # The standard library would start a second server here, though its documentation says that a child shares its own.
    forkserver.ensure_running = forkserver._forkserver.ensure_running = resource_tracker.ensure_running
    function(*args)


def run_command(
    folder: Path, *words: str, timeout: float = 120, prefix: tuple[str, ...] = (), **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run `lmexp` with these words in a folder, and return its exit code and what it printed.

    Args:
        folder: where it runs; outputs go to `outputs` in it.
        words: the words after `lmexp`.
        timeout: seconds after which it is killed, with all its processes, and `subprocess.TimeoutExpired` is raised.
        prefix: a command to run it under, such as `setpriv …`; then it starts as a fresh interpreter.
        environment: variables on top of those of this process. Runs do not get them, unless they are about Python: then
            the command starts as a fresh interpreter, too.
    """
    # On a slow machine, a test that counts lines must not see one that says that the work goes on.
    quiet = {"COLUMNS": "160", "LMEXP_PROGRESS_SECONDS": "3600"}
    variables = {**os.environ, **quiet, "LMEXP_OUTPUTS": str(folder / "outputs"), **environment}
    command = [*prefix, sys.executable, "-m", "lmexp.cli", *words]
    if prefix or any(name.startswith("PYTHON") for name in environment):
        return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=timeout)
    with tempfile.TemporaryDirectory() as place:
        printed = [Path(place) / name for name in ("stdout", "stderr")]
        process = start_process(_become, folder, words, variables, printed)
        process.join(timeout)
        if process.exitcode is None:
            process.terminate()  # it ends its runs, which are not its children
            process.join(processes.GRACE_SECONDS + processes.CLEARING_SECONDS)
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout, *(file.read_bytes() for file in printed))
        return subprocess.CompletedProcess(command, process.exitcode, *(file.read_text() for file in printed))


def _become(folder: Path, words: tuple[str, ...], variables: dict[str, str], printed: list[Path]) -> None:
    """Become the command: its folder, environment, arguments and output; then run it."""
    for number, file in zip((1, 2), printed, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["lmexp", *words]

    from lmexp.cli import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()  # as an interpreter does at its end

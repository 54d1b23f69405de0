"""What a Ray task does on its node: train one run, in its own process, which ends with Ray's.

Ray finds this module by its name: each node has lmexp installed.
"""

import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import ray

from lmexp.launch.processes import stop_process, worker_command, worker_environment
from lmexp.orphans import die_with
from lmexp.runs.directory import RunDir

POLL_SECONDS = 0.1


def train(path: Path, processes: int, threads: int, code: dict[str, str]) -> int:
    """Run the worker to its end, with `threads` per process, and return its exit code, negative for a signal.

    `code` is the coordinator's `code_environment`: what it trusts, and the folder that this lies in.

    If the task is cancelled, the worker gets SIGTERM, on which it saves and exits; it is killed if it does not.
    """
    run = RunDir(path)
    run.note_job(f"ray:{ray.get_runtime_context().get_task_id()}")
    signals: list[int] = []
    # Ray cancels a task by SIGINT to its main thread, which is lost on a node that was started in the background.
    before = signal.signal(signal.SIGINT, lambda which, frame: signals.append(which))
    try:
        with run.log.open("ab") as log:
            process = subprocess.Popen(
                worker_command(path, processes),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=worker_environment(threads) | code,
                preexec_fn=partial(_enter, os.getpid()),
            )
        while (exit_code := process.poll()) is None:
            if signals:
                stop_process(process.pid)
            time.sleep(POLL_SECONDS)
        return exit_code
    finally:
        signal.signal(signal.SIGINT, before)


def _enter(parent: int) -> None:
    die_with(parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # which Ray blocks

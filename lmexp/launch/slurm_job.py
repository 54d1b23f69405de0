"""What a Slurm job does on its node: train one run, save it before the time limit, queue the job again.

The worker is its own process, or several under torchrun, as on this machine. Slurm's signals reach either this process
alone (if Slurm tracks processes by cgroups) or all of them, so they are passed on at once: a worker takes two signals
within a second as one.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import submitit
from submitit.core.utils import UncompletedJobError
from submitit.helpers import DelayedSubmission

from lmexp.config.trust import code_environment
from lmexp.launch.processes import worker_command, worker_environment
from lmexp.runs.directory import RunDir

POLL_SECONDS = 0.1
PORTS = range(20_000, 30_000)
"""Ports at which the processes of a run on several nodes meet, below those that the system assigns itself."""


class SlurmRun:
    """The call that submitit makes on each node of a job."""

    def __init__(self, path: Path, processes: int, nodes: int, threads: int, limit: str) -> None:
        """Start `processes` per node with `threads` each; `limit` is the job's time limit as text, for messages."""
        self.path, self.processes, self.nodes, self.threads, self.limit = path, processes, nodes, threads, limit
        self.code = code_environment()

    def __call__(self) -> None:
        """Run the worker to its end; exit with its code, or queue the job again if the time limit is near."""
        os.environ.update(self.code)
        run, here = RunDir(self.path), submitit.JobEnvironment()
        if here.global_rank == 0:
            run.note_job(f"slurm:{here.job_id}")
        signals: list[int] = []
        queue_again = signal.getsignal(signal.SIGUSR2)  # submitit's
        for each in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(each, lambda which, frame: signals.append(which))
        with run.log.open("ab") as log:
            process = subprocess.Popen(
                self._command(here),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=worker_environment(self.threads),
                preexec_fn=self._ignore_preemption,
            )
        passed_on = False
        while (code := process.poll()) is None:
            if signals and not passed_on:  # once: on a second signal a worker exits before it has saved
                self._pass_on(signals[0], process)
                passed_on = True
            time.sleep(POLL_SECONDS)
        is_unfinished = run.read_state().state in ("queued", "running", "preempted")
        if signal.SIGUSR2 in signals and here.global_rank == 0 and is_unfinished:
            assert callable(queue_again), "submitit has set it before it called"
            try:
                queue_again(signal.SIGUSR2, None)
            except UncompletedJobError:
                reason = f"it did not end within {self.limit}: launcher.minutes, launcher.requeues"
                run.update_state(state="timeout", reason=reason, pid=None)
        sys.exit(code if code >= 0 else 128 - code)

    def checkpoint(self) -> DelayedSubmission:
        """Return what the job does when it starts again: the same, and the run resumes from its checkpoint."""
        return DelayedSubmission(self)

    def _command(self, here: submitit.JobEnvironment) -> list[str]:
        nodes = []
        if self.nodes > 1:
            port = PORTS[int(here.raw_job_id) % len(PORTS)]
            nodes = [f"--nnodes={self.nodes}", f"--node-rank={here.node}"]
            nodes += [f"--master-addr={here.hostnames[0]}", f"--master-port={port}"]
        return worker_command(self.path, self.processes, nodes, signals="SIGTERM,SIGINT")

    def _ignore_preemption(self) -> None:
        """Ignore SIGUSR2 in torchrun, which would exit on it, or kill its workers half a minute after it."""
        if self.processes * self.nodes > 1:
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    def _pass_on(self, which: int, process: subprocess.Popen[bytes]) -> None:
        with suppress(psutil.Error):
            first = psutil.Process(process.pid)
            if self.processes * self.nodes == 1:
                first.send_signal(which)
            elif workers := first.children():
                for worker in workers:
                    worker.send_signal(which)
            else:  # torchrun has not started the workers yet: there is nothing to save
                first.terminate()

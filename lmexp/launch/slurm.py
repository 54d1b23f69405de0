"""The engine for Slurm: each run is a job, and runs that need the same resources are one array job.

A job outlives the coordinator that submitted it. Its id is in the run's state, so that the next coordinator takes the
job over instead of submitting the run again. Slurm is queried rarely, for all jobs at once.
"""

import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from lmexp.config.launchers import SlurmLauncher
from lmexp.config.schema import RunConfig
from lmexp.errors import UserError
from lmexp.files import read_bytes
from lmexp.launch.engine import Engine
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.runs.state import RESULTS, State, StateName
from lmexp.units import counted

ASK_SECONDS = 2.0
"""Minimum time between two queries to Slurm, each of which covers all jobs."""
MAX_ANSWER_SECONDS = 60.0
"""How long to wait for an answer."""
MAX_GONE_SECONDS = 40.0
"""How long to wait for cancelled jobs to end; Slurm's KillWait gives them 30 seconds by default."""
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
}  # fmt: skip
"""States of jobs that will not run again; a job in any other state is running or will run."""
OURS = "slurm:"
"""Prefix of a job's id in the state of its run."""
JOB = re.compile(r"slurm:(\d+(_\d+)?)")
"""A job as in the state of its run; an option of scancel is none."""
NAME = "lmexp-"
"""Prefix of the names of lmexp's jobs; a job of another name is never cancelled, whatever a state says."""
UNKNOWN = ""
"""State of a job that Slurm no longer knows, because it ended long ago."""


class Jobs:
    """The states of some jobs in Slurm."""

    def __init__(self) -> None:
        self._states: dict[str, str | None] = {}
        """By job id; None until Slurm has been queried."""
        self._asked_at = -math.inf

    def watch(self, job: str, state: str | None = None) -> None:
        """Include a job in the queries from now on."""
        self._states.setdefault(job, state)

    def forget(self, job: str) -> None:
        """Leave a job out of the queries."""
        self._states.pop(job, None)

    def state(self, job: str) -> str:
        """Return a job's state in Slurm's terms, a few seconds old at most; the last one if Slurm does not answer."""
        known = self._states[job]
        is_old = time.monotonic() - self._asked_at > ASK_SECONDS
        if known is None or (is_old and not _has_ended(known)):
            answers = ask(job for job, state in self._states.items() if not _has_ended(state))
            for asked, state in self._states.items():
                self._states[asked] = answers.get(asked, "PENDING" if state is None else state)
            self._asked_at = time.monotonic()
        state = self._states[job]
        assert state is not None, "Slurm has just been queried"
        return state


@dataclass(frozen=True)
class SlurmHandle:
    """A run that Slurm has."""

    planned: PlannedRun
    jobs: Jobs
    id: str | None
    """The job's id; None if Slurm refused the job."""
    refusal: str | None = None

    @property
    def job(self) -> str | None:
        """The job as in the run's state; None if Slurm refused it."""
        return f"{OURS}{self.id}" if self.id else None

    def exit_code(self) -> int | None:
        """Return 0 or 1, or None while the job is running, waiting, or queued again."""
        if self.id is None:
            return 1
        state = self.jobs.state(self.id)
        return int(state != "COMPLETED") if _has_ended(state) else None


class SlurmEngine(Engine[SlurmHandle]):
    """Runs in Slurm."""

    outlives_coordinator = True

    def __init__(self, sweep: Sweep) -> None:
        """Raises UserError if Slurm or submitit is missing, or if Slurm refuses the resources that a run needs."""
        if missing := [command for command in ("sbatch", "squeue", "scancel") if shutil.which(command) is None]:
            raise UserError(
                f"launcher=slurm: there is no {missing[0]} here; run this command where Slurm's commands are installed"
            )
        if find_spec("submitit") is None:
            raise UserError("launcher=slurm needs submitit: pip install 'lmexp[slurm]'")
        self._folder = sweep.folder.absolute() / ".slurm"
        self._name = f"{NAME}{sweep.name}"
        self._jobs = Jobs()
        self._under_way = 0
        for planned in sweep.runs:  # one query covers all jobs that are to be adopted
            if job := _job_of(planned.run.read_state()):
                self._jobs.watch(job)
        left = (planned for planned in sweep.examples if planned.run.read_state().state not in RESULTS)
        for shape, _ in _by_shape(left):
            _try_out(shape)

    def adopt(self, planned: PlannedRun, state: State) -> SlurmHandle | None:
        """Return a handle of a run that an earlier coordinator submitted, if Slurm still has its job."""
        job = _job_of(state)
        if job is None:
            return None
        self._jobs.watch(job)
        if _has_ended(self._jobs.state(job)):
            self._jobs.forget(job)
            return None
        self._under_way += 1
        return SlurmHandle(planned, self._jobs, job)

    def reserve(self, planned: PlannedRun) -> bool:
        """Reserve room for a run that is submitted next; False while `max_jobs` are under way."""
        if self._under_way >= _launcher(planned).max_jobs:
            return False
        self._under_way += 1
        return True

    def start(self, runs: Sequence[PlannedRun]) -> list[SlurmHandle]:
        """Submit runs, one array per shape; a run that Slurm refuses gets a handle that has already ended."""
        handles: dict[str, SlurmHandle] = {}
        for shape, group in _by_shape(runs):
            handles |= {handle.planned.identity: handle for handle in self._submit(shape, group)}
        return [handles[planned.identity] for planned in runs]

    def release(self, handle: SlurmHandle) -> None:
        """Free the room of a run that has ended."""
        self._under_way -= 1
        if handle.id:
            self._jobs.forget(handle.id)

    def why(self, handle: SlurmHandle) -> tuple[StateName, str] | None:
        """Return state and reason of a run that ended without writing them, if Slurm knows them."""
        if handle.id is None:
            return "failed", f"Slurm refused its job: {handle.refusal}"
        match self._jobs.state(handle.id):
            case "OUT_OF_MEMORY":
                return "oom", "Slurm killed its job because memory ran out: raise launcher.memory_gb"
            case "TIMEOUT" | "DEADLINE":
                minutes = _launcher(handle.planned).minutes
                return "timeout", f"its job reached the limit of {minutes} minutes before it was saved"
            case "CANCELLED":
                return "cancelled", "its Slurm job was cancelled"
            case "FAILED" if handle.planned.run.read_state().state == "queued":
                return "failed", f"its job ended before it began: {self._last_words(handle.id)}"
        return None

    def stop(self, handles: Sequence[SlurmHandle]) -> None:
        """Cancel the jobs of runs, and return when they are gone; each run saves a checkpoint first."""
        cancel_jobs([handle.id for handle in handles if handle.id])

    @classmethod
    def cancel(cls, jobs: Sequence[str]) -> None:
        """Cancel jobs, named as in the states of their runs. Raises UserError if Slurm's commands are missing.

        A job that a state names, but that is not lmexp's own, is skipped.
        """
        ids = [match[1] for job in jobs if (match := JOB.fullmatch(job))]
        if ids and shutil.which("squeue"):
            listed = _run("squeue", "--noheader", "--array", "--format=%i|%j", f"--jobs={','.join(ids)}")
            if listed.returncode and "Invalid job id" not in listed.stderr:
                raise UserError(f"Slurm did not say which jobs are lmexp's: {listed.stderr.strip()}")
            names = dict(line.split("|", 1) for line in listed.stdout.splitlines() if "|" in line)
            ids = [job for job in ids if names.get(job, "").startswith(NAME)]  # a job that is not listed has ended
        cancel_jobs(ids)

    def _submit(self, shape: dict[str, str | int], runs: Sequence[PlannedRun]) -> list[SlurmHandle]:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        from lmexp.launch.slurm_job import SlurmRun

        config, launcher = runs[0].config, _launcher(runs[0])
        executor = submitit.SlurmExecutor(self._folder, max_num_timeout=launcher.requeues)
        executor.update_parameters(
            job_name=self._name,
            time=launcher.minutes,
            nodes=config.trainer.num_nodes,
            ntasks_per_node=1,
            signal_delay_s=launcher.signal_seconds,
            array_parallelism=launcher.running_jobs or len(runs),
            setup=["export PYTHONSAFEPATH=1", *launcher.setup],  # as for the local runs
            # srun requests one core unless it is told again
            srun_args=[f"--cpus-per-task={shape['cpus-per-task']}"],
            additional_parameters=shape,
        )
        limit = f"{launcher.requeues + 1} times {launcher.minutes} minutes"
        calls = [
            SlurmRun(
                planned.run.path.absolute(), config.trainer.devices, config.trainer.num_nodes, launcher.cpus, limit
            )
            for planned in runs
        ]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with executor.batch():
                submitted = [executor.submit(call) for call in calls]
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            return [SlurmHandle(planned, self._jobs, None, _last_line(str(error))) for planned in runs]
        for planned, job in zip(runs, submitted, strict=True):
            planned.run.note_job(f"{OURS}{job.job_id}")
            self._jobs.watch(job.job_id, "PENDING")
        return [SlurmHandle(planned, self._jobs, job.job_id) for planned, job in zip(runs, submitted, strict=True)]

    def _last_words(self, job: str) -> str:
        file = self._folder / f"{job}_0_log.err"
        try:
            return _last_line(read_bytes(file).decode(errors="replace")) or "it printed nothing"
        except OSError:
            return f"it left no {file}"


def ask(jobs: Iterable[str]) -> dict[str, str]:
    """Return the states of jobs in Slurm's terms, with one query each to squeue and sacct; {} without an answer."""
    jobs = set(jobs)
    if not jobs:
        return {}
    arrays = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    squeue = _run("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", f"--jobs={arrays}")
    if squeue.returncode and "Invalid job id" not in squeue.stderr:
        return {}
    states = _states(squeue.stdout, jobs)
    if gone := jobs - set(states):
        # A job that squeue does not list has ended, even if accounting is missing or has not recorded the end yet.
        sacct = "" if shutil.which("sacct") is None else _run(
            "sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State", f"--jobs={','.join(gone)}"
        ).stdout  # fmt: skip
        known = {job: state for job, state in _states(sacct, gone).items() if state in ENDED}
        states |= dict.fromkeys(gone, UNKNOWN) | known
    return states


def cancel_jobs(jobs: Sequence[str]) -> None:
    """Cancel jobs, and return when they are gone: Slurm sends SIGTERM, and kills the jobs that ignore it.

    Raises UserError if Slurm's commands are missing.
    """
    if not jobs:
        return
    if shutil.which("scancel") is None:
        raise UserError(f"{counted(len(jobs), 'run', 'is')} in Slurm, and there is no scancel here to cancel")
    _run("scancel", *jobs)
    deadline = time.monotonic() + MAX_GONE_SECONDS
    while time.monotonic() < deadline:
        states = ask(jobs)
        if states and all(map(_has_ended, states.values())):
            return
        time.sleep(ASK_SECONDS / 4)


def shape_of(config: RunConfig) -> dict[str, str | int]:
    """Return the resources of a run as options of sbatch; runs with the same options can share an array."""
    launcher, trainer = config.launcher, config.trainer
    assert isinstance(launcher, SlurmLauncher)
    gpus = launcher.gpus_per_node
    if gpus is None and trainer.accelerator in ("gpu", "cuda"):
        gpus = trainer.devices
    options: dict[str, Any] = {
        "partition": launcher.partition,
        "account": launcher.account,
        "qos": launcher.qos,
        "constraint": launcher.constraint,
        "time": launcher.minutes,
        "nodes": trainer.num_nodes,
        "cpus-per-task": launcher.cpus * trainer.devices,
        "gpus-per-node": gpus or None,
        "mem": f"{math.ceil(launcher.memory_gb * 1e9 / 2**20)}M" if launcher.memory_gb else None,  # Slurm's M is 2**20
        "requeue": True,
    }
    return {key: value for key, value in options.items() if value is not None} | launcher.options


def _try_out(shape: dict[str, str | int]) -> None:
    """Raise UserError if Slurm would refuse a job; no job is submitted."""
    options = [f"--{key}" if value is True else f"--{key}={value}" for key, value in shape.items()]
    tried = _run("sbatch", "--test-only", *options, "--wrap=true")
    if tried.returncode:
        raise UserError(f"launcher=slurm: {_last_line(tried.stderr) or 'sbatch gives no reason'}")


def _by_shape(runs: Iterable[PlannedRun]) -> list[tuple[dict[str, str | int], list[PlannedRun]]]:
    """Group runs by their options for Slurm and submitit, in order."""
    groups: dict[str, tuple[dict[str, str | int], list[PlannedRun]]] = {}
    for planned in runs:
        shape, launcher = shape_of(planned.config), _launcher(planned)
        groups.setdefault(f"{shape} {launcher.model_dump_json()}", (shape, []))[1].append(planned)
    return list(groups.values())


def _launcher(planned: PlannedRun) -> SlurmLauncher:
    assert isinstance(planned.config.launcher, SlurmLauncher)
    return planned.config.launcher


def _job_of(state: State) -> str | None:
    match = JOB.fullmatch(state.job or "")
    return match[1] if match else None


def _has_ended(state: str | None) -> bool:
    return state is not None and (state == UNKNOWN or state in ENDED)


def _states(lines: str, jobs: set[str]) -> dict[str, str]:
    """Return the states in lines of `ID|STATE`; the state of a cancelled job can be `CANCELLED by 1000`."""
    states = {
        job: (state.split() or [UNKNOWN])[0] for job, _, state in (line.partition("|") for line in lines.split("\n"))
    }
    return {job: state for job, state in states.items() if job in jobs}


def _last_line(text: str) -> str:
    """Return the last line of a program's output, without the prefix that sbatch puts before its reason."""
    last = (text.strip().splitlines() or [""])[-1]
    return last.removeprefix("sbatch: error: Batch job submission failed: ").removeprefix("allocation failure: ")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=MAX_ANSWER_SECONDS,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal would end it, and its answer would be lost
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} did not answer")

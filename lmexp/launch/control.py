"""Change a sweep from another process: cancel its runs, set runs back to queued, start it in the background."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmexp.config.failures import explain
from lmexp.config.outside import check_code
from lmexp.errors import UserError
from lmexp.launch.engine import Engine, load_engine
from lmexp.launch.processes import has_open, stop_process
from lmexp.messages import Say, say_first
from lmexp.runs.coordinators import ask_to_stop, has_coordinator
from lmexp.runs.directory import RunDir
from lmexp.runs.find import find_run, runs_of
from lmexp.runs.links import check_links, check_sweep_links
from lmexp.runs.state import WAITING, State
from lmexp.units import MAX_LISTED, counted, listed

LOG = "sweep.log"
"""File in the sweep's folder with what a coordinator in the background prints."""
MAX_WAIT_SECONDS = 60.0
"""How long to wait for coordinators to stop, or for one to start."""
BETWEEN = ("queued", "preempted")
"""States of runs that no process trains, and that have not ended."""
RETRIED = ("failed", "cancelled", "oom", "diverged", "timeout")


def cancel(folder: Path, say: Say) -> list[RunDir]:
    """Stop the coordinators of a sweep and all its runs, and return the runs that were stopped.

    A run that had started is cancelled then; one that had not stays queued.

    Runs that a killed coordinator left behind are stopped too, on this machine and in a scheduler.
    Raises UserError if nothing was started there, or, when all others are stopped, if some could not be: a scheduler
    keeps their jobs, or their directories cannot be written.
    """
    runs = runs_of(folder)
    missing = [f"{run.name} is skipped: its directory is missing" for run in runs if not run.path.is_dir()]
    say_first(missing, f"`lmexp status {folder.name}` shows all runs", say)
    waiting = [run for run in runs if run.path.is_dir() and run.read_state().state in WAITING]
    ask_to_stop(folder)
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while has_coordinator(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    if has_coordinator(folder):
        say("a coordinator of this sweep has been told to stop, and is still running")
    kept = _cancel_jobs([run for run in waiting if run.read_state().state in WAITING])
    for run in waiting:
        if any(run in runs for runs in kept.values()):
            continue
        try:
            check_links(run.path)
            _stop(run, say)
        except (OSError, UserError) as error:
            reason = str(error) if isinstance(error, UserError) else f"{error.strerror}: {error.filename}"
            kept.setdefault(reason, []).append(run)
    left = [run for run in waiting if not any(run in runs for runs in kept.values())]
    stopped = [run for run in left if (state := run.read_state()).state == "cancelled" or state.never_started]
    if kept:
        told = [f"{listed([run.name for run in runs])}: {reason}" for reason, runs in kept.items()]
        more = [f"and {len(told) - MAX_LISTED:,} more"] if len(told) > MAX_LISTED else []
        raise UserError(f"{counted(len(stopped), 'run')} stopped; these are not: {'; '.join(told[:MAX_LISTED] + more)}")
    return stopped


def _stop(run: RunDir, say: Say) -> None:
    """Stop the process of a run, if it is on this machine. A run that had started becomes cancelled."""
    state, alive = run.look()
    if alive:
        if state.host not in (None, socket.gethostname()):
            say(f"{run.name} runs on {state.host}, which cannot be reached from here")
            return
        if state.pid is None or not has_open(state.pid, run.path / ".lock"):  # whatever state.json says
            say(f"{run.name} is trained by a process that its state.json does not name; stop that one by hand")
            return
        stop_process(state.pid)
    if run.read_state().state in WAITING:
        run.stop_waiting("the sweep was cancelled")


def _cancel_jobs(runs: Sequence[RunDir]) -> dict[str, list[RunDir]]:
    """Cancel the jobs of runs that a scheduler still has, each with the engine of its own launcher.

    Returns the runs whose jobs could not be cancelled, by the reason: a launcher that is not trusted, for example.
    """
    kept: dict[str, list[RunDir]] = {}
    by_engine: dict[type[Engine[Any]], dict[str, RunDir]] = {}
    for run in runs:
        if job := run.read_state().job:
            try:
                by_engine.setdefault(load_engine(run.read_launcher()), {})[job] = run
            except UserError as error:
                kept.setdefault(str(error), []).append(run)
    for engine, jobs in by_engine.items():
        try:
            engine.cancel(list(jobs))
        except Exception as error:  # a launcher from outside fails in any way
            kept.setdefault(explain(error), []).extend(jobs.values())
    return kept


def goes_on(folder: Path, say: Say) -> bool:
    """Whether a sweep continues without a further command: a coordinator is at work, or a scheduler has its jobs.

    `say` is told of jobs of a launcher that is not trusted, of which this is not known.
    """
    if has_coordinator(folder):
        return True
    return _is_kept_by_scheduler([(run, run.read_state()) for run in runs_of(folder)], say)


def is_at_work(run: RunDir, say: Say) -> bool:
    """Whether a run is being trained, or will be without a further command. `say` is told the same as by `goes_on`."""
    will_start = has_coordinator(run.path.parent)  # before the state, because a run may end with its coordinator
    state, alive = run.look()
    return alive or (state.state in BETWEEN and (will_start or _is_kept_by_scheduler([(run, state)], say)))


def check_has_ended(run: RunDir) -> None:
    """Raise UserError for a run that is not at work and has not ended: nobody knows when its log grows again."""
    state = run.read_state()
    if state.state in BETWEEN:
        why = f" ({state.reason})" if state.reason else ""
        raise UserError(
            f"{run.name} is {state.state}{why}, and no command is at work on it; "
            "the command that started it continues from here"
        )


def _is_kept_by_scheduler(runs: Sequence[tuple[RunDir, State]], say: Say) -> bool:
    """Whether a scheduler has a job of any of these runs that starts without a coordinator."""
    schedulers = {state.job.partition(":")[0]: run for run, state in runs if state.state in BETWEEN and state.job}
    for run in schedulers.values():
        try:
            if load_engine(run.read_launcher()).outlives_coordinator:
                return True
        except UserError as error:
            say(f"{run.name}: whether its job waits in a scheduler is not known: {error}")
    return False


def set_back(folder: Path, outputs: Path, names: Sequence[str], states: Sequence[str], fresh: bool) -> list[RunDir]:
    """Set runs of a sweep back to queued, and return them.

    Args:
        names: runs of the sweep, as `find_run` takes them; none means all runs in one of `states`.
        states: states of the runs to set back, if no names are given.
        fresh: whether the runs start over instead of from their last checkpoint.

    Raises UserError if a name is no run of the sweep, or is a run that is done or under way, or whose code from outside
    lmexp is not trusted or has changed, or that holds what only the user may say (config/trust.py).
    """
    known = {run.path.resolve(): run for run in runs_of(folder)}
    runs = [known.get(run.path.resolve(), run) for run in (find_run(name, outputs) for name in names)] or [
        run for run in known.values() if (state := run.read_state()).state in states and not state.is_pruned
    ]
    for run in runs:
        state, alive = run.look()
        if run.path.resolve() not in known:
            raise UserError(f"{run.name} is no run of {folder.name}")
        check_links(run.path)
        if state.state == "done":
            raise UserError(f"{run.name} is done; there is nothing to retry")
        if alive:
            raise UserError(f"{run.name} is running")
        if state.job and state.state in WAITING:
            raise UserError(f"{run.name} waits in its scheduler's queue as {state.job}; cancel it first")
        check_code(run.read_config())
    for run in runs:
        if fresh:
            run.forget_progress()
        run.clear_failure()
        state = run.read_state()
        run.write_state(State(attempts=state.attempts, earlier=state.spent))
    return runs


def detach(folder: Path, command: Sequence[str]) -> tuple[int, int | None]:
    """Start an lmexp command in the background, with its output in the folder's log.

    Returns its process id as soon as it coordinates the sweep; if it has ended by then, also its exit code.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_sweep_links(folder)
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lmexp.cli", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal that closes does not end it
            env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"},
        )
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while process.poll() is None and not has_coordinator(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    return process.pid, process.poll()

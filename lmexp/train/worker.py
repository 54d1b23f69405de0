"""The worker: it reads the config in a run directory, trains the run, and records the outcome.

state.json always says what the run is doing. A run that fails leaves a state with a reason, and its traceback in
log.txt. If a run has several processes (started by torchrun), each of them runs this code, and the first one, the
leader, writes the files. If another process fails, the leader only sees a broken connection, so the failing process
writes its reason into the run directory, where the leader finds it.
"""

import logging
import os
import re
import socket
import sys
import threading
import time
import traceback
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NoReturn

import psutil
import torch

from lmexp.config.checks import world_size
from lmexp.config.failures import explain
from lmexp.config.identity import ids_of
from lmexp.config.outside import check_code
from lmexp.config.schema import RunConfig
from lmexp.cost.device import is_out_of_memory
from lmexp.errors import UserError
from lmexp.runs.directory import RunDir
from lmexp.runs.origin import code_version
from lmexp.runs.state import RESULTS, Failure, State, StateName
from lmexp.train.curve import Diverged
from lmexp.train.micro_batch import fit_micro_batch
from lmexp.train.run import train
from lmexp.train.spending import start_watch
from lmexp.train.stopping import Signals, Stopped, processes

CODE = code_version()
"""Read with the import: a process that is forked later has this code, whatever is on the disk by then."""
REPORT_SECONDS = 2.0
"""How long the leader waits for the reason of another process after the connection broke."""


def main(path: Path, signals: Signals | None = None) -> int:
    """Train the run in the directory `path`, write its state and record, and return the exit code.

    The code is 0 if the run is done, and 1 if it failed, diverged, ran out of memory or was stopped; state.json says
    which. In one case the state stays `running`: another process of the run disappeared without leaving a reason.
    """
    if signals is None:
        with Signals() as own:
            return main(path, own)
    run = RunDir(path.resolve())
    quieten()
    lock = run.lock(patience=0.5) if is_leader() else nullcontext()
    if lock is None:
        print("another process is already training this run")
        return 1
    with lock:
        state = run.read_state()
        if is_leader() and state.state != "done" and run.read_record():  # killed between writing record and state
            state = run.update_state(state="done", reason=None, pid=None)
        if state.state in RESULTS:  # another coordinator finished it in the meantime
            print("this run has its result already")
            return 0
        return _train(run, is_leader(), signals)


def _train(run: RunDir, leader: bool, signals: Signals) -> int:
    """Train the run, which this process has locked, and return the exit code."""
    started = time.time()
    outcome: StateName = "done"
    reason: str | None = None
    error: BaseException | None = None
    age = time.time() - psutil.Process().create_time()
    run.clear_failure(before=run.now() - age)  # each process does this before it can fail itself
    finished = threading.Event()
    if leader and processes() > 1:
        threading.Thread(target=_watch_others, args=(run, signals, finished), daemon=True).start()
    try:
        signals.start()
        config = _trainable_config(run)
        if leader:
            _write_running(run)
        watch = start_watch(config, started)
        fit_micro_batch(config, lambda fitting: train(run, fitting, watch, leader, signals))
    except Diverged as divergence:
        outcome, reason = "diverged", str(divergence)
        print(reason)
    except Stopped as stopped:
        outcome, reason, error = stopped.outcome, str(stopped), None if signals.agreed else stopped
        print(reason)
    except (Exception, SystemExit) as caught:
        traceback.print_exc()
        outcome, reason, error = ("oom" if is_out_of_memory(caught) else "failed"), explain(caught), caught
    signals.ignored = True
    finished.set()
    if not leader:
        return _leave_word(run, outcome, reason, error)
    if error is not None and processes() > 1:
        failure = _report_of_others(run, REPORT_SECONDS if _is_of_others(error) else 0)
        if failure is not None:
            outcome, reason = failure.outcome, _in_words(failure)
        elif _is_of_others(error):
            print("another process of this run is gone and has left no reason; the state stays as it is")
            return 1
    if signals.finishing and run.read_record():  # whatever came after it, the run is done
        outcome, reason = "done", None
        run.clear_failure()
    run.update_state(state=outcome, reason=reason, finished=run.now(), pid=None)
    return 0 if outcome == "done" else 1


def _trainable_config(run: RunDir) -> RunConfig:
    """Return the config of a run. Raises UserError if it is not the run's any more, or needs other processes."""
    config = run.read_config()
    check_identity(config)
    check_code(config, "logger")
    if world_size(config) != processes():
        raise UserError(
            f"this run has {world_size(config)} processes: start it with "
            f"torchrun --nproc-per-node {config.trainer.devices} -m lmexp.worker {run.path}"
        )
    return config


def _write_running(run: RunDir) -> None:
    """Write into the state that this process trains the run, in one attempt more."""
    if aside := run.set_aside_damaged_state():
        print(f"state.json could not be read; set aside as {aside}")
    before, now = run.read_state(), run.now()
    run.write_state(
        State(
            state="running",
            attempts=before.attempts + 1,
            host=socket.gethostname(),
            pid=os.getpid(),
            heartbeat=now,
            started=now,
            earlier=before.spent,
            code=CODE,
            job=before.job,
        )
    )


def _leave_word(run: RunDir, outcome: StateName, reason: str | None, error: BaseException | None) -> int:
    """Write why this process, which is not the leader, ended, and return its exit code.

    If the run diverged or was stopped, all processes know, and the leader records it; the code is then 0, so that
    torchrun does not stop the leader.
    """
    if error is None:
        return 0
    if not isinstance(error, Stopped) and not _is_of_others(error):
        with suppress(OSError):
            run.report_failure(int(os.environ["RANK"]), outcome, reason or "")
    return 1


def _in_words(failure: Failure) -> str:
    return f"process {failure.rank}: {failure.reason}"


def _is_of_others(error: BaseException) -> bool:
    """Whether an error only means that communication with the other processes failed."""
    words = r"gloo|nccl|connection (was )?(closed|reset|refused)|broken pipe|timed out"
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and not is_out_of_memory(error) and bool(re.search(words, str(error), re.I))
    )


def _report_of_others(run: RunDir, patience: float) -> Failure | None:
    """Return the failure that another process wrote, now or within `patience` seconds; None if none did."""
    deadline = time.monotonic() + patience
    while (failure := run.read_failure()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return failure


def _watch_others(run: RunDir, signals: Signals, finished: threading.Event) -> None:
    """End this process, with the reason, if another one has failed and this one would wait for it forever.

    That happens while the processes connect at the start, and always with NCCL: no error is raised there, and signals
    are not handled.
    """
    while not finished.wait(REPORT_SECONDS / 4):
        failure = run.read_failure()
        if failure is None or signals.finishing or finished.wait(2 * REPORT_SECONDS):
            continue
        print(f"{_in_words(failure)}; this process stops waiting for it", flush=True)
        run.update_state(state=failure.outcome, reason=_in_words(failure), finished=run.now(), pid=None)
        os._exit(1)


def leave(code: int) -> NoReturn:
    """End this process with an exit code; one of several processes skips the shutdown of the interpreter.

    The threads of gloo may still hold tensors of the last collective. Releasing them during the shutdown sometimes ends
    in SIGABRT (pytorch/pytorch#179291), and torchrun then stops the other processes.
    """
    if processes() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def is_leader() -> bool:
    """Whether this process is the first, or only, one of its run."""
    return int(os.environ.get("RANK", "0")) == 0


def quieten() -> None:
    """Keep tips and banners of libraries out of the log."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 itself causes it
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # the launcher handles Slurm
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # loading is index arithmetic
    warnings.filterwarnings("ignore", message=".*TensorFloat32 tensor cores.*")  # precision=fp32 means what it says
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)


def check_identity(config: RunConfig) -> None:
    """Raise UserError if a config is not the one whose hash is in the run id."""
    if config.run is None or config.run.id not in ids_of(config):
        raise UserError("config.yaml was changed after the run was created: its hash does not match the run id")

"""A run, from its directory: read the config, train, say what became of it.

Everything that happens is told in state.json; a run that fails leaves a state with a reason, and its
traceback in log.txt. Several processes of one run (started by torchrun) all come through here; the first
of them, the leader, writes the files. When another one fails, all that the leader sees is a connection that
broke, so the one that fails leaves word of it in the run directory, and the leader tells that.
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
from lmexp.config.identity import run_id
from lmexp.config.outside import check_code
from lmexp.config.schema import RunConfig
from lmexp.cost.device import is_out_of_memory
from lmexp.errors import UserError, reason_of
from lmexp.runs.directory import RunDir
from lmexp.runs.state import RESULTS, Failure, State, StateName
from lmexp.train.curve import Diverged
from lmexp.train.micro_batch import fit_micro_batch
from lmexp.train.run import train
from lmexp.train.stopping import Signals, Stopped, processes

REPORT_SECONDS = 2.0
"""How long the leader, when it loses the other processes, waits for word of what ended them."""


def main(path: Path, signals: Signals | None = None) -> int:
    """Train the run in the directory `path` and leave its state and record; return the exit code.

    0 when the run is done; 1 when it failed, diverged, ran out of memory or was stopped, which state.json tells.
    It tells nothing new, and the run is still `running`, in one case: another process is gone without a word.
    """
    if signals is None:
        with Signals() as own:
            return main(path, own)
    run = RunDir(path.resolve())
    quieten()
    lock = run.lock(patience=0.5) if is_leader() else nullcontext()
    if lock is None:
        print("another process is training this run; it is left to it")
        return 1
    with lock:
        state = run.read_state()
        if is_leader() and state.state != "done" and run.read_record():  # who wrote it did not come to say so
            state = run.update_state(state="done", reason=None, pid=None)
        if state.state in RESULTS:  # another coordinator's process has just been faster
            print("this run has its result already")
            return 0
        return _train(run, is_leader(), signals)


def _train(run: RunDir, leader: bool, signals: Signals) -> int:
    """Train the run, which nobody else does, and return the exit code."""
    started = time.time()
    outcome: StateName = "done"
    reason: str | None = None
    error: BaseException | None = None
    run.clear_failure(before=psutil.Process().create_time())  # each process does, before it can fail itself
    told = threading.Event()
    if leader and processes() > 1:
        threading.Thread(target=_watch_others, args=(run, signals, told), daemon=True).start()
    try:
        signals.start()
        config = run.read_config()
        check_identity(config)
        check_code(config)
        if world_size(config) != processes():
            raise UserError(
                f"this run has {world_size(config)} processes: start it with "
                f"torchrun --nproc-per-node {config.trainer.devices} -m lmexp.worker {run.path}"
            )
        if leader:
            if aside := run.set_aside_damaged_state():
                print(f"state.json could not be read; set aside as {aside}")
            before = run.read_state()
            run.write_state(
                State(
                    state="running",
                    attempts=before.attempts + 1,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    heartbeat=started,
                    started=started,
                    earlier=before.spent,
                    job=before.job,
                )
            )
        fit_micro_batch(config, lambda fitting: train(run, fitting, started, leader, signals))
    except Diverged as divergence:
        outcome, reason = "diverged", str(divergence)
        print(reason)
    except Stopped as stopped:
        outcome, reason, error = stopped.outcome, str(stopped), None if signals.agreed else stopped
        print(reason)
    except (Exception, SystemExit) as caught:
        traceback.print_exc()
        outcome, reason, error = ("oom" if is_out_of_memory(caught) else "failed"), reason_of(caught), caught
    signals.ignored = True
    told.set()
    if not leader:
        return _leave_word(run, outcome, reason, error)
    if error is not None and processes() > 1:
        failure = _report_of_others(run, REPORT_SECONDS if _is_of_others(error) else 0)
        if failure is not None:
            outcome, reason = failure.outcome, _tell(failure)
        elif _is_of_others(error):
            print("another process of this run is gone and has left no reason; the state stays as it is")
            return 1
    if signals.finishing and run.read_record():  # whatever came after it, the run is done
        outcome, reason = "done", None
        run.clear_failure()
    run.update_state(state=outcome, reason=reason, finished=time.time(), pid=None)
    return 0 if outcome == "done" else 1


def _leave_word(run: RunDir, outcome: StateName, reason: str | None, error: BaseException | None) -> int:
    """Report what ended this process, which is not the leader, and return its exit code.

    Where all of them diverged or stopped it is the leader's to say, who must not be stopped for it by torchrun.
    """
    if error is None:
        return 0
    if not isinstance(error, Stopped) and not _is_of_others(error):
        with suppress(OSError):
            run.report_failure(int(os.environ["RANK"]), outcome, reason or "")
    return 1


def _tell(failure: Failure) -> str:
    return f"process {failure.rank}: {failure.reason}"


def _is_of_others(error: BaseException) -> bool:
    """Whether an error only says that talking to the other processes failed."""
    words = r"gloo|nccl|connection (was )?(closed|reset|refused)|broken pipe|timed out"
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and not is_out_of_memory(error) and bool(re.search(words, str(error), re.I))
    )


def _report_of_others(run: RunDir, patience: float) -> Failure | None:
    """Return what another process reports, now or within `patience` seconds."""
    deadline = time.monotonic() + patience
    while (failure := run.read_failure()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return failure


def _watch_others(run: RunDir, signals: Signals, told: threading.Event) -> None:
    """End this process, and say why, once another has failed while this one waits for it where no error wakes it up.

    That is so while they find each other at the start, and always under NCCL; signals are not heard there either.
    """
    while not told.wait(REPORT_SECONDS / 4):
        failure = run.read_failure()
        if failure is None or signals.finishing or told.wait(2 * REPORT_SECONDS):
            continue
        print(f"{_tell(failure)}; it is not waited for any longer", flush=True)
        run.update_state(state=failure.outcome, reason=_tell(failure), finished=time.time(), pid=None)
        os._exit(1)


def leave(code: int) -> NoReturn:
    """End this process with `code`; one of several processes leaves without the interpreter's tear-down.

    gloo's threads may still hold tensors of the last collective, and letting them go while the interpreter is
    being torn down ends in SIGABRT now and then (pytorch/pytorch#179291); torchrun then stops the others.
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
    """Keep tips and banners, which do not belong in a log, out of it."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6's own, of torch's trees
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # Slurm is the launcher's business
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)


def check_identity(config: RunConfig) -> None:
    """Raise UserError when a config is not the one that its run is named after."""
    if config.run is None or run_id(config) != config.run.id:
        raise UserError("config.yaml was changed since its run was named: its hash is another")

"""A run, from its directory: read the config, train, say what became of it.

Everything that happens is told in state.json; a run that fails leaves a state with a reason, and its
traceback in log.txt. Several processes of one run (started by torchrun) all come through here; the first
of them writes the files.
"""

import logging
import os
import socket
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import NoReturn

from lmexp.config.checks import world_size
from lmexp.config.identity import run_id
from lmexp.config.schema import RunConfig
from lmexp.cost.device import is_out_of_memory
from lmexp.errors import UserError, reason_of
from lmexp.runs.directory import RESULTS, RunDir, State, StateName
from lmexp.train.callbacks import Diverged
from lmexp.train.micro import fit_micro_batch
from lmexp.train.training import train


def main(path: Path) -> int:
    """Train the run in the directory `path` and leave its state and record; return the exit code.

    0 when the run is done; 1 when it failed, diverged or ran out of memory, which state.json tells.
    """
    run, started = RunDir(path.resolve()), time.time()
    quieten()
    leader = is_leader()
    outcome: StateName = "done"
    reason: str | None = None
    lock = run.lock(patience=0.5) if leader else None
    if leader and lock is None:
        print("another process is training this run; it is left to it")
        return 1
    if run.read_state().state in RESULTS:  # another coordinator's process has just been faster
        print("this run has its result already")
        return 0
    try:
        config = run.read_config()
        check_identity(config)
        if world_size(config) != int(os.environ.get("WORLD_SIZE", "1")):
            raise UserError(
                f"this run has {world_size(config)} processes: start it with "
                f"torchrun --nproc-per-node {config.trainer.devices} -m lmexp.worker {path}"
            )
        if leader:
            before = run.read_state()
            run.write_state(
                State(
                    state="running",
                    attempts=before.attempts + 1,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    heartbeat=started,
                    started=started,
                )
            )
        fit_micro_batch(config, lambda fitting: train(run, fitting, started, leader))
    except Diverged as divergence:
        outcome, reason = "diverged", str(divergence)
        print(reason)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns SIGTERM into the second
        outcome, reason = "cancelled", "stopped by a signal"
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # torchrun stops the others when one of them fails
            outcome, reason = "failed", "stopped by a signal, perhaps since another of its processes failed"
    except Exception as error:
        traceback.print_exc()
        outcome, reason = ("oom" if is_out_of_memory(error) else "failed"), reason_of(error)
    if leader:
        run.update_state(state=outcome, reason=reason, finished=time.time(), pid=None)
    # Those behind the leader diverged as it did: it is not to be stopped for that, but to say it.
    return 0 if outcome == "done" or (outcome == "diverged" and not leader) else 1


def leave(code: int) -> NoReturn:
    """End this process with `code`; one of several processes leaves without the interpreter's tear-down.

    gloo's threads may still hold tensors of the last collective, and letting them go while the interpreter is
    being torn down ends in SIGABRT now and then (pytorch/pytorch#179291); torchrun then stops the others.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
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
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)


def check_identity(config: RunConfig) -> None:
    """Raise UserError when a config is not the one that its run is named after."""
    if config.run is None or run_id(config) != config.run.id:
        raise UserError("config.yaml was changed since its run was named: its hash is another")

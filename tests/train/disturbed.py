"""A worker to which something happens, at a place that a test names. As a script, for torchrun:

    disturbed.py RUN_DIR WHAT RANK STEP

Where a test is to send a signal, the worker leaves RUN_DIR/here and waits for it: nothing depends on timing.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmexp.collection import imports_kept
from lmexp.runs.directory import RunDir
from lmexp.train.stopping import SAME_SECONDS, Signals

PATIENCE = 60.0


def main(path: Path, what: str, rank: int = 0, step: int = 0) -> int:
    """Train the run; `what` happens to the process with this rank, after this step where it is one of training."""
    with Signals() as signals:  # before the seconds that imports take, as lmexp.worker does
        return _train(path, what, rank, step, signals)


def _train(path: Path, what: str, rank: int, step: int, signals: Signals) -> int:
    with imports_kept():
        import torch

        from lmexp.train import clock, training, worker

    torch.set_num_threads(1)
    place: dict[str, tuple[Any, str]] = {
        "start": (training.Training, "__init__"),
        "finish": (training, "save_final"),
        "end": (RunDir, "write_record"),
    }
    word, _, where = what.partition(" in ")
    owner, name = place.get(where, (clock.Clock, "on_step_end"))
    before: Callable[..., Any] = getattr(owner, name)
    acts = _acts(path, signals)

    def disturbed(*args: Any, **kwargs: Any) -> Any:
        result = None if where == "start" else before(*args, **kwargs)
        if int(os.environ.get("RANK", "0")) == rank and (where or args[0].progress.steps == step):
            acts[word]()
        return before(*args, **kwargs) if where == "start" else result

    setattr(owner, name, disturbed)
    return worker.main(path, signals)


def _acts(path: Path, signals: Signals) -> dict[str, Callable[[], None]]:
    def wait_until(enough: Callable[[], bool]) -> None:
        (path / "here").touch()
        deadline = time.monotonic() + PATIENCE
        while not enough():
            assert time.monotonic() < deadline, "no signal came"
            time.sleep(0.005)

    def send(times: int, pause: float = 0.0) -> None:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(pause)

    def fail() -> None:
        raise ValueError("it had to be")

    return {
        "wait for a signal": lambda: wait_until(lambda: signals.requested is not None),
        "wait for ever": lambda: wait_until(lambda: False),
        "a signal": lambda: send(1),
        "one signal twice": lambda: send(2),
        "two signals": lambda: send(2, 1.1 * SAME_SECONDS),
        "error": fail,
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    }


if __name__ == "__main__":
    code = main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    from lmexp.train.worker import leave

    leave(code)

"""What a run does every few seconds beside its training.

The heartbeat of its first process says in state.json that the run is alive and how far it is, and in log.txt every half
minute. Each process measures what changes while it trains.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lmexp.runs.directory import RunDir
from lmexp.runs.state import State
from lmexp.runs.status import progress_text
from lmexp.terminal import progress_seconds
from lmexp.train.curve import Curve
from lmexp.train.progress import Progress

HEARTBEAT_SECONDS = 2.0


@contextmanager
def heartbeat(run: RunDir, progress: Progress, curve: Curve, sample: Callable[[], None]) -> Iterator[None]:
    """Update state.json at the start, at the end and every few seconds in between, from a thread.

    The thread also calls `sample`, to measure what changes while the run trains, and prints a line of progress at least
    every 30 seconds, whatever the run does meanwhile. Raises UserError if LMEXP_PROGRESS_SECONDS is not a valid
    interval.
    """
    said, every = time.monotonic(), progress_seconds()
    measured_from = measured_share = None

    def beat() -> None:
        nonlocal said
        state = update()
        sample()
        if time.monotonic() - said >= every:
            said = time.monotonic()
            text = progress_text(state) if state.steps else "prepares its first step"
            print(f"{text}\n", end="", flush=True)  # in one piece, beside what the main thread prints

    def update() -> State:
        nonlocal measured_from, measured_share
        now, share = run.now(), progress.run_share
        if measured_from is None and progress.has_stepped:
            measured_from, measured_share = now, share
        return run.update_state(
            state="running",
            heartbeat=now,
            tokens=progress.run_tokens,
            steps=progress.steps,
            share=share,
            measured_from=measured_from,
            measured_share=measured_share,
            train_loss=curve.train_loss,
            tokens_per_second=curve.tokens_per_second,
        )

    update()
    try:
        with repeating(beat):
            yield
    finally:
        update()


@contextmanager
def repeating(action: Callable[[], None]) -> Iterator[None]:
    """Do something every few seconds, from a thread."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            action()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()

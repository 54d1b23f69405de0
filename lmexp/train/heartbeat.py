"""The heartbeat of a run: every few seconds state.json says that the run is alive and how far it is."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lmexp.runs.directory import RunDir
from lmexp.train.curve import Curve
from lmexp.train.progress import Progress

HEARTBEAT_SECONDS = 2.0


@contextmanager
def heartbeat(run: RunDir, progress: Progress, curve: Curve, sample: Callable[[], None]) -> Iterator[None]:
    """Update state.json at the start, at the end and every few seconds in between, from a thread.

    The thread also calls `sample`, to measure what changes while the run trains.
    """
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            update()
            sample()

    def update() -> None:
        run.update_state(
            state="running",
            heartbeat=run.now(),
            tokens=progress.run_tokens,
            steps=progress.steps,
            share=progress.run_share,
            train_loss=curve.train_loss,
            tokens_per_second=curve.tokens_per_second,
        )

    update()
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        update()

"""Stopping a run by a signal. lmexp alone handles the signals of a run.

SIGTERM and SIGINT cancel a run, SIGUSR2 preempts it; both can be resumed later. What the first signal does depends on
when it comes:

- before training, the run stops at once, because there is nothing to save;
- while it trains, it finishes the step, saves last.ckpt and stops;
- after the last step, it finishes its record.

A second signal stops the run at once.

The processes of one run must stop after the same step, or the others would wait for the one that left. So each process
only records its signal, from its start on, and they exchange their signals at the points of the curve, where they
communicate anyway: at the first step and at every `trainer.log_every`-th one. A signal to one of them stops all.

This module is imported before torch and imports almost nothing, so that a signal during the seconds that torch takes
to import is not lost.
"""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any, Literal

Outcome = Literal["cancelled", "preempted"]
OUTCOMES: dict[int, Outcome] = {
    signal.SIGTERM: "cancelled",
    signal.SIGINT: "cancelled",
    signal.SIGUSR2: "preempted",
}
SAME_SECONDS = 1.0
"""Signals within this time count as one: a launcher and its scheduler both send theirs to every process."""


class Stopped(BaseException):
    """A signal stops the run. It is no Exception, so that no handler of errors catches it on its way up."""

    def __init__(self, outcome: Outcome, when: str) -> None:
        super().__init__(f"{'preempted' if outcome == 'preempted' else 'stopped by a signal'} {when}")
        self.outcome = outcome


class Signals:
    """The signals that this process received. As a context manager it installs and removes the handlers."""

    def __init__(self) -> None:
        self.requested: Outcome | None = None
        """What the first signal to this process requested; None before one came."""
        self.agreed: Outcome | None = None
        """What the processes of the run have agreed on, because one of them was signalled."""
        self.only_recorded = True
        """Whether the first signal is only recorded, and does not stop the run at once."""
        self.finishing = False
        """Whether only the record is left to do, which needs no other process."""
        self.ignored = False
        """Whether signals come too late to change anything."""
        self._requested_at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers in no other thread
            self._before = {which: signal.signal(which, self._receive) for which in OUTCOMES}
        return self

    def __exit__(self, *_: object) -> None:
        for which, handler in self._before.items():
            signal.signal(which, handler)

    def start(self) -> None:
        """Stop at once on a signal, until `wait_for_step`. Raises Stopped if a signal came earlier.

        One of several processes keeps recording instead, because it has to stop together with the others.
        """
        if processes() > 1:
            return
        self.only_recorded = False
        if self.requested:
            raise Stopped(self.requested, "before training")

    def wait_for_step(self) -> None:
        """From now on, let the step under way end before a first signal stops the run."""
        self.only_recorded = True

    def _receive(self, which: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.ignored or (self.requested and now - self._requested_at < SAME_SECONDS):
            return
        if self.requested is None:
            self.requested, self._requested_at = OUTCOMES[which], now
            if self.only_recorded:
                return
            raise Stopped(self.requested, "before training")
        raise Stopped(self.requested, "a second time: at once, without another checkpoint")


def local_rank() -> int:
    """Return the number of this process among those of the run on this machine, from 0 on."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def processes() -> int:
    """Return the number of processes that train this run together, as the program that started them says."""
    return int(os.environ.get("WORLD_SIZE", "1"))

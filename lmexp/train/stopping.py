"""Being asked to stop: a run's signals, of which lmexp is the one owner.

SIGTERM and SIGINT cancel a run, SIGUSR2 preempts it; both may go on later. While it trains, the first signal is
a request: the step under way is finished, last.ckpt is saved, the run leaves. Before training there is nothing
to keep, and it leaves at once; once the budget is spent it finishes its record instead. A second signal ends
the run at once.

Several processes of one run must leave at the same step, or the others would wait for the one that left. So each
only notes its signal, from its start on, and they tell each other at the points of the curve, where they talk
anyway: at the first step and at every `trainer.log_every`-th. One signal is enough for all of them.

Imported before torch is, so that a signal during the seconds of imports is not lost: it imports next to nothing.
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
"""Signals within this time are one: a launcher and the scheduler above it both send theirs to every process."""


class Stopped(BaseException):
    """The run was asked to stop, and does; no Exception, so that nothing on the way takes it for an error."""

    def __init__(self, outcome: Outcome, when: str) -> None:
        super().__init__(f"{'preempted' if outcome == 'preempted' else 'stopped by a signal'} {when}")
        self.outcome = outcome


class Signals:
    """What this process was asked by signals; as a context, it takes them over and gives them back."""

    def __init__(self) -> None:
        self.asked: Outcome | None = None
        """What the first signal to this process asked for."""
        self.agreed: Outcome | None = None
        """What all processes of the run know that one of them was asked for."""
        self.patient = True
        """Whether a first signal is only noted."""
        self.finishing = False
        """Whether nothing but the record is left to do, for which no other process is needed."""
        self.deaf = False
        """Whether signals come too late to change anything."""
        self._asked_at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():  # Python lets no other take signals
            self._before = {which: signal.signal(which, self._note) for which in OUTCOMES}
        return self

    def __exit__(self, *_: object) -> None:
        for which, handler in self._before.items():
            signal.signal(which, handler)

    def start(self) -> None:
        """What comes is not worth waiting for, until `train`; raises Stopped if a signal came before."""
        if processes() > 1:
            return
        self.patient = False
        if self.asked:
            raise Stopped(self.asked, "before training")

    def train(self) -> None:
        """From now on a first signal waits for the end of the step."""
        self.patient = True

    def _note(self, which: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.deaf or (self.asked and now - self._asked_at < SAME_SECONDS):
            return
        if self.asked is None:
            self.asked, self._asked_at = OUTCOMES[which], now
            if self.patient:
                return
            raise Stopped(self.asked, "before training")
        raise Stopped(self.asked, "a second time: at once, without another checkpoint")


def processes() -> int:
    """Return how many processes train the run together, as whoever started this one says."""
    return int(os.environ.get("WORLD_SIZE", "1"))

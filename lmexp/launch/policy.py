"""What the queue does when runs fail, take too long, or cost too much."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lmexp.errors import UserError
from lmexp.runs.directory import RunDir
from lmexp.runs.state import State

MAX_LOST_RETRIES = 2
"""How often in a row a run is started again after its process vanished without writing a new checkpoint."""
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class StopRule(Protocol):
    """Decides which runs are stopped before their end."""

    name: str
    """The end of every reason that it gives."""

    def why(self, run: RunDir, folder: Path) -> str | None:
        """Return why a run of the sweep in `folder` should be stopped, beginning with PRUNED, or None; often called."""


@dataclass(frozen=True)
class Policy:
    """How a sweep handles failures and hopeless runs, and what it may spend."""

    stop_at_failure: bool = False
    """Whether no further run starts after one has failed."""
    retries: int = 0
    """How often a run that raised an error is started again."""
    timeout: float | None = None
    """Seconds that a run may take each time it is started; None means any number."""
    max_hours: float | None = None
    """Hours that all runs may take together, earlier calls included; None means any number."""
    max_dollars: float | None = None
    max_flops: float | None = None
    stop_if: StopRule | None = None
    """Which runs are stopped while they train; None means none."""

    def has_given_up(self, state: State) -> bool:
        """Whether the present rule has stopped a run, now or in an earlier call. It is not started again then."""
        return self.stop_if is not None and state.is_pruned and (state.reason or "").endswith(self.stop_if.name)


def parse_on_failure(text: str) -> tuple[bool, int]:
    """Return (stop at a failure, retries) of `continue`, `stop` or `retry:N`. Raises UserError for anything else."""
    match = re.fullmatch(r"(continue|stop)|retry:(\d{1,3})", text)
    if not match:
        raise UserError(f"--on-failure {text}: write continue, stop, or retry:N as in retry:2")
    return match[1] == "stop", int(match[2] or 0)


def parse_duration(text: str) -> float:
    """Return the seconds of `90`, `90s`, `15m`, `2h` or `1d`. Raises UserError for anything else, and for 0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip())
    if not match or match[2] not in UNITS or not float(match[1]):
        raise UserError(f"{text} is no duration: write 90 (seconds), 90s, 15m, 2h or 1d")
    return float(match[1]) * UNITS[match[2]]

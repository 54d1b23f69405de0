"""What the queue does when runs fail, take too long, or cost too much: the options of `sweep`."""

import re
from dataclasses import dataclass

from lmexp.errors import UserError

LOST_RETRIES = 2
"""How often a run is started again whose process vanished, without having come further than the time before."""
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Policy:
    """How a sweep deals with what goes wrong, and what it may spend."""

    stop_at_failure: bool = False
    """Whether no further run starts once one has failed."""
    retries: int = 0
    """How often a run that raised is started again."""
    timeout: float | None = None
    """Seconds that a run may take from its start, each time it is started."""
    max_hours: float | None = None
    """Hours of all runs together, those of earlier calls included."""
    max_dollars: float | None = None
    max_flops: float | None = None


def parse_on_failure(text: str) -> tuple[bool, int]:
    """Return (stop at a failure, retries) of `continue`, `stop` or `retry:N`. Raises UserError for anything else."""
    found = re.fullmatch(r"(continue|stop)|retry:(\d{1,3})", text)
    if not found:
        raise UserError(f"--on-failure {text}: continue, stop, or retry:N as in retry:2")
    return found[1] == "stop", int(found[2] or 0)


def parse_duration(text: str) -> float:
    """Return the seconds of `90`, `90s`, `15m`, `2h` or `1d`. Raises UserError for anything else, and for nothing."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip())
    if not found or found[2] not in UNITS or not float(found[1]):
        raise UserError(f"{text} is no duration: 90 (seconds), 90s, 15m, 2h, 1d")
    return float(found[1]) * UNITS[found[2]]

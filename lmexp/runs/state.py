"""What a run is doing: its state, and the report of a process that failed. runs/directory.py reads and writes both."""

from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import ConfigDict, TypeAdapter

StateName = Literal["queued", "running", "done", "failed", "oom", "diverged", "timeout", "preempted", "cancelled"]
STATES: tuple[str, ...] = get_args(StateName)
RESULTS = {"done", "oom", "diverged", "timeout"}
"""States that count as a result: running the sweep again does not repeat such a run."""
WAITING = {"queued", "running", "preempted"}
"""States of runs that have not ended yet."""
PRUNED = "pruned at "
"""The reason of a cancelled run begins with this if a search or --stop-if gave the run up."""
MIN_MEASURED_SECONDS = 4.0
"""A run must have been watched for this long while it trains before its speed says how long it takes."""
STALE_SECONDS = 60.0
"""If the heartbeat of a running run is older than this, its process is gone."""


@dataclass(frozen=True)
class State:
    """What a run is doing. Times are seconds since the epoch, by the clock of the run's disk; see RunDir.now."""

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)  # for the check when it is read

    state: StateName = "queued"
    reason: str | None = None
    """Why the run is in this state, in words; None if the state says enough."""
    attempts: int = 0
    """How often a process has started to train the run."""
    host: str | None = None
    """The machine of the last attempt."""
    pid: int | None = None
    """The process that trains it now."""
    heartbeat: float | None = None
    """When that process last wrote the state."""
    started: float | None = None
    """When the last attempt began."""
    finished: float | None = None
    """When the last attempt ended."""
    earlier: float = 0.0
    """Seconds that earlier attempts took."""
    tokens: int = 0
    """Tokens trained on so far."""
    steps: int = 0
    """Optimizer steps that led to the present weights."""
    share: float | None = None
    """Share of the budget that is spent, 0 to 1."""
    train_loss: float | None = None
    """The last training loss."""
    tokens_per_second: float | None = None
    """The present speed."""
    measured_from: float | None = None
    """The first heartbeat of the last attempt after a finished step: start-up and compiling lie before it."""
    measured_share: float | None = None
    """The share of the budget that was spent then."""
    code: str | None = None
    """The code of the last attempt; see origin.code_version."""
    job: str | None = None
    """The run's name with a cluster's scheduler, such as `slurm:1234_5`; None on this machine."""

    @property
    def spent(self) -> float:
        """Seconds that the run has taken so far, over all attempts."""
        if self.started is None:
            return self.earlier
        until = self.finished or self.heartbeat or self.started
        return self.earlier + max(until - self.started, 0.0)

    @property
    def seconds_per_budget(self) -> float | None:
        """Seconds that the whole budget takes at the speed of the last attempt, evaluations and checkpoints included.

        None as long as the attempt has not trained for MIN_MEASURED_SECONDS.
        """
        since, until = self.measured_from, self.heartbeat
        if since is None or until is None or until - since < MIN_MEASURED_SECONDS:
            return None
        trained = (self.share or 0.0) - (self.measured_share or 0.0)
        return (until - since) / trained if trained > 0 else None

    @property
    def never_started(self) -> bool:
        """Whether no process has begun to train the run yet."""
        return self.state == "queued" and not self.attempts

    @property
    def is_pruned(self) -> bool:
        """Whether a search or --stop-if gave the run up. Such a run has no record, but it did not fail either."""
        return self.state == "cancelled" and (self.reason or "").startswith(PRUNED)


STATE_READER = TypeAdapter(State)


@dataclass(frozen=True)
class Failure:
    """Why a process of a run ended. Processes other than the first leave it for the first one, which reports it."""

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    rank: int
    outcome: StateName
    reason: str
    at: float
    """Seconds since the epoch."""


FAILURE_READER = TypeAdapter(Failure)

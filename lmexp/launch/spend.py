"""What a sweep has spent, and would spend with one more run: `--max-hours`, `--max-dollars`, `--max-flops`.

Hours count all attempts of a run; FLOPs count as far as the run got. What a run will take is known in FLOPs from the
start. In hours it follows from a budget of time, from a probe (`plan --measure`), or from the hours per FLOP of the
runs that are done. As long as none of these is known, a run counts nothing until it has run.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from lmexp.config.checks import device_share, world_size
from lmexp.cost.device import devices_used
from lmexp.errors import UserError
from lmexp.launch.policy import Policy
from lmexp.resolve.planned import PlannedRun
from lmexp.runs.probes import Probe
from lmexp.runs.record import Row
from lmexp.runs.state import State
from lmexp.units import si


@dataclass(frozen=True)
class Spend:
    """An amount that was or will be spent."""

    hours: float = 0.0
    dollars: float = 0.0
    flops: float = 0.0

    def __add__(self, other: "Spend") -> "Spend":
        return Spend(self.hours + other.hours, self.dollars + other.dollars, self.flops + other.flops)


class Ledger:
    """Adds up what the runs of a sweep spend, and checks the limits."""

    def __init__(self, policy: Policy, probe_of: Callable[[PlannedRun], Probe | None]) -> None:
        """`probe_of` returns what a probe has measured of a run's shape."""
        self._limits = {"hours": policy.max_hours, "dollars": policy.max_dollars, "flops": policy.max_flops}
        self._probe_of = probe_of
        self._spent: dict[str, Spend] = {}
        """What the ended attempts of each run have taken, by run."""
        self._rates: dict[str, float] = {}
        """Hours per FLOP of the runs that are done, by run."""
        self._left: dict[str, float] = {}
        """Share of each run that was left to train when its start was considered, by run."""

    @property
    def has_limits(self) -> bool:
        """Whether anything is limited."""
        return any(limit is not None for limit in self._limits.values())

    @property
    def spent(self) -> Spend:
        """What the ended attempts of all runs have taken."""
        return sum(self._spent.values(), Spend())

    def check(self, runs: Iterable[PlannedRun]) -> None:
        """Raise UserError if dollars are limited and a run has no price."""
        for planned in runs:
            if self._limits["dollars"] is not None and planned.config.hardware.dollars_per_hour is None:
                raise UserError("--max-dollars needs a price: set hardware.dollars_per_hour (`lmexp list hardware`)")

    def ended(self, planned: PlannedRun, state: State) -> None:
        """Record what a run has taken so far, over all its attempts."""
        if not self.has_limits:
            return
        rows = planned.run.read_record()
        measured, done = sum(map(_hours_of, rows)), float(sum(map(_flops_of, rows)))
        # A record does not count the steps that were lost between a checkpoint and a kill, but they cost money too.
        hours = max(measured, state.spent / 3600)
        flops = done or (state.share or 0.0) * (planned.horizon.spent_flops or 0.0)
        self._spent[planned.identity] = Spend(hours, self._dollars(planned, hours), flops)
        if measured and done:
            self._rates[planned.identity] = measured / done

    def refuses(self, planned: PlannedRun, under_way: Iterable[PlannedRun]) -> str | None:
        """Return why a run must not start while others are under way, or None."""
        if not self.has_limits:
            return None
        self._left[planned.identity] = _left(planned)
        total = sum(map(self._expected, [*under_way, planned]), self.spent)
        for name, limit in self._limits.items():
            would = getattr(total, name)
            if limit is not None and would > limit:
                return f"not started: the sweep would take {si(would)} {name}, and --max-{name} is {si(limit)}"
        return None

    def _expected(self, planned: PlannedRun) -> Spend:
        """Return what a run takes from its last start to its end."""
        length, probe, hours = planned.horizon, self._probe_of(planned), 0.0
        if length.seconds is not None:
            hours = length.seconds / 3600
        elif self._rates and length.spent_flops is not None:
            hours = median(self._rates.values()) * length.spent_flops
        elif probe is not None and length.spent_steps is not None:
            hours = probe.seconds(length.spent_steps) / 3600
        left = self._left.get(planned.identity, 1.0)
        flops = left * (length.spent_flops or 0.0)
        return Spend(left * hours, self._dollars(planned, left * hours), flops)

    def _dollars(self, planned: PlannedRun, hours: float) -> float:
        config, kind = planned.config, planned.device.kind
        price = config.hardware.dollars_per_hour or 0.0
        return hours * price * devices_used(kind, world_size(config)) * device_share(config, kind)


def _flops_of(row: Row) -> float:
    """Return the FLOPs that were spent for a row; records of earlier versions have no milestones and no spent_flops."""
    return float(row.get("spent_flops") or row.get("train_flops") or 0.0)


def _hours_of(row: Row) -> float:
    """Return the hours that were spent for a row: those that it would have taken alone, by the share of its FLOPs."""
    alone = (row.get("wall_seconds") or 0.0) / 3600
    return float(alone * _flops_of(row) / (row.get("train_flops") or 1.0)) if _flops_of(row) else float(alone)


def _left(planned: PlannedRun) -> float:
    """Return the share of a run that is left to train: all of it, or at most what follows its checkpoint."""
    if planned.run.last_saved() is None:
        return 1.0
    reached = planned.run.read_state().share or 0.0
    return min(1.0, 1.0 - reached + planned.config.checkpoint.every)

"""What a sweep has spent, and would have spent with one run more: `--max-hours`, `--max-dollars`, `--max-flops`.

Hours count over all attempts of a run; FLOPs as far as it came. What is still to come is known in FLOPs from the
start; in hours, from the budget, from a probe (`plan --measure`), or from the hours for each FLOP of the runs that are
done. While nobody can tell, a run counts nothing until it has run.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from lmexp.config.checks import world_size
from lmexp.cost.device import devices_used
from lmexp.errors import UserError
from lmexp.launch.policy import Policy
from lmexp.resolve.planned import PlannedRun
from lmexp.runs.directory import State
from lmexp.runs.probes import Probe
from lmexp.units import si


@dataclass(frozen=True)
class Spend:
    """What was, or will be, spent."""

    hours: float = 0.0
    dollars: float = 0.0
    flops: float = 0.0

    def __add__(self, other: "Spend") -> "Spend":
        return Spend(self.hours + other.hours, self.dollars + other.dollars, self.flops + other.flops)


class Ledger:
    """Keeps the accounts of a sweep."""

    def __init__(self, policy: Policy, probe_of: Callable[[PlannedRun], Probe | None]) -> None:
        """`probe_of` returns what was measured of a run's shape."""
        self._limits = {"hours": policy.max_hours, "dollars": policy.max_dollars, "flops": policy.max_flops}
        self._probe_of = probe_of
        self._spent: dict[str, Spend] = {}
        """By run, what its attempts that have ended took."""
        self._rates: dict[str, float] = {}
        """Hours for each FLOP of the runs that are done."""
        self._left: dict[str, float] = {}
        """What share of each run was still to come when it was asked about, before it started."""

    @property
    def has_limits(self) -> bool:
        """Whether anything is limited."""
        return any(limit is not None for limit in self._limits.values())

    def check(self, runs: Iterable[PlannedRun]) -> None:
        """Raise UserError where dollars are limited and a run has no price."""
        for planned in runs:
            if self._limits["dollars"] is not None and planned.config.hardware.dollars_per_hour is None:
                raise UserError("--max-dollars needs a price: set hardware.dollars_per_hour (`lmexp list hardware`)")

    def ended(self, planned: PlannedRun, state: State) -> None:
        """Enter what a run has taken up to now, over all its attempts."""
        if not self.has_limits:
            return
        rows = planned.run.read_record()
        row = rows[-1] if rows else {}
        measured, done = (row.get("wall_seconds") or 0.0) / 3600, float(row.get("train_flops") or 0.0)
        # A record knows nothing of what was lost between a checkpoint and a kill, and was paid for all the same.
        hours = max(measured, state.spent / 3600)
        flops = done or (state.share or 0.0) * (planned.horizon.flops or 0.0)
        self._spent[planned.identity] = Spend(hours, self._dollars(planned, hours), flops)
        if measured and done:
            self._rates[planned.identity] = measured / done

    def refuses(self, planned: PlannedRun, under_way: Iterable[PlannedRun]) -> str | None:
        """Return why a run is not to be started while others are under way, or None."""
        if not self.has_limits:
            return None
        self._left[planned.identity] = _left(planned)
        total = sum(map(self._expected, [*under_way, planned]), sum(self._spent.values(), Spend()))
        for name, limit in self._limits.items():
            would = getattr(total, name)
            if limit is not None and would > limit:
                return f"not started: the sweep would come to {si(would)} {name}, and --max-{name} is {si(limit)}"
        return None

    def _expected(self, planned: PlannedRun) -> Spend:
        """Return what a run takes from its last start on."""
        length, probe, hours = planned.horizon, self._probe_of(planned), 0.0
        if length.seconds is not None:
            hours = length.seconds / 3600
        elif self._rates and length.flops is not None:
            hours = median(self._rates.values()) * length.flops
        elif probe is not None and length.steps is not None:
            hours = probe.seconds(length.steps) / 3600
        left = self._left.get(planned.identity, 1.0)
        flops = left * (length.flops or 0.0)
        return Spend(left * hours, self._dollars(planned, left * hours), flops)

    def _dollars(self, planned: PlannedRun, hours: float) -> float:
        price = planned.config.hardware.dollars_per_hour or 0.0
        return hours * price * devices_used(planned.device.kind, world_size(planned.config))


def _left(planned: PlannedRun) -> float:
    """Return the share of a run that is to come: all of it, or what follows its checkpoint, at most."""
    if planned.run.last_saved() is None:
        return 1.0
    reached = planned.run.read_state().share or 0.0
    return min(1.0, 1.0 - reached + planned.config.checkpoint.every)

"""Which trials of a search are given up early: asynchronous successive halving (ASHA, Li et al. 2020).

At each rung, a share of the budget, only the best 1/reduction of those that have reached it go on. The values are read
from the runs' own curves, so nothing is to be kept, and what another coordinator runs counts as well. A run is held
against the others at the highest rung that it has reached, whenever its curve grows: one that came first to a rung,
and went on because nobody had been there, is given up once enough others have come and are better.
"""

from collections.abc import Iterable

from lmexp.config.sweeps import SearchSpec
from lmexp.resolve.planned import PlannedRun
from lmexp.runs.directory import PRUNED

NEARLY = 1e-9


class Halving:
    """Compares the runs of a search on their way."""

    def __init__(self, spec: SearchSpec) -> None:
        assert spec.prune is not None, "a search that prunes"
        ((self.objective, direction),) = spec.objectives.items()
        self.rungs, self._reduction = spec.prune.rungs, spec.prune.reduction
        self._sign = 1 if direction == "minimize" else -1
        self._read: dict[str, tuple[tuple[int, int], list[float]]] = {}
        """Of each run: when its curve was written and how long it was, and its values at the rungs."""
        self._judged: dict[str, tuple[int, int]] = {}
        """Of each run: the curve that the last verdict on it was about."""

    def verdict(self, planned: PlannedRun, runs: Iterable[PlannedRun]) -> str | None:
        """Return why a run of `runs` is given up, or None; None as well where its curve is as it was last time."""
        mine = self.values(planned)
        if not mine or self._judged.get(planned.identity) == self._read[planned.identity][0]:
            return None
        self._judged[planned.identity] = self._read[planned.identity][0]
        rung = len(mine) - 1
        there = [values[rung] for run in runs if len(values := self.values(run)) > rung]
        keep = len(there) // self._reduction
        if not keep:
            return None
        last = sorted(there, key=lambda value: self._sign * value)[keep - 1]
        if self._sign * mine[rung] <= self._sign * last:
            return None
        return (
            f"{PRUNED}{100 * self.rungs[rung]:g} % of its budget: {self.objective} {mine[rung]:.4f} is not "
            f"among the best {keep} of {len(there)} ({last:.4f} would be)"
        )

    def values(self, planned: PlannedRun) -> list[float]:
        """Return a run's value at each rung that it has reached: that of the first evaluation there or after it."""
        try:
            found = (planned.run.path / "metrics.jsonl").stat()
        except OSError:
            return []
        stamp = found.st_mtime_ns, found.st_size
        known = self._read.get(planned.identity)
        if known is None or known[0] != stamp:
            known = self._read[planned.identity] = stamp, self._values(planned)
        return known[1]

    def _values(self, planned: PlannedRun) -> list[float]:
        length = planned.horizon
        clock, whole = ("seconds", length.seconds) if length.tokens is None else ("tokens", float(length.tokens))
        assert whole is not None, "a budget is work or time"
        scored = [point for point in planned.run.read_curve() if self.objective in point and clock in point]
        values = []
        for rung in self.rungs:
            there = [point[self.objective] for point in scored if point[clock] >= (rung - NEARLY) * whole]
            if not there:
                break
            values.append(there[0])
        return values

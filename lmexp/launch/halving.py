"""Which trials of a search are stopped early: asynchronous successive halving (ASHA, Li et al. 2020).

At each rung, which is a share of the budget, only the best 1/reduction of the trials that have reached it continue. The
values are read from the runs' own curves, so nothing else is stored, and the trials of other coordinators count too. A
trial is compared at the highest rung that it has reached, whenever its curve grows. So a trial that reached a rung
first, and continued because there was nothing to compare it with, is stopped once enough better ones have reached it.
"""

from collections.abc import Iterable

from lmexp.config.sweeps import SearchSpec
from lmexp.resolve.planned import PlannedRun
from lmexp.runs.pruned import Pruned

NEARLY = 1e-9


class Halving:
    """Compares the runs of a search while they train."""

    def __init__(self, spec: SearchSpec) -> None:
        assert spec.prune is not None, "a search that prunes"
        ((self.objective, direction),) = spec.objectives.items()
        self.rungs, self._reduction = spec.prune.rungs, spec.prune.reduction
        self._sign = 1 if direction == "minimize" else -1
        self._read: dict[str, tuple[tuple[int, int], list[float]]] = {}
        """By run: the time and the size of its curve's file, and its values at the rungs."""
        self._judged: dict[str, tuple[int, int]] = {}
        """By run: the time and the size of the curve that was judged last."""

    def verdict(self, planned: PlannedRun, runs: Iterable[PlannedRun]) -> str | None:
        """Return why a run should be stopped, or None, also if its curve has not grown since the last call."""
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
        return Pruned(self.rungs[rung], self.objective, mine[rung], last, keep, len(there)).sentence

    def values(self, planned: PlannedRun) -> list[float]:
        """Return a run's value at each rung that it has reached: the first evaluation at or after the rung."""
        try:
            file = (planned.run.path / "metrics.jsonl").stat()
        except OSError:
            return []
        stamp = file.st_mtime_ns, file.st_size
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

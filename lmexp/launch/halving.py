"""Which trials of a search are stopped early: asynchronous successive halving (ASHA, Li et al. 2020).

At each rung, which is a share of the budget, only the best 1/reduction of the trials that have reached it continue. The
values are read from the runs' own curves, so nothing else is stored, and the trials of other coordinators count too. A
trial is compared at the highest rung that it has reached, whenever its curve grows. So a trial that reached a rung
first, and continued because there was nothing to compare it with, is stopped once enough better ones have reached it.
"""

from collections.abc import Callable, Iterable

from lmexp.config.sweeps import SearchSpec
from lmexp.resolve.planned import PlannedRun
from lmexp.runs.directory import RunDir
from lmexp.runs.pruned import Pruned

NEARLY = 1e-9


Predict = Callable[[RunDir, float], float | None]
"""From a run and a share of its budget to the final loss that its curve up to there predicts; None if it does not."""


class Halving:
    """Compares the runs of a search while they train."""

    def __init__(self, spec: SearchSpec, predict: Predict | None = None) -> None:
        assert spec.prune is not None, "a search that prunes"
        ((self.objective, direction),) = spec.objectives.items()
        self.rungs, self._reduction = spec.prune.rungs, spec.prune.reduction
        self._predict = predict if spec.prune.by == "predicted" else None
        assert self._predict or spec.prune.by == "measured", "something predicts"
        self._sign = 1 if direction == "minimize" else -1
        self._read: dict[str, tuple[tuple[int, int], list[tuple[float, float]]]] = {}
        """By run: the time and the size of its curve's file, and its shares and values at the rungs."""
        self._judged: dict[str, tuple[int, int]] = {}
        """By run: the time and the size of the curve that was judged last."""

    def verdict(self, planned: PlannedRun, runs: Iterable[PlannedRun]) -> str | None:
        """Return why a run should be stopped, or None, also if its curve has not grown since the last call."""
        mine = self.values(planned)
        if not mine or self._judged.get(planned.identity) == self._read[planned.identity][0]:
            return None
        self._judged[planned.identity] = self._read[planned.identity][0]
        rung = len(mine) - 1
        value = self._compared(planned, rung)
        there = [other for run in runs if (other := self._compared(run, rung)) is not None]
        keep = len(there) // self._reduction
        if value is None or not keep:
            return None
        last = sorted(there, key=lambda other: self._sign * other)[keep - 1]
        if self._sign * value <= self._sign * last:
            return None
        what = "predicted_loss" if self._predict else self.objective
        return Pruned(self.rungs[rung], what, value, last, keep, len(there)).sentence

    def values(self, planned: PlannedRun) -> list[float]:
        """Return a run's value at each rung that it has reached: the first evaluation at or after the rung."""
        return [value for _, value in self._reached(planned)]

    def _compared(self, planned: PlannedRun, rung: int) -> float | None:
        """Return what a run is compared by at a rung: its value, or its final loss, predicted unless it is known."""
        reached = self._reached(planned)
        if len(reached) <= rung:
            return None
        share, value = reached[rung]
        if self._predict is None:
            return value
        rows = planned.run.read_record()
        return rows[-1].get(self.objective) if rows else self._predict(planned.run, share)

    def _reached(self, planned: PlannedRun) -> list[tuple[float, float]]:
        """Return the share of the budget and the value of the first evaluation at or after each rung."""
        try:
            file = (planned.run.path / "metrics.jsonl").stat()
        except OSError:
            return []
        stamp = file.st_mtime_ns, file.st_size
        known = self._read.get(planned.identity)
        if known is None or known[0] != stamp:
            known = self._read[planned.identity] = stamp, self._evaluations(planned)
        return known[1]

    def _evaluations(self, planned: PlannedRun) -> list[tuple[float, float]]:
        length = planned.horizon
        clock, whole = ("seconds", length.seconds) if length.tokens is None else ("tokens", float(length.tokens))
        assert whole is not None, "a budget is work or time"
        scored = [point for point in planned.run.read_curve() if self.objective in point and clock in point]
        reached = []
        for rung in self.rungs:
            there = [point for point in scored if point[clock] >= (rung - NEARLY) * whole]
            if not there:
                break
            reached.append((there[0][clock] / whole, there[0][self.objective]))
        return reached

"""The speedup in cells that both arms have run, from pairs of runs of equal seed.

How much the baseline would have to spend for the arm's loss, or the arm for the baseline's, is read off

1. the milestones of the two runs, if they have any: at the worse of their two final qualities, which both have reached,
   the better run was earlier (curves.py). This is symmetric: exchanging the arms inverts the result;
2. otherwise a law through the baseline's runs of the group, anchored at the pair's own run: it carries the cost of the
   baseline from its own loss to the arm's (baseline.py);
3. without such a law, the runs of the same group and seed with other budgets, as in 1. Between budgets that are far
   apart, a straight line in logarithms lies above a curve with an asymptote, so the result is too near to 1.

The logarithms of the pairs' ratios are averaged. Pairs of one cell differ by chance, and their scatter gives Student's
t interval; the difference between cells is what the study is about, and no noise. In 3, cells of one group share runs,
so the pairs of a group and seed count as one. If the arms share no seed in a cell, each run of one arm is compared with
each of the other, and the variances of both arms add. With 2, the uncertainty of the law is in the interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from lmexp.analysis.effects.effects import Effect
from lmexp.analysis.effects.pairing import RunPairs
from lmexp.analysis.quantiles import student
from lmexp.analysis.scaling.checks import MAX_BEYOND
from lmexp.analysis.versus.baseline import POOR_FIT, Baseline, baseline_law, in_own_words
from lmexp.analysis.versus.curves import log_speedup
from lmexp.analysis.versus.rows import BUDGET, Key, Rows

Seeds = tuple[Any, Any]
"""The seeds of the baseline's run and of the arm's run."""
BY_MILESTONES, BY_LAW, BY_BUDGETS = range(3)
"""How the speedup of a pair is read off."""
ALL_GROUPS: Key = ("all groups",)
FEW_PAIRS = "There are too few seeds for an interval: train three seeds of each arm in each cell."
HARDLY_A_LAW = "The baseline's points hardly determine its law there: train more budgets of it."


class Mean(NamedTuple):
    """A mean of logarithms with its uncertainty; what a single value does not give is None."""

    value: float
    variance: float | None
    freedom: float


@dataclass(frozen=True)
class Estimate:
    """The logarithm of a speedup, or why it is unknown."""

    value: float | None
    half: float | None = None
    """Half the width of its interval; None if there is none."""
    n: int = 0
    """Pairs of runs, or runs of the arm."""
    sd: float | None = None
    """The standard deviation of one pair's value, for saying how many pairs would decide."""
    why: str | None = None
    """What is missing, as a sentence."""
    by_law: bool = False
    beyond: float = 1.0
    """How many times the baseline's largest cost it would need, if that is more than 1."""


@dataclass(frozen=True, eq=False)
class Paired:
    """All pairs of a baseline and an arm."""

    rows: Rows
    cost: str
    level: float
    """The confidence of intervals."""
    names: tuple[str, str]
    """The baseline and the arm."""
    method: str = field(default="pairs", init=False)

    @cached_property
    def cells(self) -> list[Key]:
        """The cells that both arms have, in the order of the table."""
        return [cell for cell in self._ends[0] if cell in self._ends[1]]

    @property
    def left_out(self) -> int:
        """How many cells only one of the arms has."""
        return len(self._ends[0].keys() ^ self._ends[1].keys())

    def pairs(self, cell: Key) -> list[tuple[Seeds, int, int]]:
        """Return the pairs of a cell: their seeds, and the last row of each run."""
        base, arm = (ends[cell] for ends in self._ends)
        shared = [((seed, seed), base[seed], arm[seed]) for seed in base if seed in arm]
        return shared or [((one, other), base[one], arm[other]) for one in base for other in arm]

    def estimate(self, cells: Sequence[Key]) -> Estimate:
        """Return the mean over some cells. It is unknown if one of their pairs is."""
        logs: dict[Key, dict[Seeds, list[float]]] = {}
        carried: dict[Key, list[tuple[int, int]]] = {}
        n = 0
        for cell in cells:
            for seeds, base, arm in self.pairs(cell):
                value, way = self._log(seeds, base, arm)
                if np.isnan(value):
                    return Estimate(None, n=n, why=self._out_of_reach(seeds, base, arm))
                if way == BY_LAW:
                    carried.setdefault(self.rows.groups[base], []).append((base, arm))
                stratum = ("group", self.rows.groups[base]) if way == BY_BUDGETS else ("cell", cell)
                logs.setdefault(stratum, {}).setdefault(seeds, []).append(value)
                n += 1
        strata = [mean_over_seeds({seeds: float(np.mean(each)) for seeds, each in of.items()}) for of in logs.values()]
        total = mean_over_strata(strata)
        half = self._half(total)
        if half is not None:
            half = math.hypot(half, *(len(of) / n * self._margin(group, of) for group, of in carried.items()))
        sd = None if total.variance is None else math.sqrt(total.variance * sum(len(of) for of in logs.values()))
        known = half is not None and math.isfinite(half)
        why = None if known else FEW_PAIRS if half is None else HARDLY_A_LAW
        return Estimate(total.value, half if known else None, n, sd, why, bool(carried))

    def raw(self, cells: Sequence[Key]) -> float | None:
        """Return the geometric mean over pairs of the ratio of the costs of a token."""
        logs = [self._per_token(base) - self._per_token(arm) for cell in cells for _, base, arm in self.pairs(cell)]
        return float(np.exp(np.mean(logs))) if logs and np.isfinite(logs).all() else None

    def effect(self) -> Effect | None:
        """Return the change of the quality from the baseline to the arm over all cells, whatever the two cost.

        It needs no curve and no law, so it is known if a speedup is not. None if the arms share no seed in a cell.
        """
        rows, ids = self.rows, self.rows.table["run_id"].to_numpy()
        ends = [
            (number, base, arm)
            for number, cell in enumerate(self.cells)
            for (one, other), base, arm in self.pairs(cell)
            if one == other
        ]
        if not ends:
            return None
        cells, base, arm = (tuple(of) for of in zip(*ends, strict=True))
        before, after = (tuple(ids[list(of)]) for of in (base, arm))
        changes = tuple(float(change) for change in rows.qualities[list(arm)] - rows.qualities[list(base)])
        effect = Effect(RunPairs("", *self.names, before, after, cells), changes, None, None)
        return replace(effect, adjusted=effect.p)

    def notes(self) -> list[str]:
        """Return what a reader must know, as sentences."""
        said = []
        for group, law in self._laws.items():  # fitted only if a pair needed it
            if isinstance(law, Baseline):
                said += law_notes(law, self._name_of(group), self.cost)
        if self.left_out:
            said.append(
                f"{self.left_out} cells are left out: only one of the arms has run them."
                if self.left_out > 1
                else "1 cell is left out: only one of the arms has run it."
            )
        return said

    @cached_property
    def _ends(self) -> tuple[dict[Key, dict[Any, int]], dict[Key, dict[Any, int]]]:
        base, arm = self.rows.arms
        return self.rows.ends(base), self.rows.ends(arm)

    @cached_property
    def _laws(self) -> dict[Key, Baseline | str]:
        return {}

    def _law(self, group: Key) -> Baseline | str:
        """Return the baseline's law in a group, or in all groups if each of them is a single cell."""
        rows = self.rows
        of_base = np.flatnonzero(rows.in_base)
        cells = {(rows.cells[i], rows.tokens[i]) for i in of_base}
        is_alone = len(cells) == len({rows.groups[i] for i in of_base})
        key = ALL_GROUPS if is_alone else group
        if key not in self._laws:
            inside = np.array([is_alone or each == group for each in rows.groups])
            self._laws[key] = baseline_law(rows, rows.in_base & inside, self.cost, at_its_best=False)
        return self._laws[key]

    def _name_of(self, group: Key) -> str:
        """Return the name of the baseline in a group."""
        axes = [axis for axis in self.rows.axes if axis.partition(".")[0] != BUDGET]
        if group == ALL_GROUPS or not axes:
            return self.names[0]
        said = ", ".join(f"{axis} {value}" for axis, value in zip(axes, group, strict=True))
        return f"{self.names[0]} with {said}"

    def _log(self, seeds: Seeds, base: int, arm: int) -> tuple[float, int]:
        """Return ln of the speedup of a pair, and the way in which it was read off; NaN if no way is open."""
        rows = self.rows
        level = max(rows.levels[base], rows.levels[arm])
        own = [rows.milestones(end) for end in (base, arm)]
        if any(len(curve.costs) > 1 for curve in own):
            value = log_speedup(own[0], own[1], level)
            if not np.isnan(value):
                return value, BY_MILESTONES
        if rows.levels[base] == rows.levels[arm]:
            return float(np.log(rows.costs[base] / rows.costs[arm])), BY_MILESTONES
        law = self._law(rows.groups[base])
        if isinstance(law, Baseline):
            shift = float(law.change(rows.qualities[[arm]], rows.qualities[[base]])[0])
            if shift + np.log(rows.costs[base]) > law.costs.max() + np.log(MAX_BEYOND):
                return np.nan, BY_LAW
            return shift + float(np.log(rows.costs[base] / rows.costs[arm])), BY_LAW
        of_base = rows.curve(rows.in_base, rows.groups[base], seeds[0])
        of_arm = rows.curve(rows.in_arm, rows.groups[arm], seeds[1])
        return log_speedup(of_base, of_arm, level), BY_BUDGETS

    def _margin(self, group: Key, pairs: Sequence[tuple[int, int]]) -> float:
        """Return half the interval that the law's uncertainty gives the mean over pairs that it carried."""
        law = self._law(group)
        assert isinstance(law, Baseline)
        before, after = (self.rows.qualities[list(rows)] for rows in zip(*pairs, strict=True))
        return law.margin_of_mean(after, self.level, before)

    def _half(self, mean: Mean) -> float | None:
        if mean.variance is None:
            return None
        return float(student(mean.freedom, self.level)) * math.sqrt(mean.variance)

    def _per_token(self, row: int) -> float:
        with np.errstate(divide="ignore"):
            return float(np.log(self.rows.costs[row] / self.rows.tokens[row]))

    def _out_of_reach(self, seeds: Seeds, base: int, arm: int) -> str:
        """Return why a pair says nothing, with the bound that it does give, and which runs would help."""
        rows = self.rows
        is_arm = bool(rows.levels[arm] < rows.levels[base])
        better, worse = (self.names[is_arm], self.names[not is_arm])
        end = arm if is_arm else base
        curve = rows.curve(rows.arms[is_arm], rows.groups[end], seeds[is_arm])
        bound = rows.costs[base] / np.exp(curve.costs[0]) if is_arm else np.exp(curve.costs[0]) / rows.costs[arm]
        said = (
            f"At its first point, {better} is already better than {worse} at its end: the speedup is "
            f"{'above' if is_arm else 'below'} {bound:.3g}. Runs of {better} with a smaller budget, or with earlier "
            "milestones (budget.milestones), would tell"
        )
        law = self._law(rows.groups[base])
        if isinstance(law, Baseline):
            return (
                f"The law of {self.names[0]} does not reach the loss of {better} at up to {MAX_BEYOND:g} times its "
                f"largest {self.cost}. {said}."
            )
        return f"{said}; so would runs of {self.names[0]} with other budgets, for a law. {law}"


def mean_over_seeds(logs: dict[Seeds, float]) -> Mean:
    """Return the mean over the pairs of one stratum, and its variance.

    If the pairs share their seeds, they are independent of each other. If not, the mean is one over all runs of both
    arms, and the variances of the two arms' means add, with Satterthwaite's degrees of freedom.
    """
    values = np.array(list(logs.values()))
    if all(one == other for one, other in logs):
        n = len(values)
        return Mean(float(values.mean()), float(values.var(ddof=1)) / n if n > 1 else None, n - 1)
    parts = []
    for side in (0, 1):
        names = dict.fromkeys(seeds[side] for seeds in logs)
        means = np.array([np.mean([value for seeds, value in logs.items() if seeds[side] == name]) for name in names])
        if len(means) < 2:
            return Mean(float(values.mean()), None, 0)
        parts.append((float(means.var(ddof=1)) / len(means), len(means) - 1))
    return Mean(float(values.mean()), *_added(parts))


def mean_over_strata(strata: Sequence[Mean]) -> Mean:
    """Return the mean over strata; if one of them has no variance, the scatter between strata gives it."""
    values = np.array([stratum.value for stratum in strata])
    if all(stratum.variance is not None for stratum in strata):
        variance, freedom = _added([(stratum.variance or 0.0, stratum.freedom) for stratum in strata])
        return Mean(float(values.mean()), variance / len(strata) ** 2, freedom)
    n = len(strata)
    return Mean(float(values.mean()), float(values.var(ddof=1)) / n if n > 1 else None, n - 1)


def _added(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the sum of variances, with Satterthwaite's degrees of freedom."""
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return 0.0, sum(freedom for _, freedom in parts)
    return total, total**2 / sum(variance**2 / freedom for variance, freedom in parts)


def law_notes(law: Baseline, name: str, cost: str) -> list[str]:
    """Return what a reader must know of a baseline's law, as sentences."""
    said = [
        f"The law of {name}: L = E + A C^-alpha with E = {law.fit.theta['E']:.4g} and alpha = "
        f"{law.fit.theta['alpha']:.3g}, C = {cost}; its residuals have a standard deviation of {law.fit.residual:.2%}."
    ]
    if law.lack_of_fit is not None and law.lack_of_fit < POOR_FIT:
        said.append(
            f"The law does not fit: the points of {name} lie farther from it than their seeds from each other "
            f"(p = {law.lack_of_fit:.2g}). It is anchored at the points, so it errs most between and beyond them."
        )
    return said + [in_own_words(warning, cost) for warning in law.fit.warnings]

"""The speedup of an arm that shares no cell with the baseline, from a law through the baseline's points.

For each of the arm's cells: (what the baseline would have to spend for the cell's mean loss, by its anchored law) /
(what the arm spent). The interval has three parts, which are independent of each other: the law's parameters, by the
refits of the fit; the noise of the seeds at the points that anchor the law; and that of the arm's own runs. A per cent
of noise in a loss is as many per cent of cost as the law's slope there says. The noise is pooled over the seeds of both
arms, or is the scatter about the law if no cell has two seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.analysis.effects.noise import pooled
from lmexp.analysis.frontier import undominated
from lmexp.analysis.quantiles import student
from lmexp.analysis.scaling.checks import FAR, MAX_BEYOND
from lmexp.analysis.versus.baseline import Baseline, baseline_law
from lmexp.analysis.versus.paired import HARDLY_A_LAW, Estimate, law_notes
from lmexp.analysis.versus.rows import Key, Rows
from lmexp.units import counted


@dataclass(frozen=True, eq=False)
class ByLaw:
    """An arm against the law of a baseline."""

    rows: Rows
    cost: str
    level: float
    names: tuple[str, str]
    method: str = field(default="law", init=False)

    @cached_property
    def cells(self) -> list[Key]:
        """The arm's cells; if it has several groups, such as sizes, those on its own frontier of loss and cost."""
        ends = self._ends
        if len({self.rows.groups[next(iter(of.values()))] for of in ends.values()}) < 2:
            return list(ends)
        points = np.array([[-np.inf, 0.0] for _ in ends])
        for at, of_cell in enumerate(ends.values()):
            points[at] = self._loss(of_cell), self._log_cost(of_cell)
        return [cell for cell, kept in zip(ends, undominated(points), strict=True) if kept]

    def estimate(self, cells: Sequence[Key]) -> Estimate:
        """Return the mean over some cells of the arm."""
        of_cells = [self._ends[cell] for cell in cells]
        n = sum(map(len, of_cells))
        if isinstance(self.law, str):
            return Estimate(
                None,
                n=n,
                why=f"The arms share no cell, and there is no law. {self.law} More runs of {self.names[0]} "
                "at other budgets would give one; so would runs of both arms in the same cells.",
            )
        losses = np.array([self._loss(one) for one in of_cells])
        needed = self.law.cost_at(losses)
        largest = float(self.rows.costs[self.rows.in_base].max())
        beyond = float(np.exp(np.nanmax(needed)) / largest) if np.isfinite(needed).any() else np.inf
        if np.isnan(needed).any() or beyond > MAX_BEYOND:
            return Estimate(None, n=n, why=self._out_of_reach(beyond), by_law=True)
        value = float(np.mean(needed - [self._log_cost(one) for one in of_cells]))
        half = math.hypot(self.law.margin_of_mean(losses, self.level), self._noise_half(losses, of_cells))
        known = math.isfinite(half)
        why = None if known else HARDLY_A_LAW
        return Estimate(value, half if known else None, n, None, why, True, max(beyond, 1.0))

    def raw(self, cells: Sequence[Key]) -> float | None:
        """Return None: without shared cells, no two tokens compare."""
        return None

    def notes(self) -> list[str]:
        """Return what a reader must know, as sentences."""
        if isinstance(self.law, str):
            return []
        said = ["The arms share no cell, so the arm is compared with a law through the baseline's points."]
        if len(self.cells) < len(self._ends):
            left = len(self._ends) - len(self.cells)
            said.append(
                f"Left out: {counted(left, 'cell', of=len(self._ends))} of {self.names[1]}, not on its own frontier."
            )
        said += law_notes(self.law, self.names[0], self.cost)
        far = self.estimate(self.cells).beyond
        if far > 1.005:
            guess = ", which is a guess" if far > FAR else ""
            said.append(f"The law is used up to {far:.3g} times beyond the largest {self.cost} of the baseline{guess}.")
        return said

    @cached_property
    def law(self) -> Baseline | str:
        """The baseline's law, or why there is none."""
        return baseline_law(self.rows, self.rows.in_base, self.cost, at_its_best=True)

    @cached_property
    def _ends(self) -> dict[Key, dict[Any, int]]:
        return self.rows.ends(self.rows.in_arm)

    @cached_property
    def _noise(self) -> tuple[float, float]:
        """The standard deviation of ln L of one run, and its degrees of freedom."""
        logs = np.log(self.rows.qualities)
        cells = [list(of.values()) for arm in self.rows.arms for of in self.rows.ends(arm).values()]
        noise = pooled([logs[one] for one in cells])
        if noise is not None:
            return noise.sd, noise.df
        assert isinstance(self.law, Baseline)
        return self.law.fit.residual, max(self.law.fit.n_units - len(self.law.fit.theta), 1)

    def _noise_half(self, losses: Floats, of_cells: Sequence[dict[Any, int]]) -> float:
        """Return half the interval that the noise of the arm's runs and of the anchors gives the mean."""
        assert isinstance(self.law, Baseline)
        sd, freedom = self._noise
        slopes = self.law.slope(losses)
        of_arm = float(np.sum(slopes**2 / [len(one) for one in of_cells]))
        anchors = slopes @ self.law.weights(losses)
        of_base = float(np.sum(anchors**2 / self.law.seeds))
        return float(student(freedom, self.level)) * sd * math.sqrt(of_arm + of_base) / len(losses)

    def _loss(self, of_cell: dict[Any, int]) -> float:
        return float(np.exp(self.rows.levels[list(of_cell.values())].mean()))

    def _log_cost(self, of_cell: dict[Any, int]) -> float:
        return float(np.log(self.rows.costs[list(of_cell.values())]).mean())

    def _out_of_reach(self, beyond: float) -> str:
        base, arm = self.names
        if math.isfinite(beyond) and beyond > MAX_BEYOND:
            far = f"{beyond:.3g} times beyond the largest {self.cost} of {base}, which is too far for its law"
        else:
            far = f"below the asymptote of the law of {base}, which never reaches it"
        return f"The loss of {arm} lies {far}. Runs of {base} with larger budgets would tell."

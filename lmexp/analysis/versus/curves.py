"""What quality costs in one arm: a curve through its points, and the cost at which it first reaches a level.

A level is ln of a quality of which less is better, such as a loss, or minus a quality of which more is better. So less
is always better here. Between two points, the level is interpolated linearly in the logarithm of the cost. Beyond its
points, a curve says nothing.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats, Marks

Ints = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Curve:
    """Points of one arm in the order of rising cost."""

    costs: Floats
    """(k,) distinct ln of the cost."""
    levels: Floats
    """(k,) the level of the mean quality at each."""

    @classmethod
    def of(cls, costs: Floats, qualities: Floats, higher_is_better: bool = False) -> "Curve":
        """Return the curve through points (n,) in any order; points of equal cost count by their mean quality."""
        at, group = np.unique(np.log(costs), return_inverse=True)
        means = np.bincount(group, qualities, len(at)) / np.bincount(group, minlength=len(at))
        return cls(at, levels_of(means, higher_is_better))

    def cost_at(self, level: float) -> float:
        """Return ln of the cost at which the curve first reaches a level.

        It is NaN if the curve never reaches it, or reaches it before its first point.
        """
        reached = self.levels <= level
        if not reached.any():
            return np.nan
        first = int(np.argmax(reached))
        if self.levels[first] == level:
            return float(self.costs[first])
        if first == 0:
            return np.nan
        share = (self.levels[first - 1] - level) / (self.levels[first - 1] - self.levels[first])
        return float(self.costs[first - 1] + share * (self.costs[first] - self.costs[first - 1]))


def levels_of(qualities: Floats, higher_is_better: bool = False) -> Floats:
    """Return the levels (n,) of qualities."""
    return -qualities if higher_is_better else np.log(qualities)


def log_speedup(base: Curve, arm: Curve, level: float) -> float:
    """Return ln of (cost of `base`) / (cost of `arm`) at a level; NaN if one of them does not have it inside."""
    return base.cost_at(level) - arm.cost_at(level)


def tuned(rows: Marks, tokens: Floats, level: Floats, cell: Ints, setting: Floats) -> Marks:
    """Return which of some rows (n,) have the best value of a setting (n,) in their cell (n,).

    It is the value with the lowest mean level among the rows with the most tokens of the cell.
    """
    best = np.zeros_like(rows)
    for number in np.unique(cell[rows]):
        inside = rows & (cell == number)
        last = inside & (tokens >= tokens[inside].max() * (1 - 1e-9))
        values = np.unique(setting[last])
        lowest = values[np.argmin([level[last & (setting == value)].mean() for value in values])]
        best |= inside & (setting == lowest)
    return best

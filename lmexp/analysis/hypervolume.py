"""The hypervolume: one number for the quality of a frontier, and the only one that never prefers a dominated frontier.

It is the volume of the region that the frontier dominates and that dominates a reference point (Zitzler and Thiele,
1998). It is exact for two and for three columns. With three, points are added in the order of the third column, and
each slab contributes the area under the staircase of the first two columns so far.

The reference is the frontier's worst value in each column, moved away by a tenth of the frontier's range (the usual
choice: Ishibuchi et al., Evolutionary Computation 26(3), 2018, section 3). It depends on the frontier alone, so a
dominated run changes nothing. To compare two studies, give both the same reference.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Floats
from lmexp.analysis.frontier import Names, is_done, names_of, objectives, undominated
from lmexp.analysis.rankable import obstacles
from lmexp.errors import UserError
from lmexp.runs.columns import higher_is_better as known_direction

MARGIN = 0.1
"""Distance of the reference from the frontier's worst value, as a share of the frontier's range."""


@dataclass(frozen=True)
class Hypervolume:
    """A hypervolume and the reference that it was measured against."""

    value: float
    """In the product of the columns' units, such as nats x seconds."""
    share: float | None
    """Share of the box between the frontier's best values and the reference; None if the box has no volume."""
    reference: dict[str, float]
    """Column -> value."""


def hypervolume(
    table: pd.DataFrame, quality: Names, cost: Names, reference: Mapping[str, float] | None = None
) -> Hypervolume | None:
    """Return the hypervolume of all finished rows, which must compare (rankable.py).

    It is None if no row has a number in every column. Rows that are not better than the reference in every column add
    nothing. Raises UserError unless there are two or three columns, for a reference that lacks one of them, and for a
    table with several tasks or texts.
    """
    names = list(dict.fromkeys([*names_of(quality), *names_of(cost)]))
    if len(names) not in (2, 3):
        raise UserError(f"a hypervolume is measured over two or three columns, not {len(names)}: {', '.join(names)}")
    if "task" in table and table.loc[is_done(table), "task"].nunique() > 1:
        raise UserError("a hypervolume needs runs of one task: these runs are of several")
    if reasons := [reason for name in names for reason in obstacles(table[is_done(table)], name)]:
        raise UserError(f"a hypervolume needs runs that compare. {reasons[0]}")
    losses = objectives(table, quality, cost)
    losses = losses[is_done(table) & np.isfinite(losses).all(axis=1)]
    if not len(losses):
        return None
    points = np.unique(losses[undominated(losses)], axis=0)
    signs = np.array([-1.0 if known_direction(name) else 1.0 for name in names])
    best, worst = points.min(axis=0), points.max(axis=0)
    corner = worst + MARGIN * (worst - best)
    if reference is not None:
        missing = [name for name in names if name not in reference]
        if missing:
            raise UserError(f"the reference says nothing of {', '.join(missing)}")
        corner = signs * np.array([float(reference[name]) for name in names])
    box = float(np.prod(np.maximum(corner - best, 0)))
    value = volume(points, corner)
    return Hypervolume(value, value / box if box else None, dict(zip(names, (signs * corner).tolist(), strict=True)))


def volume(points: Floats, corner: Floats) -> float:
    """Return the volume of the region between the points (n, 2 or 3) and the corner; smaller values are better."""
    points = points[(points < corner).all(axis=1)]
    if not len(points):  # for example a single point, which is its own corner
        return 0.0
    if points.shape[1] == 2:
        points = np.column_stack([points, np.zeros(len(points))])
        corner = np.append(corner, 1.0)
    ordered = points[np.argsort(points[:, 2], kind="stable")]
    stairs: list[tuple[float, float]] = []  # x goes up, y goes down
    total = area = 0.0
    for (x, y, _), z, above in zip(ordered, ordered[:, 2], [*ordered[1:, 2], corner[2]], strict=True):
        area += _gained(stairs, (float(x), float(y)), float(corner[0]), float(corner[1]))
        total += area * float(above - z)
    return total


def _gained(stairs: list[tuple[float, float]], point: tuple[float, float], right: float, top: float) -> float:
    """Insert a point into a staircase, remove the points that it dominates, and return the area gained."""
    x, y = point
    at = bisect_left(stairs, point)
    ceiling = stairs[at - 1][1] if at else top
    if ceiling <= y or (at < len(stairs) and stairs[at] == point):
        return 0.0
    end = at
    while end < len(stairs) and stairs[end][1] >= y:
        end += 1
    # The old ceiling falls step by step from x to the first stair that stays.
    edges = [(x, ceiling), *stairs[at:end], (stairs[end][0] if end < len(stairs) else right, y)]
    del stairs[at:end]
    insort(stairs, point)
    return sum((after[0] - before[0]) * (before[1] - y) for before, after in pairwise(edges))

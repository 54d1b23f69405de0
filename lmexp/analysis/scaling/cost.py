"""Loss against any one cost: FLOPs, seconds, dollars, kWh. A power law with a floor, on the runs that are worth it.

Many runs reach no more than a cheaper one does. What a cost buys is what the best choice buys, so the law is fitted to
the frontier: the runs that no other beats on both loss and cost. The frontier of the runs is taken once, before the
bootstrap: the intervals leave out which runs would have been on it.
"""

import numpy as np
import pandas as pd

from lmexp.analysis.frontier import frontier
from lmexp.analysis.scaling.points import Points
from lmexp.errors import UserError, nearest

MIN_RUNS = 5
"""Runs on the frontier: the law has three numbers."""
FEW_DECADES = 1.0


def on_frontier(points: Points, cost: str) -> Points:
    """Return the points on the frontier of loss against `cost`, `flops` or one of `points.costs`.

    Raises UserError for a cost that was not measured, and for fewer than MIN_RUNS points on the frontier.
    """
    columns = {"train_flops": points.flops, **points.costs}
    name = "train_flops" if cost == "flops" else cost
    if name not in columns or not np.isfinite(columns[name]).any():
        raise UserError(f"no run has '{cost}' as a cost.{nearest(cost, columns)} Measured here: {', '.join(columns)}")
    marks = frontier(pd.DataFrame({"loss": points.loss, "cost": columns[name]}), "loss", "cost").to_numpy()
    if marks.sum() < MIN_RUNS:
        raise UserError(
            f"{int(marks.sum())} of {len(points)} runs are on the frontier of loss against {cost}: "
            f"a law takes {MIN_RUNS} at least"
        )
    return points.where(marks)


def warnings(points: Points, cost: str) -> tuple[str, ...]:
    """Return what weakens a law of loss against `cost` on these points of the frontier."""
    values = points.flops if cost in ("flops", "train_flops") else points.costs[cost]
    decades = float(np.log10(values.max() / values.min()))
    if decades >= FEW_DECADES:
        return ()
    return (f"The frontier spans {decades:.1f} decades of {cost}: under {FEW_DECADES:g} its power is hardly known.",)

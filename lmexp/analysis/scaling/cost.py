"""A power law with a floor of loss against one cost, such as FLOPs, seconds, dollars or kWh, fitted to the frontier.

Many runs are no better than a cheaper run. What a cost buys is the loss of the best run for it, so the law is fitted
to the frontier: the runs that no other run beats in both loss and cost. The frontier is computed once, before the
bootstrap, so the intervals do not include the uncertainty about which runs lie on it.
"""

import numpy as np
import pandas as pd

from lmexp.analysis.frontier import frontier
from lmexp.analysis.scaling.points import Points
from lmexp.errors import UserError, nearest

MIN_RUNS = 5
"""Fewest runs on the frontier: the law has three unknowns."""
FEW_DECADES = 1.0


def on_frontier(points: Points, cost: str) -> Points:
    """Return the points on the frontier of loss against `cost`, which is `flops` or a key of `points.costs`.

    Raises UserError if the cost was not measured, or if the frontier has fewer than MIN_RUNS points.
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
    """Return warnings about what weakens a law of loss against `cost` on these points of the frontier."""
    values = points.flops if cost in ("flops", "train_flops") else points.costs[cost]
    decades = float(np.log10(values.max() / values.min()))
    if decades >= FEW_DECADES:
        return ()
    return (f"The frontier spans {decades:.1f} decades of {cost}: under {FEW_DECADES:g} its power is hardly known.",)

"""A power law with a floor of loss against one cost, such as FLOPs, seconds, dollars or kWh, fitted to the frontier.

Many runs are no better than a cheaper run. What a cost buys is the loss of the best run for it, so the law is fitted
to the frontier: the runs that no other run beats in both loss and cost. Measured losses would pick the lucky ones among
many runs, so runs are compared by the loss that Chinchilla's law, fitted to all of them, gives for their size and
tokens; the measured losses of the chosen runs are then fitted. Where the points do not identify that law, measured
losses are compared, and a warning says so. The frontier is computed once, before the bootstrap, so the intervals do not
include the uncertainty about which runs lie on it.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Floats
from lmexp.analysis.frontier import frontier
from lmexp.analysis.scaling import checks, solver
from lmexp.analysis.scaling.calibrate import MIN_SPARE
from lmexp.analysis.scaling.fit import WORST_CONDITION
from lmexp.analysis.scaling.laws import chinchilla
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.precision import Precisions
from lmexp.analysis.scaling.surface import Surface
from lmexp.errors import UserError, nearest
from lmexp.units import counted

MIN_RUNS = 5
"""Fewest runs on the frontier: the law has three unknowns."""
FEW_DECADES = 1.0
ANY = chinchilla.irreducible
"""An E without bounds but 0."""


def on_frontier(points: Points, cost: str, irreducible: tuple[float, float] = ANY) -> Points:
    """Return the points on the frontier of loss against `cost`, which is `flops` or a key of `points.costs`.

    `irreducible` bounds the E of the law that the runs are compared by.

    Raises UserError if the cost was not measured, or if the frontier has fewer than MIN_RUNS points.
    """
    columns = {"train_flops": points.flops, **points.costs}
    name = "train_flops" if cost == "flops" else cost
    if name not in columns or not np.isfinite(columns[name]).any():
        raise UserError(f"no run has '{cost}' as a cost.{nearest(cost, columns)} Measured here: {', '.join(columns)}")
    expected = expected_losses(points, irreducible)
    losses = points.loss if expected is None else expected
    marks = frontier(pd.DataFrame({"loss": losses, "cost": columns[name]}), "loss", "cost").to_numpy()
    if marks.sum() < MIN_RUNS:
        raise UserError(
            f"{counted(int(marks.sum()), 'run', 'is', of=len(points))} on the frontier of loss against {cost}: "
            f"a law takes {MIN_RUNS} at least"
        )
    if expected is None:
        said = "Size and tokens do not show which runs were lucky, so the losses on the frontier may be too low."
        points = replace(points, warnings=(*points.warnings, said))
    return points.where(marks)


def expected_losses(points: Points, irreducible: tuple[float, float] = ANY) -> Floats | None:
    """Return the loss (n,) of each point without its noise, by Chinchilla's law; None if that law is not identified."""
    if checks.refusals(points) or points.n_units < len(chinchilla.parameters) + MIN_SPARE:
        return None
    surface = Surface.of(chinchilla.with_irreducible(irreducible), points, Precisions.all_of(points))
    best = solver.solve(surface, points.relative_weights)[0].parameters[:1]
    if not solver.condition(surface, best) < WORST_CONDITION:
        return None
    return points.loss * np.exp(surface.residual(best)[0])


def warnings(points: Points, cost: str) -> tuple[str, ...]:
    """Return warnings about what weakens a law of loss against `cost` on these points of the frontier."""
    values = points.flops if cost in ("flops", "train_flops") else points.costs[cost]
    decades = float(np.log10(values.max() / values.min()))
    if decades >= FEW_DECADES:
        return ()
    return (f"The frontier spans {decades:.1f} decades of {cost}: under {FEW_DECADES:g} its power is hardly known.",)

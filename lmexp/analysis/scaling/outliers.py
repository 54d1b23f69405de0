"""Rows that no noise explains: which they are, and what the fit would say without them.

Huber's loss limits what one row can do, but a mistyped loss is not noise, and a reader must know of it. The scale is
robust (1.4826 MAD of the residuals), so that outliers do not hide themselves by widening it.
"""

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling import solver
from lmexp.analysis.scaling.law_fit import LawFit
from lmexp.analysis.scaling.own_law import surface_of
from lmexp.analysis.scaling.points import Points

FAR_OFF = 6.0
"""Robust standard deviations: normal noise goes this far once in 500 million rows."""
MIN_OFF = 0.003
"""A residual of less than 0.3 % is no mistake, however exact the other rows are."""
MAX_NAMED = 5


def deviations(law: LawFit, points: Points) -> Floats:
    """Return how many robust standard deviations each loss (n,) lies above the law; 0 if it is within MIN_OFF."""
    residual = np.nan_to_num(np.log(points.loss / law.fitted(points)))  # NaN where a column of the law has no number
    off = residual - np.median(residual)
    scale = solver.MAD_TO_DEVIATION * float(np.median(np.abs(off)))
    return np.where(np.abs(residual) < MIN_OFF, 0.0, off / max(scale, MIN_OFF / FAR_OFF))


def theta_without(law: LawFit, points: Points, rows: npt.NDArray[np.bool_]) -> Floats:
    """Return the law's own parameters (k,) if it is fitted without some rows (n,)."""
    surface = surface_of(law.law, points, [effect.on(points) for effect in law.effects])
    solution, _ = solver.solve(surface, np.where(rows, 0.0, points.relative_weights), law.delta)
    return surface.theta(solution.parameters[:1])[0, : len(law.law.parameters)]


def named(points: Points, off: Floats) -> str:
    """Return the rows that are far off, the furthest first, each with its deviation: `line 7 (+41), line 9 (-8)`."""
    order = [int(row) for row in np.argsort(-np.abs(off)) if abs(off[row]) > FAR_OFF]
    shown = ", ".join(f"{points.name_of(row)} ({off[row]:+.0f})" for row in order[:MAX_NAMED])
    return shown + (f" and {len(order) - MAX_NAMED} more" if len(order) > MAX_NAMED else "")

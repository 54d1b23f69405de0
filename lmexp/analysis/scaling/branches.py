"""Rows of one training run that a table does not mark as such: their noise is shared, so they are no separate runs.

If each size has several numbers of tokens, they may be separate runs, or branches and milestones of one trunk. Taken
for runs, branches give intervals that hold the truth about half of the time. Nothing but the residuals can tell: the
noise of a trunk moves all of its rows together, so the residuals of a size agree more than chance allows.
"""

import numpy as np

from lmexp.analysis.quantiles import f_tail
from lmexp.analysis.scaling import solver
from lmexp.analysis.scaling.checks import size_of
from lmexp.analysis.scaling.laws import chinchilla
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.surface import Surface

CHANCE = 0.01
"""The rows of a size count as branches if chance makes residuals so alike in fewer than this share of studies."""
OF_SIZES = 3
"""Number of parameters of the law that follow the sizes' own mean residuals: E, A and alpha."""
MIN_ROWS = 2.0
"""Fewest rows per size, on average, that can show shared noise."""
QUESTION = (
    "If the rows of a size come from one training run (branches, milestones), name the column that says so with "
    "--unit; if every row is a run of its own, say --unit row."
)


def question(points: Points) -> str:
    """Return the question whether rows of one size are branches of one run, or '' if the table answers it."""
    if points.units_named or len(points) < MIN_ROWS * (size_of(points.params).max() + 1):
        return ""
    return QUESTION


def in_units(points: Points) -> Points:
    """Return the points with the rows of a size as one unit if their residuals share noise, and a warning then."""
    if not question(points) or shared_noise(points) >= CHANCE:
        return points
    sizes = size_of(points.params)
    said = (
        "Rows of one size are off the law in the same direction, as branches of one training run are, and no column "
        f"says which rows are one run. So each size counts as one unit, which widens the intervals. {QUESTION}"
    )
    return points.with_units(np.array([f"size {size}" for size in sizes]), said)


def shared_noise(points: Points) -> float:
    """Return how often chance alone makes the residuals of a size so alike: p of the F-test between and within sizes.

    The residuals are those of Chinchilla's law. The law itself absorbs part of what sizes share, so the degrees of
    freedom between sizes are fewer by OF_SIZES. The result is 1 if there are too few sizes or rows to tell.
    """
    sizes = size_of(points.params)
    n_sizes = int(sizes.max()) + 1
    between, within = n_sizes - OF_SIZES, len(points) - n_sizes - (len(chinchilla.parameters) - OF_SIZES)
    if between < 1 or within < 1:
        return 1.0
    surface = Surface.of(chinchilla, points)
    residual = surface.residual(solver.solve(surface, points.relative_weights)[0].parameters[:1])[0]
    counts = np.bincount(sizes)
    means = np.bincount(sizes, residual) / counts
    inside = float(((residual - means[sizes]) ** 2).sum())
    if inside == 0:
        return 1.0
    ratio = float((counts * means**2).sum()) / between / (inside / within)
    return f_tail(ratio, between, within)

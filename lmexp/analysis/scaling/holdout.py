"""How well a law that was fitted to the smaller runs predicts the largest: an error that its interval does not show."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.points import Points

Bools = npt.NDArray[np.bool_]

SHARE = 0.2
"""The share of the runs that is held out: those with the most compute."""


@dataclass(frozen=True)
class Holdout:
    """How well a law predicts the fifth of the runs with the most compute, which it was not fitted to.

    Errors are relative.
    """

    n_points: int
    """How many runs were held out."""
    flops_from: float
    """The held-out runs have at least this much compute."""
    bias: float
    """Mean of predicted/measured - 1. If it is above 0, the predicted losses are too high."""
    mean_absolute_error: float
    """Mean of |predicted/measured - 1|."""
    coverage: float
    """Share of the measured losses inside the law's 95 % interval for a single run."""


def largest(points: Points) -> Bools:
    """Return a mask (n,) of the points to hold out: the fifth with the most compute, ties included.

    Points of the same runs as these are not held out, and must not be fitted either.
    """
    count = max(round(SHARE * len(points)), 1)
    return points.flops >= np.sort(points.flops)[-count]


def judge(points: Points, value: Floats, low: Floats, high: Floats) -> Holdout:
    """Return the errors of a prediction for held-out points.

    `value`, `low` and `high` (n,) are the predicted losses and the bounds of the interval for a single run.
    """
    error = value / points.loss - 1
    inside = (low <= points.loss) & (points.loss <= high)
    return Holdout(
        n_points=len(points),
        flops_from=float(points.flops.min()),
        bias=float(error.mean()),
        mean_absolute_error=float(np.abs(error).mean()),
        coverage=float(inside.mean()),
    )

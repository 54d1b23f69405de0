"""How well a law, fitted to the smaller runs, predicts the largest: the error that its own interval cannot know."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.points import Points

Bools = npt.NDArray[np.bool_]

SHARE = 0.2
"""The part of the runs that is held out: those of the most compute."""


@dataclass(frozen=True)
class Holdout:
    """How a law, fitted to the rest, predicts the losses of the largest fifth of compute; errors are relative."""

    n_points: int
    """How many runs were held out."""
    flops_from: float
    """They are the runs with at least so much compute."""
    bias: float
    """Mean of predicted over measured, less 1: above 0, the law predicts too high a loss."""
    mean_absolute_error: float
    """Mean of the size of predicted over measured less 1."""
    coverage: float
    """Share of these losses that lie inside the law's 95 % interval for a single run."""


def largest(points: Points) -> Bools:
    """Return which points (n,) are held out: the fifth with the most compute, and what ties with them."""
    count = max(round(SHARE * len(points)), 1)
    return points.flops >= np.sort(points.flops)[-count]


def judge(points: Points, value: Floats, low: Floats, high: Floats) -> Holdout:
    """Return the error of losses predicted for held-out points, (n,) each, with the bounds for a single run."""
    error = value / points.loss - 1
    inside = (low <= points.loss) & (points.loss <= high)
    return Holdout(
        n_points=len(points),
        flops_from=float(points.flops.min()),
        bias=float(error.mean()),
        mean_absolute_error=float(np.abs(error).mean()),
        coverage=float(inside.mean()),
    )

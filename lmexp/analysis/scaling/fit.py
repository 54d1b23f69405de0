"""A fit: each law with its intervals, its error on runs held out, and what must be known before it is believed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lmexp.analysis.scaling.laws import DEFAULT_LAWS, FLOPS_PER_TOKEN, Law
from lmexp.analysis.scaling.points import Points

Floats = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A number and its 95 % interval; each of the three has the shape of what was asked."""

    value: Floats
    low: Floats
    high: Floats


class Optimum(NamedTuple):
    """The best use of a budget, each with its interval."""

    params: Estimate
    tokens: Estimate
    loss: Estimate


@dataclass(frozen=True)
class Holdout:
    """How a law, fitted to the smaller runs, foretells those of the largest fifth of compute; errors are relative."""

    n_points: int
    flops_from: float
    bias: float
    """Mean of predicted over measured less 1: above 0, the law foretells too high a loss."""
    mean_absolute_error: float
    coverage: float
    """Share of held-out losses inside the law's 95 % interval for a single run."""


@dataclass(frozen=True, eq=False)
class LawFit:
    """One law, fitted."""

    law: Law
    theta: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    samples: Floats
    objective: float
    delta: float
    n_points: int
    n_units: int
    condition: float
    """Condition number of the scaled Hessian at the optimum."""
    residual: float
    """Standard deviation of ln(measured/predicted), corrected for the parameters fitted."""
    holdout: Holdout | None
    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def loss(self, *inputs: npt.ArrayLike, precision: str | None = None) -> Estimate:
        """Return the law's loss: where the mean of many such runs lies."""
        raise NotImplementedError

    def prediction(self, *inputs: npt.ArrayLike, precision: str | None = None) -> Estimate:
        """Return the loss of one new run: the law's loss with a run's own noise around it."""
        raise NotImplementedError

    def optimum(
        self, flops: npt.ArrayLike, flops_per_token: float = FLOPS_PER_TOKEN, precision: str | None = None
    ) -> Optimum:
        """Return N*, D* and L* of a budget under C = flops_per_token N D."""
        raise NotImplementedError

    def for_serving(self, loss: npt.ArrayLike, served: npt.ArrayLike, precision: str | None = None) -> Optimum:
        """Return the N and D of least 6ND + 2NT that reach `loss`."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Fit:
    """All laws fitted to one set of points."""

    points: Points
    laws: dict[str, LawFit]
    warnings: tuple[str, ...] = ()
    refusals: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Law name to why it is not in `laws`."""

    def spread(self, flops: float, flops_per_token: float = FLOPS_PER_TOKEN) -> dict[str, float]:
        """Return highest over lowest of the laws' params, tokens and loss at the optimum of a budget."""
        raise NotImplementedError


def fit(
    points: Points,
    laws: Sequence[Law | str] = DEFAULT_LAWS,
    delta: float | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fit laws to points. Raises UserError for points that no law can be fitted to."""
    raise NotImplementedError

"""Least squares of a curve with bounds, many weighted fits at once: an optimum and its refits to resampled units.

scipy.optimize.curve_fit does one fit at a time and takes minutes for a thousand refits. This is the same method,
Levenberg and Marquardt's, on a batch; a parameter at a bound is held there while the objective falls outwards. The
tests compare the optimum with scipy's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmexp.analysis.arrays import Floats, Marks
from lmexp.analysis.scaling.bootstrap import FEW_UNITS, drawn_units, margin, unit_indices, units_but_one
from lmexp.analysis.scaling.calibrate import FEW_SPARE, MIN_SPARE, calibrate_linear
from lmexp.analysis.scaling.points import Texts
from lmexp.errors import UserError

ITERATIONS = 300
TOLERANCE = 1e-12
"""A step that lowers the objective by a smaller share than this ends the search."""
GAUSS_NEWTON = 1e-3
"""With more damping than this a small step does not mean that the optimum is near."""
EASIEST, HARDEST = 1e-12, 1e12
"""Range of Marquardt's damping; at its end no step helps any more."""
EXACT = 1e-9
"""Residuals below this share of the largest value are of numbers without noise, whose intervals need no simulation."""
MAX_WIDENED = 5.0
"""If simulations ask for intervals wider by more than this factor, there are too few runs for an interval."""


@dataclass(frozen=True)
class Curve:
    """A function of one variable with parameters, and their bounds."""

    value: Callable[[Floats, Floats], Floats]
    """The values (batch, n) at x (n,), with parameters (batch, k)."""
    gradient: Callable[[Floats, Floats], Floats]
    """Its derivatives (batch, n, k) by the parameters."""
    low: Floats
    """The least that each parameter may be: (k,), or (batch, k) for refits with bounds of their own."""
    high: Floats


@dataclass(frozen=True, eq=False)
class Fitted:
    """An optimum with what its intervals follow from."""

    theta: Floats
    """(k,)"""
    refits: Floats
    """(r, k) the optima for resampled units."""
    n_units: int
    widened: float
    """Factor by which intervals are wider, because there are few units (calibrate.py)."""
    coverage: float | None
    """How often intervals that are not widened hold the truth in simulations; None if there are enough units."""
    residual: float
    """Standard deviation of the residuals, corrected for the number of parameters."""
    at_bound: Marks
    """(k,)"""
    freedom: int
    """Points less parameters, at least 1."""

    def half(self, value: Floats, refits: Floats) -> Floats:
        """Return half the width of the 95 % interval of a number (...) from its refits (r, ...)."""
        return self.widened * margin(value, np.where(np.isnan(refits), np.inf, refits), self.n_units)


def fit_curve(
    curve: Curve,
    x: Floats,
    y: Floats,
    unit: Texts,
    starts: Floats,
    name: str,
    draws: Floats,
    n_units: int = 0,
    of_refits: Curve | None = None,
) -> Fitted:
    """Return the least-squares fit of a curve to y (n,) at x (n,), from the best of several starts (s, k).

    `draws` (r, n) are the weights of the refits, of which `n_units` were resampled [default: the units here, `unit`
    (n,)]. `of_refits` is the curve with bounds of its own for each refit. A parameter whose bounds are equal is known.
    Raises UserError if there are too few units for an interval.
    """
    known = curve.low == curve.high
    k, here = int((~known).sum()), len(np.unique(unit))
    if here < k + MIN_SPARE:
        raise UserError(f"{name} has {k} numbers to find, and {here} runs are too few: it takes {k + MIN_SPARE}")
    even = np.ones((len(starts), len(x)))
    tried = descend(curve, x, y, even, starts)
    theta = tried[np.argmin(_objective(curve, x, y, even, tried))]
    refits = descend(of_refits or curve, x, y, draws, np.repeat(theta[None], len(draws), axis=0))
    off = y - curve.value(x, theta[None])[0]
    freedom = max(len(x) - k, 1)
    residual = float(np.sqrt((off**2).sum() / freedom))
    at_bound = ((theta <= curve.low) | (theta >= curve.high)) & ~known
    coverage, widened = None, 1.0
    if here <= k + FEW_SPARE and residual > EXACT * float(np.abs(y).max()):
        jacobian = curve.gradient(x, theta[None])[0][:, ~at_bound & ~known]
        coverage, widened = calibrate_linear(jacobian, unit_indices(unit), seed=0)
        if not widened < MAX_WIDENED:
            raise UserError(
                f"{here} runs for the {k} numbers of {name} are too few: in simulations of this design no interval "
                "holds the truth often enough"
            )
    return Fitted(theta, refits, n_units or here, widened, coverage, residual, at_bound, freedom)


def few_units(fitted: Fitted, name: str) -> list[str]:
    """Return a warning if there are so few runs that the design was simulated."""
    if fitted.coverage is None:
        return []
    remedy = f"; they are widened by a factor of {fitted.widened:.2g}" if fitted.widened > 1 else ""
    return [
        f"{fitted.n_units} runs are few for the numbers of {name}: in simulations of this design, 95 % "
        f"intervals hold the truth {fitted.coverage:.0%} of the time{remedy}."
    ]


def resampled(unit: Texts, bootstraps: int, seed: int) -> Floats:
    """Return the weights (r, n) of the refits: without each unit in turn or, with 100 units or more, drawn units."""
    of_unit = unit_indices(unit)
    if int(of_unit.max()) + 1 < FEW_UNITS:
        return units_but_one(of_unit)
    return np.concatenate(list(drawn_units(of_unit, bootstraps, seed)))


def descend(curve: Curve, x: Floats, y: Floats, weights: Floats, starts: Floats) -> Floats:
    """Return the optima (batch, k) of weighted least squares, weights (batch, n), from one start (batch, k) each."""
    lows, highs = np.broadcast_to(curve.low, starts.shape), np.broadcast_to(curve.high, starts.shape)
    theta = np.clip(starts, lows, highs)
    damping = np.full(len(theta), 1e-3)
    best = _objective(curve, x, y, weights, theta)
    active = np.ones(len(theta), dtype=bool)
    for _ in range(ITERATIONS):
        at = np.flatnonzero(active)
        if not len(at):
            break
        now, weight, low, high = theta[at], weights[at], lows[at], highs[at]
        gradient = curve.gradient(x, now)  # (a, n, k)
        off = y - curve.value(x, now)
        moment = np.einsum("an,ank,an->ak", weight, gradient, off)
        gram = np.einsum("an,ank,anl->akl", weight, gradient, gradient)
        held = ((now <= low) & (moment <= 0)) | ((now >= high) & (moment >= 0))
        gram = np.where(held[:, :, None] | held[:, None, :], 0.0, gram)
        moment = np.where(held, 0.0, moment)
        scale = np.einsum("akk->ak", gram)
        scale = np.where(scale > 0, scale, 1.0)
        system = gram / np.sqrt(scale[:, :, None] * scale[:, None, :])
        system = system + (damping[at, None] + held)[:, :, None] * np.eye(theta.shape[1])
        step = np.linalg.solve(system, (moment / np.sqrt(scale))[:, :, None])[:, :, 0] / np.sqrt(scale)
        moved = np.clip(now + step, low, high)
        lower = _objective(curve, x, y, weight, moved)
        better = lower < best[at]
        small = better & (best[at] - lower <= TOLERANCE * best[at])
        theta[at] = np.where(better[:, None], moved, now)
        best[at] = np.where(better, lower, best[at])
        damping[at] = np.clip(np.where(better, damping[at] / 5, damping[at] * 4), EASIEST, HARDEST)
        settled = small & (damping[at] <= GAUSS_NEWTON)
        active[at] = ~settled & (damping[at] < HARDEST) & (best[at] > 0)
    return theta


def _objective(curve: Curve, x: Floats, y: Floats, weights: Floats, theta: Floats) -> Floats:
    """Return the weighted sum of squares (batch,); infinite where it is no number."""
    total = (weights * (y - curve.value(x, theta)) ** 2).sum(axis=1)
    return np.where(np.isfinite(total), total, np.inf)

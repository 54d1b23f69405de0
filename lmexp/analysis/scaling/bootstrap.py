"""How far a fit would move had other units been run: refits, and the intervals that follow from them.

What is resampled is the independent unit: a run, or the trunk that milestones share. An interval that takes the
branches of one trunk for independent covers 50 to 72 % of the time instead of 95.

Two kinds of refits, because each fails where the other holds (docs/fitting.md has the measured coverage):

- with many units, a bootstrap: units drawn with replacement. The standard error is half the width of the middle
  68.3 % of its results, since a few draws lack the units that hold a law down, and their results lie anywhere.
  Student's t has as many degrees of freedom as units, less one;
- with fewer than 100 such draws are common, and the middle of the rest is too narrow. So each unit is left out once:
  the jackknife, which moves the fit so little that nothing breaks. Where a few of the units hold the law, the standard
  error is itself known by these few only: the degrees of freedom follow from the kurtosis of what the units move.

Either way the interval is the estimate, plus and minus Student's t times the standard error.
"""

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling import solver
from lmexp.analysis.scaling.surface import Surface

Ints = npt.NDArray[np.intp]

FEW_UNITS = 100
"""Below this, standard errors come from the jackknife: with 24 trunks a bootstrap covered 90 % of the time, not 95."""
LEVEL = 0.95
ONE_DEVIATION = 0.6827
"""The part of a normal distribution within one standard deviation."""
DRAWN_AT_ONCE = 4_000_000
"""Weights held in memory at once."""


def unit_indices(unit: npt.NDArray[np.str_]) -> Ints:
    """Return the index of each point's unit (n,), counted from 0."""
    return np.unique(unit, return_inverse=True)[1].reshape(-1)


def bootstrap(surface: Surface, of_unit: Ints, starts: Floats, delta: float, count: int, seed: int) -> Floats:
    """Return the parameters (count, k) of refits to units drawn with replacement; `starts` (s, k) are the optima.

    `of_unit` (n,) is the unit of each point. The same seed draws the same units, whatever the law.
    """
    n_units = int(of_unit.max()) + 1
    draws = np.random.default_rng(seed)
    even = np.full(n_units, 1 / n_units)
    size = max(DRAWN_AT_ONCE // len(of_unit), 1)
    pieces = []
    for at in range(0, count, size):
        drawn = draws.multinomial(n_units, even, size=min(size, count - at)).astype(np.float64)
        pieces.append(solver.descend_from_each(surface, drawn[:, of_unit], starts, delta).parameters)
    return np.concatenate(pieces)


def leave_one_out(surface: Surface, of_unit: Ints, starts: Floats, delta: float) -> Floats:
    """Return the parameters (units, k) of refits that each lack one unit."""
    n_units = int(of_unit.max()) + 1
    weights = (of_unit[None, :] != np.arange(n_units)[:, None]).astype(np.float64)
    return solver.descend_from_each(surface, weights, starts, delta).parameters


def student(freedom: npt.ArrayLike) -> Floats:
    """Return the factor on a standard error for a 95 % interval: Student's t with so many degrees of freedom."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(freedom, (1 + LEVEL) / 2))


def margin(value: Floats, refits: Floats, n_units: int) -> Floats:
    """Return half the width of the 95 % interval of an estimate (...) from its refits (r, ...).

    With fewer than 100 units the refits are those of `leave_one_out`, otherwise those of `bootstrap`. A refit that is
    infinite makes the margin so, unless it is one of the outer ones of a bootstrap.
    """
    if n_units < FEW_UNITS:
        return _of_jackknife(refits - value)
    low, high = np.quantile(refits, [(1 - ONE_DEVIATION) / 2, (1 + ONE_DEVIATION) / 2], axis=0)
    return np.asarray(student(n_units - 1) * (high - low) / 2)


def _of_jackknife(moved: Floats) -> Floats:
    """Return the margin (...) from what leaving out each unit moves (units, ...).

    With n units the variance of the jackknife is (n - 1)/n times the sum of squares. Its own relative variance is
    (kurtosis - 1)/n, which gives Satterthwaite's degrees of freedom. The factor (n - 1)/(n - 2) on the variance is
    for kurtosis being underestimated in so few; it was chosen by simulation.
    """
    n = len(moved)
    scale = np.abs(moved).max(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = np.where(scale > 0, moved / scale, 1.0)  # equal parts where nothing moves
        squares = (parts**2).sum(axis=0)
        kurtosis = n * (parts**4).sum(axis=0) / squares**2
        freedom = np.clip(2 * n / (kurtosis - 1) - 1, 1, n - 1)
        found = student(freedom) * scale * np.sqrt(squares * (n - 1) / n * (n - 1) / (n - 2))
    return np.asarray(np.where(np.isfinite(scale), found, np.inf))

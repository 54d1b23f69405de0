"""Confidence intervals of a fit: refits to resampled units, and the intervals that follow from them.

Resampling works on independent units: a run, or the trunk that milestones share. An interval that treats the branches
of one trunk as independent covers the truth 50 to 72 % of the time instead of 95 %.

There are two kinds of refits, because each works where the other fails (docs/fitting.md has the measured coverage):

- With many units, a bootstrap draws units with replacement. A few draws lack the units that determine a law, and their
  results are arbitrary. So the standard error is half the width of the middle 68.3 % of the results. Student's t has
  one degree of freedom less than there are units.
- With fewer than 100 units such draws are common, and the middle of the rest is too narrow. So a jackknife leaves out
  each unit once, which moves the fit so little that no refit fails. If only a few units determine the law, the
  standard error itself rests on these few. So the degrees of freedom follow from the kurtosis of the changes.

In both cases the interval is the estimate plus and minus Student's t times the standard error.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.quantiles import LEVEL, student
from lmexp.analysis.scaling import solver
from lmexp.analysis.scaling.surface import Surface

Ints = npt.NDArray[np.intp]

FEW_UNITS = 100
"""With fewer units, standard errors come from the jackknife: with 24 trunks a bootstrap covered 90 %, not 95 %."""
ONE_DEVIATION = 0.6827
"""The part of a normal distribution within one standard deviation."""
DRAWN_AT_ONCE = 4_000_000
"""Number of weights held in memory at once."""


def unit_indices(unit: npt.NDArray[np.str_]) -> Ints:
    """Return the index of each point's unit (n,), starting at 0."""
    return np.unique(unit, return_inverse=True)[1].reshape(-1)


def bootstrap(
    surface: Surface,
    of_unit: Ints,
    starts: Floats,
    delta: float,
    count: int,
    seed: int,
    weights: npt.ArrayLike = 1.0,
) -> Floats:
    """Return the parameters (count, k) of refits to units drawn with replacement.

    Every refit starts from each of `starts` (s, k), the optima for all points. `of_unit` (n,) is the unit of each
    point, and `weights` (n,) are those of the points. The same seed draws the same units for every law.
    """
    pieces = [
        solver.descend_from_each(surface, drawn * np.asarray(weights), starts, delta).parameters
        for drawn in drawn_units(of_unit, count, seed)
    ]
    return np.concatenate(pieces)


def drawn_units(of_unit: Ints, count: int, seed: int) -> Iterator[Floats]:
    """Yield the weights of the points (some of `count` draws, n) if units are drawn with replacement."""
    n_units = int(of_unit.max()) + 1
    draws = np.random.default_rng(seed)
    even = np.full(n_units, 1 / n_units)
    size = max(DRAWN_AT_ONCE // len(of_unit), 1)
    for at in range(0, count, size):
        yield draws.multinomial(n_units, even, size=min(size, count - at)).astype(np.float64)[:, of_unit]


def leave_one_out(
    surface: Surface, of_unit: Ints, starts: Floats, delta: float, weights: npt.ArrayLike = 1.0
) -> Floats:
    """Return the parameters (units, k) of refits that each lack one unit; `weights` (n,) are those of the points."""
    return solver.descend_from_each(surface, units_but_one(of_unit) * np.asarray(weights), starts, delta).parameters


def units_but_one(of_unit: Ints) -> Floats:
    """Return the weights of the points (units, n) without each unit in turn."""
    n_units = int(of_unit.max()) + 1
    return (of_unit[None, :] != np.arange(n_units)[:, None]).astype(np.float64)


def margin(value: Floats, refits: Floats, n_units: int, level: float = LEVEL) -> Floats:
    """Return half the width of the interval of an estimate (...) from its refits (r, ...).

    With fewer than 100 units the refits must be those of `leave_one_out`, otherwise those of `bootstrap`. An infinite
    refit makes the margin infinite, unless it lies outside the middle 68.3 % of a bootstrap.
    """
    if n_units < FEW_UNITS:
        return _of_jackknife(refits - value, level)
    low, high = np.quantile(refits, [(1 - ONE_DEVIATION) / 2, (1 + ONE_DEVIATION) / 2], axis=0)
    return np.asarray(student(n_units - 1, level) * (high - low) / 2)


@np.errstate(over="ignore")
def around(value: npt.ArrayLike, half: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return the ends of the interval around a value (...) whose half-width (...) is given in the logarithm.

    An end that is too large for a float64 is infinite.
    """
    middle, width = np.asarray(value), np.asarray(half)
    return np.asarray(middle * np.exp(-width)), np.asarray(middle * np.exp(width))


def _of_jackknife(moved: Floats, level: float) -> Floats:
    """Return the margin (...) from the changes that leaving out each unit causes (units, ...).

    With n units the jackknife's variance is (n - 1)/n times the sum of squares. The relative variance of that estimate
    is (kurtosis - 1)/n, which gives Satterthwaite's degrees of freedom. The factor (n - 1)/(n - 2) on the variance
    corrects for kurtosis being underestimated with few units; it was chosen by simulation.
    """
    n = len(moved)
    scale = np.abs(moved).max(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = np.where(scale > 0, moved / scale, 1.0)  # any equal values will do if nothing changes
        squares = (parts**2).sum(axis=0)
        kurtosis = n * (parts**4).sum(axis=0) / squares**2
        freedom = np.clip(2 * n / (kurtosis - 1) - 1, 1, n - 1)
        half = student(freedom, level) * scale * np.sqrt(squares * (n - 1) / n * (n - 1) / (n - 2))
    return np.asarray(np.where(np.isfinite(scale), half, np.inf))

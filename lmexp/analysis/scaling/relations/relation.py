"""What the fit of a relation says, in one form for all of them: the terminal, the page, JSON and LaTeX read it.

A relation is a law of something else than the loss of a size: a score as a function of the loss, the best learning
rate of a size, the loss on one text as a function of that on another. A new one needs a file in this package that
returns a `Relation`, its name among the laws (scaling/laws.py), and a case in relations/fit.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.law_fit import Estimate
from lmexp.analysis.scaling.points import Points

Cell = str | float | Estimate


@dataclass(frozen=True)
class Formula:
    """One fitted formula with its numbers."""

    name: str
    formula: str
    theta: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    """95 % confidence interval of each number."""
    residual: float
    """Standard deviation of the residuals, corrected for the number of parameters."""
    residual_of: str
    """What the residuals are of: `score`, `ln loss`, ..."""
    at_bound: tuple[str, ...] = ()
    """Numbers that ended at a limit of what they may be: the points do not identify them."""


@dataclass(frozen=True)
class HeldOut:
    """The error of a prediction for rows that the law was not fitted to."""

    what: str
    n_points: int
    bias: float
    """Mean of the error; above 0, the predictions are too high."""
    mean_absolute_error: float
    is_relative: bool
    """Whether errors are relative to the measured number, and not in its own unit."""
    coverage: float
    """Share of the measured numbers inside the 95 % interval for a single run."""

    @classmethod
    def of(cls, what: str, measured: Floats, predicted: Estimate, is_relative: bool) -> "HeldOut":
        """Return the error of predictions for measured numbers (n,)."""
        error = predicted.value - measured
        error = error / measured if is_relative else error
        inside = (predicted.low <= measured) & (measured <= predicted.high)
        return cls(
            what, len(measured), float(error.mean()), float(np.abs(error).mean()), is_relative, float(inside.mean())
        )


@dataclass(frozen=True)
class Prediction:
    """One predicted number."""

    run: str
    """What it is predicted for, in the words of the question."""
    by: str
    """The name of the formula."""
    quantity: str
    estimate: Estimate


@dataclass(frozen=True)
class Listed:
    """A table of numbers that belongs to the fit, such as the groups that it rests on."""

    title: str
    rows: tuple[dict[str, Cell], ...]
    """Heading -> cell; all rows have the same headings."""


@dataclass(frozen=True)
class Picture:
    """A chart: what was measured, and the fitted line."""

    title: str
    x: str
    """Title of the axis."""
    y: str
    marks: tuple[tuple[float, float, str], ...]
    """x, y and the group of each measured point, in whose colour it is drawn."""
    lines: tuple[tuple[float, float, str], ...]
    """The same of points on the fitted lines; a line for each group."""
    colour: str = ""
    """What the groups are, as the legend's title; empty if there is only one."""
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, eq=False)
class Relation:
    """A fitted relation and everything that is reported about it."""

    law: str
    points: Points
    source: str
    """Where the points come from, and which columns they have."""
    method: str
    """How the intervals were computed."""
    seed: int
    formulas: tuple[Formula, ...]
    headline: tuple[str, ...]
    errors: tuple[HeldOut, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    listed: tuple[Listed, ...] = ()
    pictures: dict[str, Picture] = field(default_factory=dict)
    """By the name of the file that a chart is written to."""
    warnings: tuple[str, ...] = ()
    has_sizes: bool = True
    """Whether the table says the sizes of the runs."""


def once(*groups: Sequence[str]) -> tuple[str, ...]:
    """Return the sentences of all groups without duplicates."""
    return tuple(dict.fromkeys(sentence for group in groups for sentence in group if sentence))

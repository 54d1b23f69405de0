"""Figures of papers as data: what is drawn from the runs, and the published curves beside it."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lmexp.config.base import Section

MAX_ROWS = 2_000
"""Combinations of a grid that a figure has room for."""
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]


class Curve(Section):
    """A published curve, by its points, by a formula or by its slope alone."""

    label: Annotated[str, Field(min_length=1)]
    """Its name in the legend."""
    points: Annotated[list[Pair], Field(min_length=1)] | None = None
    """Pairs of x and y, which are joined in this order."""
    value: str | float | None = None
    """An expression in x, as in `1.69 + 406.4 * x ** -0.34`, or a number for a level line."""
    slope: float | None = None
    """A slope alone, drawn through the middle of our points. Where an axis is logarithmic, it is the slope of the
    natural logarithm: with two logarithmic axes, the exponent of a power law."""
    series: str | float | bool | None = None
    """The value of the figure's `by` whose points it is compared with; null means all of our points."""
    checked: bool = True
    """Whether the numbers were compared with the paper itself."""

    @model_validator(mode="after")
    def _check(self) -> "Curve":
        if sum(part is not None for part in (self.points, self.value, self.slope)) != 1:
            raise ValueError("a curve has one of points, value and slope")
        return self


class Figure(Section):
    """One figure of a paper, redrawn with our points."""

    title: Annotated[str, Field(min_length=1)]
    x: str
    """A column, or an expression of columns that has a value in every row. Texts stand side by side, in the order of
    the runs."""
    y: str
    by: str | None = None
    """A column or expression whose values get colours and shapes of their own."""
    grid: Annotated[dict[str, Annotated[list[float], Field(min_length=1)]], Field(min_length=1)] | None = None
    """Columns and their numbers, for a figure of formulas alone: its rows are all combinations, and no runs."""
    where: str | None = None
    """Only rows for which this is true are drawn."""
    log: list[Literal["x", "y"]] = Field(default_factory=list)
    """The logarithmic axes."""
    x_title: str | None = None
    """Text below the x axis, with the unit; null means the column's own."""
    y_title: str | None = None
    """Text beside the y axis, with the unit; null means the column's own."""
    joined: bool = False
    """Whether a line joins the points of each colour."""
    fit: Literal["line", "parabola"] | None = None
    """What is fitted to the points of each colour and drawn. On logarithmic axes, a line is a power law."""
    curves: list[Curve] = Field(default_factory=list)
    """The published curves."""
    caption: str | None = None
    """A sentence below the figure, before those that lmexp computes."""

    @model_validator(mode="after")
    def _check(self) -> "Figure":
        labels = [curve.label for curve in self.curves]
        if twice := next((label for label in labels if labels.count(label) > 1), None):
            raise ValueError(f"curves: two are named {twice}")
        if self.grid is not None and (rows := math.prod(map(len, self.grid.values()))) > MAX_ROWS:
            raise ValueError(f"grid: {rows:,} combinations; allowed are {MAX_ROWS:,}")
        if self.by is None and any(curve.series is not None for curve in self.curves):
            raise ValueError("curves: `series` is a value of the figure's `by`, which is not set")
        return self

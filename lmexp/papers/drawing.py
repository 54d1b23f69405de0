"""A paper's figure as numbers: our points, what is fitted to them, and the published curves, on axes that suit ours.

The published curves often lie on other scales than small models do. A curve widens an axis only as long as our points
still take MIN_SHARE of it. What then lies outside is cut off, and a curve that is outside altogether is not drawn.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd

from lmexp.analysis.arrays import Floats
from lmexp.analysis.effects.noise import t_quantile
from lmexp.analysis.filters import matching
from lmexp.errors import UserError
from lmexp.papers.evidence import SEED, Evidence
from lmexp.papers.expressions import in_each_row
from lmexp.papers.figure import Curve, Figure
from lmexp.units import plain_number

MIN_SHARE = 0.25
"""The least share of an axis that our points take, whatever is published."""
ROOM = 0.06
"""Space beyond what is shown, as a share of it."""
STEPS = 80
"""Points of a line, enough to look smooth."""
MAX_SERIES = 12
"""More colours cannot be told apart."""
OURS = "ours"
"""The name of our points if nothing tells them apart."""
Range = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """The scale of one axis."""

    is_log: bool
    names: tuple[str, ...] = ()
    """What stands at 0, 1, 2 and so on, if the axis shows texts; empty for numbers."""

    def text(self, value: float) -> str:
        """Return a value as people read it: 100k, or the name at its place."""
        return self.names[round(value)] if self.names else plain_number(value)

    def scaled(self, values: Floats) -> Floats:
        """Return values as lengths along the axis; NaN for those that it cannot show."""
        if not self.is_log:
            return values
        with np.errstate(all="ignore"):
            return np.where(values > 0, np.log(np.where(values > 0, values, 1.0)), np.nan)

    def values(self, scaled: npt.ArrayLike) -> Floats:
        """Return the values at lengths along the axis."""
        lengths = np.asarray(scaled, dtype=np.float64)
        return np.exp(lengths) if self.is_log else lengths


@dataclass(frozen=True)
class Series:
    """Our points of one colour, from left to right: means over seeds, with the lowest and the highest seed."""

    name: str
    x: Floats
    y: Floats
    low: Floats
    high: Floats
    seeds: Floats
    """How many seeds each point is the mean of."""
    is_number: bool
    """Whether its name is a number, so that shades from small to large suit it."""


@dataclass(frozen=True)
class Fit:
    """A line or a parabola through the points of one colour, in the coordinates of the axes."""

    series: str
    x: Floats
    y: Floats
    low: Floats | None = None
    """The 95 % band of a line; None for a parabola, or with two points."""
    high: Floats | None = None
    slope: tuple[float, float, float] | None = None
    """The slope of a line with its 95 % interval."""
    lowest: float | None = None
    """The x at the lowest point of a parabola, if it is between our points."""


@dataclass(frozen=True)
class Published:
    """A published curve as far as it is in the figure."""

    curve: Curve
    x: Floats
    y: Floats
    at_ours: Floats
    """Its y at the x of each of our points; NaN where it says nothing."""

    @property
    def is_inside(self) -> bool:
        """Whether any of it is in the figure."""
        return len(self.x) > 0


@dataclass(frozen=True)
class Drawing:
    """Everything that a figure shows."""

    figure: Figure
    unit: str
    """What a row is: a run, a run or milestone, a row of a file, or a number of a formula."""
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    fits: tuple[Fit, ...]
    published: tuple[Published, ...]
    x_range: Range
    """The ends of the x axis."""
    y_range: Range

    @cached_property
    def our_x(self) -> Floats:
        """The x of all our points."""
        return np.concatenate([one.x for one in self.series])

    @cached_property
    def our_y(self) -> Floats:
        """The y of all our points, in the order of `our_x`."""
        return np.concatenate([one.y for one in self.series])


def draw(figure: Figure, evidence: Evidence) -> Drawing:
    """Return a figure with our points. Raises UserError for a wrong expression, and if there is nothing to draw."""
    if figure.grid is not None:
        evidence = _on_grid(figure.grid)
    table = evidence.table
    # Tokens tell the milestones of a run apart. Without milestones they may differ by seed, as with budget.seconds.
    has_milestones = "run_id" in table and table["run_id"].duplicated().any()
    cell_axes = [axis for axis in evidence.axes if axis != SEED] + ["tokens"] * bool(has_milestones)
    if figure.where is not None:
        table = table[matching(table, figure.where)].reset_index(drop=True)
    x = Axis("x" in figure.log, _names(figure, in_each_row(figure.x, table)))
    y = Axis("y" in figure.log)
    cells = _cells(table, cell_axes) if evidence.axes else list(range(len(table)))  # points from a file
    series = tuple(_series(figure, table, cells, x, y))
    our_x, our_y = (np.concatenate([getattr(one, name) for one in series]) for name in ("x", "y"))
    fits = tuple(fit for one in series if figure.fit and (fit := _fit(figure.fit, one, x, y)))
    spans = [part for one in series for part in (one.low, one.high)] + [fit.y for fit in fits]
    box = _Box(x, y, our_x, np.concatenate([our_y, *spans]))
    for curve in figure.curves:
        if curve.points:
            box.widen(*np.array(curve.points, dtype=float).T)
    lines = [_line(curve, box, our_x, our_y) for curve in figure.curves]
    for curve, line in zip(figure.curves, lines, strict=True):
        if not curve.points:
            box.widen(*line(box.grid))
    published = tuple(_published(*pair, box, series) for pair in zip(figure.curves, lines, strict=True))
    return Drawing(figure, _unit(figure, evidence), x, y, series, fits, published, box.x_range, box.y_range)


def _names(figure: Figure, x: pd.Series) -> tuple[str, ...]:
    """Return the texts of an x axis, in order of appearance; nothing if its values are numbers.

    Raises UserError if the figure asks for what texts do not have: a logarithm, a fit, or a published curve.
    """
    if pd.api.types.is_numeric_dtype(x) or not len(x):
        return ()
    if "x" in figure.log or figure.fit or figure.curves:
        raise UserError(f"the figure's '{figure.x}' has texts, which have no logarithm, no fit and no published curves")
    return tuple(map(str, x.dropna().unique()))


def _series(
    figure: Figure, table: pd.DataFrame, cells: Sequence[object], x_axis: Axis, y_axis: Axis
) -> Iterator[Series]:
    """Yield our points by the value of `by`, in rising order. Raises UserError for none, or too many values.

    Rows of one cell differ in the seed alone, and make one point.
    """
    x, y = (in_each_row(text, table) for text in (figure.x, figure.y))
    if x_axis.names:
        x = x.map({name: place for place, name in enumerate(x_axis.names)})
    if not pd.api.types.is_numeric_dtype(y) and len(table):
        raise UserError(f"the figure's '{figure.y}' is no column of numbers")
    rows = pd.DataFrame({"x": _floats(x, x_axis), "y": _floats(y, y_axis)})
    rows["by"] = in_each_row(figure.by, table).astype(object) if figure.by else OURS
    rows["cell"] = pd.Series(list(cells), dtype=object)
    rows = rows[np.isfinite(rows["x"]) & np.isfinite(rows["y"]) & rows["by"].notna()]
    names = [getattr(name, "item", lambda value=name: value)() for name in rows["by"].unique().tolist()]
    if not names:
        raise UserError("the runs have no points for this figure")
    if len(names) > MAX_SERIES:
        raise UserError(f"the figure's '{figure.by}' has {len(names)} values; at most {MAX_SERIES} can be told apart")
    for name in sorted(names, key=lambda value: (isinstance(value, str), value)):
        groups = rows[rows["by"] == name].groupby("cell", sort=False)
        points = groups.agg(x=("x", "mean"), y=("y", "mean"), low=("y", "min"), high=("y", "max"), seeds=("y", "size"))
        points = points.sort_values("x")
        x_at, y_at, low, high, seeds = points[["x", "y", "low", "high", "seeds"]].to_numpy(dtype=float).T
        yield Series(_name(name), x_at, y_at, low, high, seeds, _is_number(name))


def _cells(table: pd.DataFrame, axes: Sequence[str]) -> list[object]:
    """Return for each row its values of some axes."""
    keys = [table[axis].astype("string").fillna("").tolist() for axis in axes]
    return list(zip(*keys, strict=True)) if keys else [()] * len(table)


def _on_grid(grid: Mapping[str, Sequence[float]]) -> Evidence:
    """Return a row for each combination of numbers."""
    rows = pd.DataFrame(product(*grid.values()), columns=list(grid), dtype=float)
    return Evidence(rows, (), "the figure's grid")


def _unit(figure: Figure, evidence: Evidence) -> str:
    """Return what a row of the evidence is."""
    if figure.grid is not None:
        return "number of a formula"
    if "run_id" not in evidence.table:
        return "row"
    return "run or milestone" if evidence.table["run_id"].duplicated().any() else "run"


class _Box:
    """The ranges of the two axes, in lengths along them, which curves widen within limits."""

    def __init__(self, x: Axis, y: Axis, our_x: Floats, our_y: Floats) -> None:
        self.x, self.y = x, y
        self.own = [_range(x.scaled(our_x)), _range(y.scaled(our_y))]
        self.ends = list(self.own)

    def widen(self, x: Floats, y: Floats) -> None:
        """Include a curve if our points keep their share of both axes."""
        x, y = self.x.scaled(x), self.y.scaled(y)
        known = np.isfinite(x) & np.isfinite(y)
        if not known.any():
            return
        wider = [
            (min(low, float(values[known].min())), max(high, float(values[known].max())))
            for (low, high), values in zip(self.ends, (x, y), strict=True)
        ]
        shares = [(own[1] - own[0]) / (ends[1] - ends[0]) for own, ends in zip(self.own, wider, strict=True)]
        if min(shares) >= MIN_SHARE:
            self.ends = wider

    @property
    def grid(self) -> Floats:
        """The x (STEPS,) at which lines are computed, from one end of the axis to the other."""
        return self.x.values(np.linspace(*self.ends[0], STEPS))

    @property
    def x_range(self) -> Range:
        """The ends of the x axis, with some room."""
        return _roomy(self.x, self.ends[0])

    @property
    def y_range(self) -> Range:
        """The ends of the y axis, with some room."""
        return _roomy(self.y, self.ends[1])


def _line(curve: Curve, box: _Box, our_x: Floats, our_y: Floats) -> Callable[[Floats], tuple[Floats, Floats]]:
    """Return the function that gives a curve's x and y at some x; its y is NaN where the curve says nothing."""
    x_axis, y_axis = box.x, box.y
    if curve.points:
        known_x, known_y = np.array(curve.points, dtype=float).T
        at, values = x_axis.scaled(known_x), y_axis.scaled(known_y)
        order = np.argsort(at)

        def joined(x: Floats) -> tuple[Floats, Floats]:
            inner = np.interp(x_axis.scaled(x), at[order], values[order], left=np.nan, right=np.nan)
            return x, y_axis.values(inner)

        return joined
    if curve.value is not None:
        formula = str(curve.value)
        return lambda x: (x, _floats(in_each_row(formula, pd.DataFrame({"x": x})), y_axis))
    slope = float(curve.slope or 0.0)
    middle_x, middle_y = (float(axis.scaled(ours).mean()) for axis, ours in ((x_axis, our_x), (y_axis, our_y)))
    return lambda x: (x, y_axis.values(middle_y + slope * (x_axis.scaled(x) - middle_x)))


def _published(
    curve: Curve, line: Callable[[Floats], tuple[Floats, Floats]], box: _Box, series: Sequence[Series]
) -> Published:
    """Return the part of a curve that is inside the figure, and what it says at our points."""
    x, y = np.array(curve.points, dtype=float).T if curve.points else line(box.grid)
    compared = [curve.series is None or _name(curve.series) == one.name for one in series]
    if not any(compared):
        known = ", ".join(one.name for one in series)
        raise UserError(f"the curve '{curve.label}' is of {_name(curve.series)}; the series are {known}")
    at_ours = [line(one.x)[1] * (1.0 if its else np.nan) for one, its in zip(series, compared, strict=True)]
    (left, right), (low, high) = box.x_range, box.y_range
    inside = (x >= left) & (x <= right) & (y >= low) & (y <= high)
    shown = np.isfinite(y) if inside.any() else inside
    return Published(curve, x[shown], y[shown], np.concatenate(at_ours))


def _fit(kind: str, series: Series, x_axis: Axis, y_axis: Axis) -> Fit | None:
    """Return what is fitted to the points of one colour by least squares; None with too few points."""
    x, y = x_axis.scaled(series.x), y_axis.scaled(series.y)
    degree = 1 if kind == "line" else 2
    n, distinct = len(x), len(np.unique(x))
    if distinct <= degree:
        return None
    grid = np.linspace(x.min(), x.max(), STEPS)
    centre = float(x.mean())
    coefficients = np.polyfit(x - centre, y, degree)
    fitted = np.polyval(coefficients, grid - centre)
    drawn = (x_axis.values(grid), y_axis.values(fitted))
    if degree == 2:
        vertex = centre - coefficients[1] / (2 * coefficients[0]) if coefficients[0] > 0 else np.nan
        inside = x.min() < vertex < x.max()
        return Fit(series.name, *drawn, lowest=float(x_axis.values(vertex)) if inside else None)
    slope = float(coefficients[0])
    if n == 2:
        return Fit(series.name, *drawn, slope=(slope, -np.inf, np.inf))
    freedom, squares = n - 2, float(((x - centre) ** 2).sum())
    scatter = float(((y - np.polyval(coefficients, x - centre)) ** 2).sum()) / freedom
    half = t_quantile(freedom) * np.sqrt(scatter * (1 / n + (grid - centre) ** 2 / squares))
    off = t_quantile(freedom) * float(np.sqrt(scatter / squares))
    low, high = y_axis.values(fitted - half), y_axis.values(fitted + half)
    return Fit(series.name, *drawn, low, high, (slope, slope - off, slope + off))


def _range(scaled: Floats) -> Range:
    """Return the ends of some lengths; one value alone gets room on both sides."""
    low, high = float(scaled.min()), float(scaled.max())
    room = 0.0 if high > low else 0.1 * (abs(low) or 1.0)
    return low - room, high + room


def _roomy(axis: Axis, ends: Range) -> Range:
    room = ROOM * (ends[1] - ends[0])
    low, high = axis.values([ends[0] - room, ends[1] + room])
    return float(low), float(high)


def _floats(values: pd.Series, axis: Axis) -> Floats:
    """Return numbers (n,), with NaN for those that the axis cannot show."""
    result = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    return np.where(np.isfinite(axis.scaled(result)), result, np.nan)


def _name(value: object) -> str:
    """Return a value of `by` as the legend has it: 32, 100k, 2.5e12, true, cosine."""
    if isinstance(value, bool):
        return str(value).lower()
    return plain_number(float(value)) if isinstance(value, int | float) else str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

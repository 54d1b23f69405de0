"""The chart of a paper's figure: our points and what is fitted to them, and the published curves beside them.

Ours have the colours and shapes of their series, and what is published is red and dashed, so that neither depends on
colour alone.
"""

from typing import Any

import altair as alt

from lmexp.papers.drawing import Axis, Drawing, Range
from lmexp.report.charts.base import INK, NUMBERS, PALETTE, SHAPES, log_ticks, styled
from lmexp.report.charts.fit_encodings import SHADES, data_rows, name_tip, tip, tips
from lmexp.report.figure_words import label_of
from lmexp.runs.columns import column

HEIGHT = 380
PUBLISHED = PALETTE[2]
"""The colour of everything that is published, as in the charts of claims."""
OUR_COLOURS = [colour for colour in PALETTE if colour != PUBLISHED]
DASHES = [[6, 4], [2, 3], [10, 3, 2, 3], [1, 0], [12, 5], [4, 2, 1, 2]]
"""The dashes of published curves, in the order of the file."""
SOLID = [[1, 0]]
MAX_TEXT = 640
"""The longest name in a legend, in pixels."""


def figure_chart(drawing: Drawing) -> alt.LayerChart:
    """Return the chart of a figure, with its data."""
    curves, marks = _published_layers(drawing)
    layers = [*curves, *_fit_layers(drawing), *_our_layers(drawing), *marks]
    said = f"{drawing.figure.title}: {_title_y(drawing)} against {_title_x(drawing)}"
    chart = styled(layers, "''", HEIGHT, said)
    return chart.configure_title(offset=0)


def _our_layers(drawing: Drawing) -> list[alt.Chart]:
    """Return our points, with bars where they are means of several seeds, and lines if they are joined."""
    rows: list[dict[str, Any]] = []
    for one in drawing.series:
        columns = {"x": one.x, "y": one.y, "low": one.low, "high": one.high, "seeds": one.seeds}
        rows += data_rows(columns, by=one.name)
    if drawing.x.names:
        rows = [row | {"x": drawing.x.text(row["x"])} for row in rows]
    names = [one.name for one in drawing.series]
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=_x(drawing), color=_colour(drawing))
    layers = []
    if drawing.figure.joined:
        layers.append(base.mark_line(strokeWidth=1.5, clip=True).encode(y=_y(drawing)))
    if any(row["seeds"] > 1 for row in rows):
        bars = base.transform_filter("datum.seeds > 1")
        layers.append(bars.mark_rule(strokeWidth=1.5, opacity=0.8).encode(y=_y(drawing, "low"), y2="high:Q"))
    shape = alt.Shape(
        "by:N", scale=alt.Scale(domain=names, range=_repeated(SHAPES, len(names))), legend=_legend(drawing)
    )
    told = tips(
        *([name_tip("by")] if drawing.figure.by else []),
        name_tip("x", _title_x(drawing)) if drawing.x.names else tip("x", _title_x(drawing), ".4g"),
        tip("y", _title_y(drawing), ".5g"),
        tip("low", "from", ".5g"),
        tip("high", "to", ".5g"),
        tip("seeds", "seeds", "d"),
    )
    points = base.mark_point(size=55, filled=True, opacity=1).encode(y=_y(drawing), shape=shape, **told)
    return [*layers, points]


def _fit_layers(drawing: Drawing) -> list[alt.Chart]:
    """Return what is fitted to our points, as thin lines with their bands."""
    lines: list[dict[str, Any]] = []
    for fit in drawing.fits:
        low, high = (fit.y if part is None else part for part in (fit.low, fit.high))
        lines += data_rows({"x": fit.x, "y": fit.y, "low": low, "high": high}, by=fit.series)
    if not lines:
        return []
    base = alt.Chart(alt.InlineData(values=lines)).encode(x=_x(drawing), color=_colour(drawing))
    band = base.mark_area(opacity=0.15, clip=True).encode(y=_y(drawing, "low"), y2="high:Q")
    return [band, base.mark_line(strokeWidth=1.25, clip=True).encode(y=_y(drawing))]


def _published_layers(drawing: Drawing) -> tuple[list[alt.Chart], list[alt.Chart]]:
    """Return the published curves inside the figure, and the marks of their points, which ours must not hide."""
    shown = [one for one in drawing.published if one.is_inside]
    if not shown:
        return [], []
    are_points = all(len(one.x) == 1 for one in shown)
    lines: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    for one in shown:
        rows = [row | {"at": at} for at, row in enumerate(data_rows({"x": one.x, "y": one.y}, by=label_of(one)))]
        lines += rows
        marks += rows if one.curve.points else []
    names = [label_of(one) for one in shown]
    dash = alt.StrokeDash(
        "by:N",
        scale=alt.Scale(domain=names, range=_repeated(SOLID if are_points else DASHES, len(names))),
        legend=alt.Legend(
            title=None,
            orient="bottom",
            columns=1,
            labelLimit=MAX_TEXT,
            symbolType="circle" if are_points else "stroke",
            symbolStrokeColor=PUBLISHED,
            symbolStrokeWidth=2,
            symbolSize=150 if are_points else 500,
        ),
    )
    base = alt.Chart(alt.InlineData(values=lines)).encode(x=_x(drawing), y=_y(drawing), order="at:Q")
    told = tips(name_tip("by"), tip("x", _title_x(drawing), ".4g"), tip("y", _title_y(drawing), ".5g"))
    curves = [base.mark_line(color=PUBLISHED, strokeWidth=2, clip=True).encode(strokeDash=dash, **told)]
    if not marks:
        return curves, []
    points = alt.Chart(alt.InlineData(values=marks)).encode(x=_x(drawing), y=_y(drawing), **told)
    size = 150 if are_points else 40
    return curves, [points.mark_point(color=PUBLISHED, filled=False, size=size, strokeWidth=2, opacity=1, clip=True)]


def _legend(drawing: Drawing) -> alt.Legend | None:
    """Return the legend of our points, which colour and shape share; None if all points in the figure are ours alone.

    Beside published curves, points that nothing tells apart are called ours.
    """
    by = drawing.figure.by
    if by is None and not any(one.is_inside for one in drawing.published):
        return None
    return alt.Legend(
        title=None if by is None else column(by).heading,
        titleFontWeight="normal",
        titleColor=INK,
        titleLimit=MAX_TEXT,
        labelLimit=MAX_TEXT,
        symbolOpacity=1,
    )


def _colour(drawing: Drawing) -> alt.Color:
    """Return the colours of our series: shades from small to large for numbers, else colours that differ most."""
    names = [one.name for one in drawing.series]
    are_numbers = len(names) > 2 and all(one.is_number for one in drawing.series)
    colours = _shades(len(names)) if are_numbers else _repeated(OUR_COLOURS, len(names))
    return alt.Color("by:N", scale=alt.Scale(domain=names, range=colours), legend=_legend(drawing))


def _shades(n: int) -> list[str]:
    """Return n colours from the first to the last of SHADES."""
    parts = [[int(shade[at : at + 2], 16) for at in (1, 3, 5)] for shade in SHADES]
    colours = []
    for step in range(n):
        at = step * (len(parts) - 1) / (n - 1)
        first = min(int(at), len(parts) - 2)
        mixed = (round(a + (at - first) * (b - a)) for a, b in zip(parts[first], parts[first + 1], strict=True))
        colours.append("#" + "".join(f"{part:02x}" for part in mixed))
    return colours


def _repeated(marks: list[Any], n: int) -> list[Any]:
    return [marks[at % len(marks)] for at in range(n)]


def _title_x(drawing: Drawing) -> str:
    return drawing.figure.x_title or column(drawing.figure.x).heading


def _title_y(drawing: Drawing) -> str:
    return drawing.figure.y_title or column(drawing.figure.y).heading


def _x(drawing: Drawing) -> alt.X:
    if drawing.x.names:
        axis = alt.Axis(title=_title_x(drawing), titleFontWeight="normal", labelAngle=0, labelLimit=MAX_TEXT)
        return alt.X("x:N", scale=alt.Scale(type="point", domain=list(drawing.x.names), padding=0.5), axis=axis)
    return alt.X(
        "x:Q",
        scale=_scale(drawing.x, drawing.x_range),
        axis=_axis(_title_x(drawing), drawing.x, drawing.x_range, False),
    )


def _y(drawing: Drawing, field: str = "y") -> alt.Y:
    return alt.Y(
        f"{field}:Q",
        scale=_scale(drawing.y, drawing.y_range),
        axis=_axis(_title_y(drawing), drawing.y, drawing.y_range, True),
    )


def _scale(axis: Axis, ends: Range) -> alt.Scale:
    return alt.Scale(type="log" if axis.is_log else "linear", domain=list(ends), nice=False, zero=False)


def _axis(title: str, axis: Axis, ends: Range, grid: bool) -> alt.Axis:
    return alt.Axis(
        title=title,
        titleFontWeight="normal",
        labelExpr=NUMBERS,
        labelOverlap="greedy",
        labelSeparation=8,
        grid=grid,
        **({"values": log_ticks(*ends)} if axis.is_log else {"tickCount": 6}),
    )

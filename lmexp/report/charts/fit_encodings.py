"""The axes, colours, tooltips and data that the charts of a fit share."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

from lmexp.analysis.scaling.points import Points
from lmexp.report.charts.base import INK, NULL, PALETTE, ROWS, TICKS, short_number, ticks_of
from lmexp.report.values import json_value
from lmexp.units import si

SHADES = ["#4269d0", "#6cc5b0", "#efb118"]
"""From small to large: colour-blind readers can tell them apart, on white and on near-black."""
MAX_NAMED = 8
"""A quantity with more values than this has one legend of shades instead of a name for each."""
LETTER = 7
"""Pixels of a letter in a legend, on average."""
DIGITS = 6
"""Significant digits of a number in a chart."""


def run_rows(points: Points, members: npt.NDArray[np.int64], **same: Any) -> list[dict[str, Any]]:
    """Return some points as rows of a chart: sizes, FLOPs and loss, with the run and its row in the study's table."""
    columns: dict[str, Any] = {"params": points.params, "tokens": points.tokens, "flops": points.flops}
    columns = {name: values[members] for name, values in (columns | {"loss": points.loss}).items()}
    texts = {"run_id": points.run_ids, "run": points.names}
    columns |= {name: values[members].tolist() for name, values in texts.items() if values is not None}
    if points.lines is not None:
        columns["i"] = (points.lines[members] - 1).tolist()
    return [row | same for row in data_rows(columns)]


def selectable(rows: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """Return a chart of runs that takes from the page's data, if there is any, which of them are selected."""
    chart = alt.Chart(alt.InlineData(values=list(rows)))
    if not rows or "i" not in rows[0]:
        return chart
    return chart.transform_lookup(lookup="i", from_=alt.LookupData(alt.NamedData(ROWS), key="i", fields=["selected"]))


IF_SELECTED = alt.condition("datum.selected === false", alt.value(0.08), alt.value(0.85))
"""How visible a run is; one outside the page's selection is faint."""


def log_axis(field: str, title: str, over: npt.ArrayLike, channel: Any = alt.X) -> Any:
    """Return a logarithmic axis for the values `over`, with the ticks of `ticks_of`."""
    return channel(
        f"{field}:Q",
        scale=alt.Scale(type="log", nice=False, padding=16),
        axis=alt.Axis(
            title=title,
            titleFontWeight="normal",
            values=ticks_of(over),
            labelExpr=TICKS,
            labelOverlap="greedy",
            grid=channel is alt.Y,
        ),
    )


def loss_axis(field: str = "loss", margin: int = 16) -> alt.Y:
    """Return the axis of the loss, which spans the values, with a margin in pixels, instead of starting at 0."""
    return alt.Y(
        f"{field}:Q",
        scale=alt.Scale(zero=False, nice=False, padding=margin),
        axis=alt.Axis(title=None, tickCount=6, format=".2~f"),
    )


def shade_by_size(sizes: Collection[float] = ()) -> alt.Fill:
    """Return the shades of the number of parameters; each of the `sizes` has a name if they are few."""
    few = {size: si(size) for size in sizes}
    legend = named_legend("parameters", few) if 1 < len(few) <= MAX_NAMED else shade_legend("parameters")
    return alt.Fill("params:Q", scale=alt.Scale(type="log", range=SHADES), legend=legend)


def named_legend(title: str, names: Mapping[float, str]) -> alt.Legend:
    """Return the legend of a quantity that is shown by shades and has few values, in as many columns as fit."""
    entry = 38 + LETTER * max(map(len, names.values()))
    return alt.Legend(
        title=title,
        symbolOpacity=1,
        values=list(names),
        type="symbol",
        labelExpr=f"{json.dumps(list(names.values()))}[datum.index]",
        columns=alt.ExprRef(f"max(1, floor((width - {20 + LETTER * len(title)}) / {entry}))"),
    )


def shade_legend(title: str) -> alt.Legend:
    """Return the legend of a quantity that is shown by shades."""
    return alt.Legend(
        title=title,
        titleFontWeight="normal",
        titleColor=INK,
        type="gradient",
        labelExpr=TICKS,
        gradientLength=180,
        tickCount=4,
    )


def colour_by_name(names: Sequence[str], field: str = "by") -> alt.Color:
    """Return one colour for each law or approach."""
    scale = alt.Scale(domain=list(names), range=PALETTE[: len(names)])
    return alt.Color(f"{field}:N", scale=scale, legend=alt.Legend(title=None, symbolOpacity=1))


@dataclass(frozen=True)
class Tip:
    """A line of a tooltip."""

    title: str
    text: str
    """A Vega expression."""


def tip(field: str, title: str, text: str | None = None) -> Tip:
    """Return the line of a number; `text` is its format for d3 [default: that of short_number]."""
    value = f"datum[{json.dumps(field)}]"
    told = short_number(value) if text is None else f"replace(format({value}, {json.dumps(text)}), 'e+', 'e')"
    return Tip(title, f"(isValid({value}) ? {told} : {json.dumps(NULL)})")


def name_tip(field: str, title: str | None = None) -> Tip:
    """Return the line of a text [default title: the name of the field]."""
    return Tip(title or field, f"'' + datum[{json.dumps(field)}]")


def tips(*lines: Tip) -> dict[str, Any]:
    """Return the encodings of a tooltip of these lines, and of the same words for a screen reader.

    The formats of Vega-Lite's own tooltips have no powers of ten for large numbers: 5.76e23 FLOPs would be 576Z.
    """
    shown = ", ".join(f"{json.dumps(line.title)}: {line.text}" for line in lines)
    read = " + '; ' + ".join(f"{json.dumps(line.title + ': ')} + {line.text}" for line in lines)
    return {
        "tooltip": alt.TooltipValue(alt.ExprRef(f"{{{shown}}}")),
        "description": alt.DescriptionValue(alt.ExprRef(read)),
    }


def inline_data(columns: dict[str, Any]) -> alt.InlineData:
    """Return columns as the data of a chart."""
    return alt.InlineData(values=data_rows(columns))


def data_rows(columns: dict[str, Any], **same: Any) -> list[dict[str, Any]]:
    """Return columns as rows of plain numbers with six digits, each with the values `same`; not finite is null."""
    return [
        same | {name: json_value(value, DIGITS) for name, value in zip(columns, row, strict=True)}
        for row in zip(*columns.values(), strict=True)
    ]

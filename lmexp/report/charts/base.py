"""What the charts share: the names of their data, colours, choices, axes and ink.

What a reader chooses (axes, colour, logarithmic or linear) is a Vega-Lite parameter that the page sets. Ink is written
as `currentColor`: the page replaces it by its light or dark text colour, and export.py by black. Groups differ in
colour and in shape, so no reader depends on colour alone.

The charts only name their data (`rows`, `curves`), and the page or export.py supplies it, so that the page contains it
once. The field `selected` of a row says whether the reader has selected it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from lmexp.analysis.table import Study
from lmexp.runs.columns import column

ROWS, CURVES, PAIRS = "rows", "curves", "pairs"
"""The names of the data: one object a row; one object a curve, whose values are lists of equal length; one object a
pair of runs that differ in one axis alone."""
INK, PAPER = "currentColor", "Canvas"
"""Placeholders for the colours of text and background, which are replaced when a chart is shown."""
DONE = "datum.state === 'done'"
"""The condition that a row has a result."""

# Observable's ten colours: colour-blind readers can tell them apart, on white and on near-black.
PALETTE = [
    "#4269d0",
    "#efb118",
    "#ff725c",
    "#6cc5b0",
    "#3ca951",
    "#ff8ab7",
    "#a463f2",
    "#97bbf5",
    "#9c6b4e",
    "#9498a0",
]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]
MAX_GROUPS = 12
"""An axis with more values cannot be chosen as a colour, because nobody could tell the colours apart."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
TICKS = "datum.value >= 1000 ? format(datum.value, '~s') : format(datum.value, '~r')"
NONE, NULL = "none", "–"


@dataclass(frozen=True)
class Groups:
    """What marks can be coloured and shaped by, with the values of each in the order of the table.

    Vega-Lite gets the values instead of finding them itself, so that a value has the same colour in all charts, and
    colour and shape share a legend.
    """

    values: dict[str, list[Any]]

    @classmethod
    def of(cls, study: Study) -> "Groups":
        """Return the varied axes; if there are none, whichever of model and precision differs between the runs."""
        table = study.table
        names = study.varied or [name for name in ("model", "precision") if table[name].dropna().nunique() > 1]
        choices = {name: [NULL if pd.isna(v) else v for v in table[name].unique().tolist()] for name in names}
        few = {name: values for name, values in choices.items() if len(values) <= MAX_GROUPS}
        return cls({**few, NONE: ["all runs"]})

    @property
    def choose(self) -> alt.Parameter:
        """The parameter that says which of these is shown."""
        return alt.param(name="colour", value=next(iter(self.values)))

    def value(self, row: str) -> str:
        """Return the expression for the value that `row` has in the chosen column."""
        return f"colour === '{NONE}' ? 'all runs' : isValid({row}[colour]) ? {row}[colour] : '{NULL}'"

    def channel(self, channel: Any, marks: list[str]) -> Any:
        """Return an encoding of the chosen column by `marks`, which are colours or shapes."""
        domain = alt.ExprRef(lookup("colour", self.values))
        return channel(
            "group:N", scale=alt.Scale(domain=domain, range=marks), legend=alt.Legend(title=None, symbolOpacity=1)
        )


NUMBERS = (
    "datum.value === 0 ? '0' : abs(datum.value) >= 1e9 || abs(datum.value) < 1e-4 ? "
    "replace(format(datum.value, '~e'), '+', '') : "
    "abs(datum.value) >= 1000 ? format(datum.value, '~s') : format(datum.value, '.6~r')"
)
"""How an axis writes its numbers, for Vega: 0.5, 20, 4.5k, 1.2e10."""


def measured(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return the names of the columns that have values, each once; at least the first name."""
    known = [name for name in dict.fromkeys(names) if name in table and table[name].notna().any()]
    return known or [names[0]]


def lookup(parameter: str, words: Mapping[str, Any]) -> str:
    """Return the expression for the entry of `words` that belongs to the value of a parameter."""
    return f"({json.dumps(words)})[{parameter}]"


def below(parameter: str, names: list[str], words: dict[str, str] | None = None) -> alt.Chart:
    """Return the title of the x axis as a text below it, because the titles of Vega-Lite cannot follow a choice."""
    words = words or {name: column(name).heading for name in names}
    return alt.Chart(alt.InlineData(values=[{}])).mark_text(
        text=alt.ExprRef(lookup(parameter, words)),
        x=alt.ExprRef("width"),
        y=alt.ExprRef("height + 38"),
        align="right",
        fontSize=13,
        color=INK,
        clip=False,
    )


def floor_lines(values: Sequence[Mapping[str, Any]], condition: str = "true") -> list[alt.Chart]:
    """Return a dashed line for each of the `values` that meets a condition, at its `floor`; none without values."""
    if not values:
        return []
    lines = alt.Chart(alt.InlineData(values=values)).transform_filter(condition)
    lines = lines.transform_calculate(label="'no model can beat ' + format(datum.floor, '.4~f')")
    y = alt.Y("floor:Q", title=None)
    return [
        lines.mark_rule(strokeDash=[6, 4], color=INK, opacity=0.7).encode(y=y, description="label:N"),
        lines.mark_text(color=INK, opacity=0.8, align="right", dy=-6, x=alt.ExprRef("width - 4")).encode(
            y=y, text="label:N"
        ),
    ]


def axis(grid: bool = True, title: str | None = " ") -> alt.Axis:
    """Return an axis; a blank title reserves the room for `below`."""
    return alt.Axis(
        title=title,
        grid=grid,
        labelExpr=TICKS,
        labelFlush=False,
        labelOverlap="greedy",
        labelSeparation=14,
        tickCount=6,
        domain=not grid,
    )


def styled(layers: list[alt.Chart], title: str, height: int, description: str) -> alt.LayerChart:
    """Return layers as a chart in the ink and font of the page, as wide as its container; `title` is an expression."""
    lines = dict.fromkeys(("labelColor", "titleColor", "tickColor", "domainColor", "gridColor"), INK)
    above = alt.TitleParams(
        text=alt.ExprRef(title), anchor="start", frame="group", fontSize=13, fontWeight="normal", offset=12
    )
    return (
        alt.LayerChart(layer=layers)
        .properties(
            width="container",
            height=height,
            description=description,
            title=above,
            background="transparent",
            autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        )
        .configure(font=FONT, padding={"left": 4, "right": 16, "top": 4, "bottom": 12})
        .configure_view(stroke=None)
        .configure_title(color=INK)
        .configure_axis(
            **lines,
            labelFontSize=12,
            labelOpacity=0.8,
            labelPadding=6,
            titleFontSize=13,
            tickOpacity=0.4,
            domainOpacity=0.4,
            gridOpacity=0.12,
        )
        .configure_legend(
            orient="top",
            offset=8,
            columnPadding=18,
            labelColor=INK,
            labelFontSize=12,
            symbolSize=90,
            symbolStrokeWidth=1.75,
        )
    )

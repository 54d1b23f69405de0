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
import numpy as np
import numpy.typing as npt
import pandas as pd

from lmexp.analysis.columns import axis_headings, value_text
from lmexp.analysis.floor import distinct_floors
from lmexp.analysis.table import Study
from lmexp.report.values import as_script

ROWS, CURVES, PAIRS = "rows", "curves", "pairs"
"""The names of the data: one object a row; one object a curve, whose values are lists of equal length; one object a
pair of runs that differ in one axis alone."""
X_TITLE = "x_title"
"""The name of the layer that `below` returns."""
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
TICKS = (
    "datum.value >= 1e18 ? replace(format(datum.value, '~e'), '+', '') : "
    "datum.value >= 1000 ? format(datum.value, '~s') : format(datum.value, '~r')"
)
"""How an axis of a study writes its numbers, for Vega: 0.5, 20, 5G, 4e18."""


def short_number(value: str) -> str:
    """Return the Vega expression of a number in three digits, of the expression `value`: 0.500, 1.23M, 5.76e23."""
    return (
        f"(abs({value}) >= 1e18 || {value} !== 0 && abs({value}) < 1e-4 ? replace(format({value}, '.2e'), '+', '') : "
        f"abs({value}) >= 1000 ? format({value}, '.3s') : format({value}, '.3r'))"
    )


NONE, NULL = "none", "–"


@dataclass(frozen=True)
class Groups:
    """What marks can be coloured and shaped by, with the values of each in the order of the table.

    Vega-Lite gets the values instead of finding them itself, so that a value has the same colour in all charts, and
    colour and shape share a legend.
    """

    values: dict[str, list[Any]]

    @classmethod
    def of(cls, study: Study, order: Sequence[str] = ()) -> "Groups":
        """Return the varied axes; if there are none, whichever of model and precision differs between the runs.

        Those in `order` come first, and the seed comes last.
        """
        table = study.table
        names = study.varied or [name for name in ("model", "precision") if table[name].dropna().nunique() > 1]
        places = {name: at for at, name in enumerate(order)}
        names = sorted(names, key=lambda name: (name == "seed", places.get(name, len(places))))
        few = {name: values for name in names if len(values := _distinct(table[name])) <= MAX_GROUPS}
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
        texts = {
            name: {as_script(value): value_text(value) for value in values} for name, values in self.values.items()
        }
        heads = axis_headings(name for name in self.values if name != NONE)
        pixels = {name: 34 + 7 * max(map(len, of.values())) for name, of in texts.items()}
        legend = alt.Legend(
            title=heads.get(next(iter(self.values))),
            symbolOpacity=1,
            labelExpr=f"({json.dumps(texts)})[colour]['' + datum.value] || datum.label",
            columns=alt.ExprRef(f"max(1, floor(width / {lookup('colour', pixels)}))"),
        )
        return channel("group:N", scale=alt.Scale(domain=domain, range=marks), legend=legend)


def _distinct(values: pd.Series) -> list[Any]:
    """Return the distinct values of an axis, null as a dash: numbers in rising order, others in that of the table."""
    distinct = values.dropna().unique().tolist()
    if pd.api.types.is_numeric_dtype(values):
        distinct.sort()
    return [*distinct, *([NULL] if values.isna().any() else [])]


NUMBERS = (
    "datum.value === 0 ? '0' : abs(datum.value) >= 1e9 || abs(datum.value) < 1e-4 ? "
    "replace(format(datum.value, '~e'), '+', '') : "
    "abs(datum.value) >= 1000 ? format(datum.value, '~s') : format(datum.value, '.6~r')"
)
"""How an axis writes its numbers, for Vega: 0.5, 20, 4.5k, 1.2e10."""


MIN_POWER, MAX_POWER = -300, 300
"""The powers of ten between which axes have ticks; beyond them, steps and margins would not be finite."""


def measured(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return the names of the columns that have values, each once; at least the first name."""
    known = [name for name in dict.fromkeys(names) if name in table and table[name].notna().any()]
    return known or [names[0]]


def log_ticks(low: float, high: float) -> list[float]:
    """Return the ticks of a logarithmic axis from `low` to `high`, both above 0.

    They are powers of ten, and 2 and 5 times these unless they are many; if fewer than three are inside, even steps.
    """
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    digits = (1,) if high > 1e4 * low else (1, 2, 5)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    inside = [tick for tick in ticks if low <= tick <= high]
    if len(inside) >= 3:
        return inside
    step = 10.0 ** np.floor(np.log10((high - low) / 4))
    step *= next(digit for digit in (1, 2, 5, 10) if (high - low) / (digit * step) <= 6)
    return [float(f"{tick * step:.12g}") for tick in range(int(np.ceil(low / step)), int(high / step) + 1)]


def ticks_of(values: npt.ArrayLike) -> list[float]:
    """Return the ticks of a logarithmic axis of values, with a margin; none if none is above 0.

    However close the values are, some ticks lie among them: an axis without a number says nothing.
    """
    known = np.asarray(values, dtype=float)
    known = known[(known > 10.0**MIN_POWER) & (known < 10.0**MAX_POWER)]
    if not len(known):
        return []
    low, high = np.log10([known.min(), known.max()])
    margin = 0.06 * (high - low) or np.log10(1.05)
    ends = 10.0 ** np.clip([low - margin, high + margin], MIN_POWER, MAX_POWER)
    return [float(f"{tick:.6g}") for tick in log_ticks(*map(float, ends))]


def lookup(parameter: str, words: Mapping[str, Any]) -> str:
    """Return the expression for the entry of `words` that belongs to the value of a parameter."""
    return f"({json.dumps(words)})[{parameter}]"


def below(parameter: str, words: Mapping[str, str]) -> alt.Chart:
    """Return the title of the x axis as a text below it, because the titles of Vega-Lite cannot follow a choice."""
    return (
        alt.Chart(alt.InlineData(values=[{}]))
        .mark_text(
            text=alt.ExprRef(lookup(parameter, words)),
            x=alt.ExprRef("width"),
            y=alt.ExprRef("height + 38"),
            align="right",
            fontSize=13,
            color=INK,
            clip=False,
        )
        .properties(name=X_TITLE)
    )


def floors_of(study: Study, quality: str) -> list[dict[str, Any]]:
    """Return the floors of a quality, for `floor_lines`; if rows do not all compare, each with the name of its part."""
    parts = study.rankable(quality)
    return [
        {"of": quality, "floor": floor, **({"part": name} if len(parts) > 1 else {})}
        for name, part in parts.items()
        for floor in distinct_floors(part.table, quality)
    ]


def floor_lines(values: Sequence[Mapping[str, Any]], condition: str = "true") -> list[alt.Chart]:
    """Return a dashed line for each of the `values` that meets a condition, at its `floor`; none without values.

    A value that names its `part` has a line only if the chart's parameter `part` names it too, or none.
    """
    if not values:
        return []
    if any("part" in value for value in values):
        condition += " && (!part || !isValid(datum.part) || datum.part === part)"
    lines = alt.Chart(alt.InlineData(values=values)).transform_filter(condition)
    lines = lines.transform_calculate(label="'no model can beat ' + format(datum.floor, '.4~f')")
    y = alt.Y("floor:Q", title=None)
    return [
        lines.mark_rule(strokeDash=[6, 4], color=INK, opacity=0.7).encode(y=y, description="label:N"),
        lines.mark_text(color=INK, opacity=0.8, align="right", dy=-6, x=alt.ExprRef("width - 4")).encode(
            y=y, text="label:N"
        ),
    ]


def axis(grid: bool = True, title: str | None = " ", ticks: str = "null") -> alt.Axis:
    """Return an axis; a blank title reserves the room for `below`.

    `ticks` is an expression for the ticks of a logarithmic scale; null leaves them to Vega.
    """
    return alt.Axis(
        values=alt.ExprRef(ticks),
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
            titleColor=INK,
            titleFontSize=12,
            titleFontWeight="normal",
            titleOrient="left",
            titlePadding=12,
            symbolSize=90,
            symbolStrokeWidth=1.75,
        )
    )

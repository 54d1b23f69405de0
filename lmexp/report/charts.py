"""The two charts of the page, as Altair charts: quality against cost with its frontier, and the curves.

What a reader chooses (axes, colour) is a Vega-Lite parameter, and the frontier is computed by Vega-Lite from
what was chosen, so it is always the frontier of what is shown. Ink is `currentColor`: the page's light or
dark text colour, without drawing twice. Groups differ in colour and in shape: colour alone says nothing.

The charts name their data (`rows`, `curves`); whoever shows them supplies it, so the page holds it once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from lmexp.analysis.columns import COSTS, QUALITIES, column, higher_is_better, number_format
from lmexp.analysis.table import Study

ROWS, CURVES = "rows", "curves"
"""The names of the data: one object a row; one object a curve, whose values are lists of equal length."""
TOLD = (
    *QUALITIES, "tokens", "train_flops", "train_seconds", "tokens_per_second", "peak_memory_gb", "dollars",
)  # fmt: skip
"""What a tooltip tells of a run."""
CURVE_AXES = {
    "tokens": "training tokens",
    "flops": "training compute (FLOPs)",
    "seconds": "training time (s)",
}

# Observable's ten colours: told apart by the colour-blind, readable on white and on near-black.
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
MOST_GROUPS = 12
"""An axis of more values than this would be a riot of colours, and is not offered as one."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
TICKS = "datum.value >= 1000 ? format(datum.value, '~s') : format(datum.value, '~r')"
NONE, NULL = "none", "–"


@dataclass(frozen=True)
class Groups:
    """What marks can be coloured and shaped by, and the values of each in the order of the table.

    The values are given to Vega-Lite, not left to it: so a value has one colour in both charts, and colour
    and shape share a legend.
    """

    values: dict[str, list[Any]]

    @classmethod
    def of(cls, study: Study) -> "Groups":
        """Return the varied axes; without any, whatever tells a folder's runs apart."""
        table = study.table
        names = study.varied or [name for name in ("model", "precision") if table[name].dropna().nunique() > 1]
        choices = {name: [NULL if pd.isna(v) else v for v in table[name].unique().tolist()] for name in names}
        few = {name: values for name, values in choices.items() if len(values) <= MOST_GROUPS}
        return cls({**few, NONE: ["all runs"]})

    @property
    def choose(self) -> alt.Parameter:
        """The parameter, with its select box."""
        names = list(self.values)
        return _select("colour", "Colour and shape", names, names)

    def value(self, row: str) -> str:
        """Return the expression for the value of `row` that is chosen."""
        return f"colour === '{NONE}' ? 'all runs' : isValid({row}[colour]) ? {row}[colour] : '{NULL}'"

    def channel(self, channel: Any, marks: list[str]) -> Any:
        """Return an encoding of the chosen value by `marks`, colours or shapes."""
        domain = alt.ExprRef(_lookup("colour", self.values))
        return channel(
            "group:N", scale=alt.Scale(domain=domain, range=marks), legend=alt.Legend(title=None, symbolOpacity=1)
        )


def frontier_chart(study: Study, quality: str, cost: str) -> alt.LayerChart:
    """Return the scatter of quality against cost with the frontier as a step line; data: `rows`."""
    qualities = _measured(study.table, [quality, *QUALITIES, *_scores(study.table)])
    costs = _measured(study.table, [cost, *COSTS])
    choose_quality = _select("quality", "Quality", qualities, [column(name).title for name in qualities])
    choose_cost = _select("cost", "Cost", costs, [column(name).title for name in costs])
    groups = Groups.of(study)
    up = json.dumps([name for name in qualities if higher_is_better(name)])

    points = (
        alt.Chart(alt.NamedData(ROWS))
        .transform_filter("datum.state === 'done'")
        .transform_calculate(x="datum[cost]", y="datum[quality]", group=groups.value("datum"))
        .transform_filter("isValid(datum.x) && isValid(datum.y) && datum.x > 0")
        # Less is better in `lost`. A row is on the frontier when nothing at its cost or below is better, and
        # nothing cheaper is as good. The window takes in rows of equal cost, so ties stay together, as they
        # do in analysis/frontier.py.
        .transform_calculate(lost=f"indexof({up}, quality) >= 0 ? -datum.y : datum.y")
        .transform_window(best="min(lost)", sort=[alt.SortField("x")], frame=[None, 0], groupby=["task"])
        .transform_joinaggregate(cheapest="min(x)", groupby=["lost", "task"])
        .transform_calculate(frontier="datum.lost === datum.best && datum.x === datum.cheapest")
    )
    x = alt.X("x:Q", scale=alt.Scale(type="log", nice=False, padding=24), axis=_axis(grid=False))
    y = alt.Y("y:Q", scale=alt.Scale(zero=False, padding=24), axis=_axis(title=None))
    steps = points.transform_filter("datum.frontier").mark_line(
        interpolate="step-after", color="currentColor", opacity=0.45, strokeWidth=1.5
    )
    marks = points.mark_point(size=110, strokeWidth=1.75, opacity=1, tooltip=_tooltip(study)).encode(
        color=groups.channel(alt.Color, PALETTE),
        shape=groups.channel(alt.Shape, SHAPES),
        fill=alt.condition("datum.frontier", groups.channel(alt.Fill, PALETTE), alt.value("transparent")),
        description=alt.Description("slug:N"),
    )
    choices = choose_quality, choose_cost, groups.choose
    layers = [
        steps.encode(x=x, y=y, detail="task:N"),
        marks.encode(x=x, y=y).add_params(*choices),
        _below("cost", costs),
    ]
    title = _lookup("quality", {name: column(name).heading for name in qualities})
    return _styled(layers, title, height=400, description="Quality against cost of each finished run, and the frontier")


def curves_chart(study: Study) -> alt.LayerChart:
    """Return the loss of each run as it trained; data: `curves` and, for the colours, `rows`."""
    against = _select("against", "Against", list(CURVE_AXES), ["tokens", "FLOPs", "seconds"])
    groups = Groups.of(study)
    lines = (
        alt.Chart(alt.NamedData(CURVES))
        .transform_lookup(lookup="run_id", from_=alt.LookupData(alt.NamedData(ROWS), key="run_id"), as_="run")
        .transform_flatten(["tokens", "flops", "seconds", "loss"])
        .transform_calculate(x="datum[against]", group=groups.value("datum.run"), slug="datum.run.slug")
        .transform_filter("isValid(datum.x) && isValid(datum.loss) && datum.x > 0")
    )
    encodings = {
        "x": alt.X("x:Q", scale=alt.Scale(type="log", nice=False), axis=_axis(grid=False)),
        "y": alt.Y("loss:Q", scale=alt.Scale(zero=False), axis=_axis(title=None)),
        "color": groups.channel(alt.Color, PALETTE),
        "detail": alt.Detail("run_id:N"),
    }
    training = lines.transform_filter("datum.kind === 'train'").mark_line(strokeWidth=1, opacity=0.4)
    validation = lines.transform_filter("datum.kind === 'validation'")
    tooltip = alt.ExprRef(
        "{run: datum.slug, 'validation loss': format(datum.loss, '.4f'), "
        "tokens: format(datum.tokens, '.3s'), FLOPs: format(datum.flops, '.3s'), "
        "seconds: format(datum.seconds, ',.1f')}"
    )
    layers = [
        training.encode(**encodings).add_params(against, groups.choose),
        validation.mark_line(strokeWidth=1.75).encode(**encodings),
        validation.mark_point(size=45, filled=True, opacity=1, tooltip=tooltip).encode(
            **encodings, shape=groups.channel(alt.Shape, SHAPES)
        ),
        _below("against", list(CURVE_AXES), CURVE_AXES),
    ]
    title = json.dumps("loss (nats per token)")
    return _styled(layers, title, height=360, description="Loss of each run as it trained: validation and training")


def _measured(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return the names of columns that have a value, each once; at least the first."""
    known = [name for name in dict.fromkeys(names) if name in table and table[name].notna().any()]
    return known or [names[0]]


def _scores(table: pd.DataFrame) -> list[str]:
    return [name for name in map(str, table) if name.startswith("score/")]


def _select(name: str, label: str, options: list[str], labels: list[str]) -> alt.Parameter:
    binding = alt.binding_select(options=options, labels=labels, name=label)
    return alt.param(name=name, value=options[0], bind=binding)


def _lookup(parameter: str, words: Mapping[str, Any]) -> str:
    """Return the expression for what belongs to a parameter's value."""
    return f"({json.dumps(words)})[{parameter}]"


def _below(parameter: str, names: list[str], words: dict[str, str] | None = None) -> alt.Chart:
    """Return the title of the x axis as a text below it: Vega-Lite's own titles cannot follow a choice."""
    words = words or {name: column(name).heading for name in names}
    return alt.Chart(alt.InlineData(values=[{}])).mark_text(
        text=alt.ExprRef(_lookup(parameter, words)),
        x=alt.ExprRef("width"),
        y=alt.ExprRef("height + 38"),
        align="right",
        fontSize=13,
        color="currentColor",
        clip=False,
    )


def _axis(grid: bool = True, title: str | None = " ") -> alt.Axis:
    """Return an axis; a blank title keeps the room that `_below` fills."""
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


def _tooltip(study: Study) -> alt.ExprRef:
    """Return the expression for a point's tooltip: its name, its axes, and what was measured."""
    entries = ["run: datum.slug"]
    for name in study.varied:
        entries.append(f"{json.dumps(name)}: {_field(name)}")
    for name in _measured(study.table, TOLD):
        spec = number_format(name, study.table[name].dropna().astype(float)) or "~r"
        value = f"isValid({_field(name)}) ? format({_field(name)}, '{spec}') : '–'"
        entries.append(f"{json.dumps(column(name).heading)}: {value}")
    return alt.ExprRef("{" + ", ".join(entries) + "}")


def _field(name: str) -> str:
    return f"datum[{json.dumps(name)}]"


def _styled(layers: list[alt.Chart], title: str, height: int, description: str) -> alt.LayerChart:
    """Return layers as a chart in the page's ink and type, as wide as its place; `title` is an expression."""
    ink = "currentColor"
    axis = dict.fromkeys(("labelColor", "titleColor", "tickColor", "domainColor", "gridColor"), ink)
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
        .configure_title(color=ink)
        .configure_axis(
            **axis,
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
            labelColor=ink,
            labelFontSize=12,
            symbolSize=90,
            symbolStrokeWidth=1.75,
        )
    )

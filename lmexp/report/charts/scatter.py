"""The scatter chart: quality against cost of each finished run, with the frontier; any two numbers can be the axes.

Vega-Lite computes the frontier from the chosen columns, so it is always the frontier of what is shown. A box drawn in
the chart (the parameter `brush`) selects runs for all charts and the table.
"""

import json
from collections.abc import Sequence

import altair as alt
import pandas as pd

from lmexp.analysis.floor import FLOORED, distinct_floors
from lmexp.analysis.rankable import rank_groups
from lmexp.analysis.table import Study
from lmexp.report.charts.base import (
    DONE,
    INK,
    PALETTE,
    ROWS,
    SHAPES,
    Groups,
    axis,
    below,
    floor_lines,
    lookup,
    measured,
    styled,
)
from lmexp.runs.columns import COSTS, QUALITIES, column, higher_is_better


def qualities(table: pd.DataFrame, first: str) -> list[str]:
    """Return the numeric columns, with `first` and the known qualities before the others."""
    scores = [name for name in map(str, table) if name.startswith("score/")]
    return measured(table, [first, *QUALITIES, *scores, *_numeric(table)])


def costs(table: pd.DataFrame, first: str) -> list[str]:
    """Return the numeric columns, with `first` and the known costs before the others."""
    return measured(table, [first, *COSTS, *_numeric(table)])


def rank_fields(table: pd.DataFrame, names: Sequence[str]) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Return numbers of the rows that may be ranked together, by field of the page's rows, and each quality's field.

    Qualities that compare the same rows share a field.
    """
    fields: dict[str, list[int]] = {}
    field_of: dict[str, str] = {}
    of_groups: dict[bytes, str] = {}
    for name in names:
        groups = rank_groups(table, name)
        field = of_groups.setdefault(groups.tobytes(), f"rank{len(of_groups)}")
        fields[field], field_of[name] = groups.tolist(), field
    return fields, field_of


def scatter_chart(study: Study, quality: str, cost: str) -> alt.LayerChart:
    """Return the scatter of quality against cost with the frontier as a step line; data: `rows`."""
    ups, downs = qualities(study.table, quality), costs(study.table, cost)
    groups = Groups.of(study)
    rank_field = rank_fields(study.table, ups)[1]
    more_is_better = json.dumps([name for name in dict.fromkeys([*ups, *downs]) if higher_is_better(name)])
    points = (
        alt.Chart(alt.NamedData(ROWS))
        .transform_filter(DONE)
        .transform_calculate(x="datum[cost]", y="datum[quality]", group=groups.value("datum"))
        .transform_filter("isValid(datum.x) && isValid(datum.y) && (!logx || datum.x > 0) && (!logy || datum.y > 0)")
        # Less is better in `lost` and `spent`. A row is on the frontier when nothing at its cost or below is better,
        # and nothing cheaper is as good. The window takes in rows of equal cost, so ties stay together, as they do in
        # analysis/frontier.py.
        .transform_calculate(
            lost=f"indexof({more_is_better}, quality) >= 0 ? -datum.y : datum.y",
            spent=f"indexof({more_is_better}, cost) >= 0 ? -datum.x : datum.x",
            rank=f"datum[{json.dumps(rank_field)}[quality]]",
        )
        .transform_window(best="min(lost)", sort=[alt.SortField("spent")], frame=[None, 0], groupby=["rank"])
        .transform_joinaggregate(cheapest="min(spent)", groupby=["lost", "rank"])
        .transform_calculate(frontier="datum.lost === datum.best && datum.spent === datum.cheapest")
    )
    x = alt.X("x:Q", scale=alt.Scale(type="log", nice=False, padding=24), axis=axis(grid=False))
    y = alt.Y("y:Q", scale=alt.Scale(type="linear", zero=False, padding=24), axis=axis(title=None))
    steps = points.transform_filter("datum.frontier").mark_line(
        interpolate="step-after", color=INK, opacity=0.45, strokeWidth=1.5
    )
    # The page makes the text of a tooltip when it is shown (charts.js); here it would be made for every mark.
    size = 110 if len(study.table) <= 300 else 40
    marks = points.mark_point(size=size, strokeWidth=1.75, tooltip=alt.ExprRef("{row: datum.i}")).encode(
        color=groups.channel(alt.Color, PALETTE),
        shape=groups.channel(alt.Shape, SHAPES),
        fill=alt.condition("datum.frontier", groups.channel(alt.Fill, PALETTE), alt.value("transparent")),
        opacity=alt.condition("datum.selected", alt.value(1), alt.value(0.1)),
        description=alt.Description("slug:N"),
    )
    parameters = (
        alt.param(name="quality", value=quality),
        alt.param(name="cost", value=cost),
        alt.param(name="logx", value=True),
        alt.param(name="logy", value=False),
        groups.choose,
        alt.selection_interval(
            name="brush", encodings=["x", "y"], zoom=False, mark=alt.BrushConfig(fill=INK, fillOpacity=0.06, stroke=INK)
        ),
    )
    layers = [
        steps.encode(x=x, y=y, detail="rank:N"),
        marks.encode(x=x, y=y).add_params(*parameters),
        below("cost", downs),
        *floor_lines(
            [{"of": name, "floor": floor} for name in FLOORED for floor in distinct_floors(study.table, name)],
            "datum.of === quality",
        ),
    ]
    title = lookup("quality", {name: column(name).heading for name in ups})
    return styled(layers, title, height=400, description="Quality against cost of each finished run, and the frontier")


def _numeric(table: pd.DataFrame) -> list[str]:
    return [
        str(name)
        for name in table
        if pd.api.types.is_numeric_dtype(table[name]) and not pd.api.types.is_bool_dtype(table[name])
    ]

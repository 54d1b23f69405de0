"""The scatter chart: quality against cost of each finished run, with the frontier; any two numbers can be the axes.

The frontier is the one that the table marks. A box drawn in the chart (the parameter `brush`) selects runs for all
charts and the table.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from lmexp.analysis.floor import FLOORED
from lmexp.analysis.frontier import is_done, numbers
from lmexp.analysis.groups import HALF
from lmexp.analysis.rankable import rank_groups
from lmexp.analysis.table import Study
from lmexp.report.charts.base import (
    DONE,
    INK,
    PALETTE,
    PAPER,
    ROWS,
    SHAPES,
    Groups,
    axis,
    below,
    floor_lines,
    floors_of,
    lookup,
    measured,
    styled,
    ticks_of,
)
from lmexp.runs.columns import COSTS, QUALITIES, column, higher_is_better

MAX_NAMED = 6
"""Points of the scatter chart that have their names beside them."""


def qualities(table: pd.DataFrame, first: str) -> list[str]:
    """Return the numeric columns, with `first` and the known qualities before the others."""
    scores = [name for name in map(str, table) if name.startswith("score/")]
    return measured(table, [first, *QUALITIES, *scores, *_numeric(table)])


def costs(table: pd.DataFrame, first: str) -> list[str]:
    """Return the numeric columns, with `first` and the known costs before the others."""
    return measured(table, [first, *COSTS, *_numeric(table)])


@dataclass(frozen=True)
class Ranks:
    """Which rows of the page may be ranked together by each quality."""

    fields: dict[str, list[int | None]]
    """Numbers of the rows, by field of the page's rows; null for a row in no part. Qualities that compare the same rows
    share a field."""
    field_of: dict[str, str]
    """The field of each quality."""
    parts: dict[str, list[str]]
    """The names of a field's parts, by their numbers; a field whose rows may all be ranked together has none."""

    @classmethod
    def of(cls, study: Study, names: Sequence[str]) -> "Ranks":
        """Return the ranks of the qualities `names`."""
        fields: dict[str, list[int | None]] = {}
        field_of: dict[str, str] = {}
        parts: dict[str, list[str]] = {}
        of_groups: dict[bytes, str] = {}
        for name in names:
            groups = rank_groups(study.table, name)
            field_of[name] = field = of_groups.setdefault(groups.tobytes(), f"rank{len(of_groups)}")
            if field in fields:
                continue
            fields[field] = groups.tolist()
            rankable = study.rankable(name)
            if len(rankable) > 1:
                parts[field] = list(rankable)
                rows = [study.table.index.isin(part.table.index) for part in rankable.values()]
                fields[field] = [next((at for at, own in enumerate(of) if own), None) for of in zip(*rows, strict=True)]
        return cls(fields, field_of, parts)


def scatter_chart(study: Study, quality: str, cost: str, groups: Groups, ranks: Ranks) -> alt.LayerChart:
    """Return the scatter of quality against cost with the frontier as a step line; data: `rows`.

    If rows do not all compare, the parameter `part` names the part that the rows are of.
    A row is a run, or the mean of a setting; then the row has half the 95 % interval of each number that differs
    within the setting, in a column with the suffix HALF. `frontier` says whether the row is on the frontier.
    """
    ups, downs = qualities(study.table, quality), costs(study.table, cost)
    points = (
        alt.Chart(alt.NamedData(ROWS))
        .transform_filter(DONE)
        .transform_calculate(
            x="datum[cost]",
            y="datum[quality]",
            group=groups.value("datum"),
            rank=f"datum[{json.dumps({name: ranks.field_of[name] for name in ups})}[quality]]",
            dx=f"datum[cost + '{HALF}']",
            dy=f"datum[quality + '{HALF}']",
        )
        .transform_filter("isValid(datum.x) && isValid(datum.y) && (!logx || datum.x > 0) && (!logy || datum.y > 0)")
    )
    ticks = {name: ticks_of(numbers(study.table, name)[is_done(study.table)]) for name in dict.fromkeys([*ups, *downs])}
    x = alt.X(
        "x:Q",
        scale=alt.Scale(type="log", nice=False, padding=24),
        axis=axis(grid=False, ticks=f"logx ? {lookup('cost', ticks)} : null"),
    )
    y = alt.Y(
        "y:Q",
        scale=alt.Scale(type="linear", zero=False, nice=False, padding=24),
        axis=axis(title=None, ticks=f"logy ? {lookup('quality', ticks)} : null"),
    )
    steps = points.transform_filter("datum.frontier").mark_line(
        interpolate="step-after", color=INK, opacity=0.45, strokeWidth=1.5
    )
    # The page makes the text of a tooltip when it is shown (charts.js); here it would be made for every mark.
    size = 110 if len(study.table) <= 300 else 40
    marks = points.mark_point(
        size=size, strokeWidth=1.75, tooltip=alt.ExprRef("{row: datum.i, setting: datum.n > 0}")
    ).encode(
        color=groups.channel(alt.Color, PALETTE),
        shape=groups.channel(alt.Shape, SHAPES),
        fill=alt.condition("datum.frontier", groups.channel(alt.Fill, PALETTE), alt.value("transparent")),
        opacity=_seen(1),
        description=alt.Description("slug:N"),
    )
    parameters = (
        alt.param(name="quality", value=quality),
        alt.param(name="cost", value=cost),
        alt.param(name="logx", value=True),
        alt.param(name="logy", value=False),
        *([alt.param(name="part", value=None)] if ranks.parts else []),
        groups.choose,
        alt.selection_interval(
            name="brush", encodings=["x", "y"], zoom=False, mark=alt.BrushConfig(fill=INK, fillOpacity=0.06, stroke=INK)
        ),
    )
    color = groups.channel(alt.Color, PALETTE)
    layers = [
        steps.encode(x=x, y=y, detail="rank:N"),
        *(bars.encode(color=color, opacity=_seen(0.7)) for bars in _bars(points, x, y)),
        # Below the marks, so that no name hides a mark.
        *(names.encode(x=x, y=y) for names in _names(points, ups)),
        marks.encode(x=x, y=y).add_params(*parameters),
        below("cost", {name: column(name).heading for name in downs}),
        *floor_lines([floor for name in FLOORED for floor in floors_of(study, name)], "datum.of === quality"),
    ]
    title = lookup("quality", {name: column(name).heading for name in ups})
    title += " + (part ? ', ' + part : '')" if ranks.parts else ""
    return styled(layers, title, height=400, description="Quality against cost of each finished run, and the frontier")


def _seen(opacity: float) -> Any:
    """Return the opacity of a mark, which is dimmed if the reader has not selected its row."""
    return alt.condition("datum.selected", alt.value(opacity), alt.value(0.1))


def _bars(points: alt.Chart, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Return the 95 % intervals of the means along both axes, without those that a logarithmic axis cannot show."""
    high = points.transform_calculate(low="datum.y - datum.dy", high="datum.y + datum.dy")
    wide = points.transform_calculate(low="datum.x - datum.dx", high="datum.x + datum.dx")
    return [
        wide.transform_filter("datum.dx > 0 && (!logx || datum.low > 0)")
        .mark_rule(strokeWidth=1.25)
        .encode(x=_as(x, "low"), x2="high:Q", y=y),
        high.transform_filter("datum.dy > 0 && (!logy || datum.low > 0)")
        .mark_rule(strokeWidth=1.25)
        .encode(x=x, y=_as(y, "low"), y2="high:Q"),
    ]


def _as(channel: Any, field: str) -> Any:
    """Return an axis with another field."""
    changed = channel.copy(deep=False)
    changed.shorthand = f"{field}:Q"
    return changed


def _names(points: alt.Chart, qualities: Sequence[str]) -> list[alt.Chart]:
    """Return the names of a few points, and a rim in the colour of the background behind them, where lines pass.

    The points are the two ends of the frontier, and those far from the others in quality. Far is more than three times
    the interquartile range above the third quartile or below the first: the outer fences of Tukey, Exploratory Data
    Analysis, 1977, section 2D. At most MAX_NAMED points are named, the farthest first.

    The name of an end of the frontier stands on the side where quality is better: no mark is better there, except
    those of the frontier. The name of a point far below the others stands below it, and that of one far above, above.
    """
    best_is_low = lookup("quality", {name: not higher_is_better(name) for name in qualities})
    judged = (
        points.transform_calculate(of_frontier="datum.frontier ? datum.y : NaN")
        .transform_joinaggregate(
            q1="q1(y)", q3="q3(y)", lowest="min(of_frontier)", highest="max(of_frontier)", groupby=["rank"]
        )
        .transform_calculate(
            far="max(datum.q1 - datum.y, datum.y - datum.q3) - 3 * (datum.q3 - datum.q1)",
            is_end="datum.frontier && (datum.y === datum.lowest || datum.y === datum.highest)",
            is_below=f"datum.frontier ? {best_is_low} : datum.y < datum.q1",
        )
        .transform_calculate(weight="datum.is_end ? 1e300 : datum.far")
        .transform_filter("datum.weight > 0 && datum.selected")
        .transform_window(place="row_number()", sort=[alt.SortField("weight", order="descending")])
        .transform_filter(f"datum.place <= {MAX_NAMED}")
    )
    is_right = "scale('x', datum.x) > width / 2"
    place: dict[str, Any] = {
        "align": alt.ExprRef(f"{is_right} ? 'right' : 'left'"),
        "dx": alt.ExprRef(f"{is_right} ? -9 : 9"),
        "dy": alt.ExprRef("datum.is_below ? 15 : -9"),
        "fontSize": 11,
        "limit": alt.ExprRef("width * 0.4"),
    }
    return [
        judged.mark_text(**place, stroke=PAPER, strokeWidth=4, strokeJoin="round").encode(text="label:N"),
        judged.mark_text(**place, color=INK, opacity=0.8).encode(text="label:N"),
    ]


def _numeric(table: pd.DataFrame) -> list[str]:
    return [
        str(name)
        for name in table
        if pd.api.types.is_numeric_dtype(table[name]) and not pd.api.types.is_bool_dtype(table[name])
    ]

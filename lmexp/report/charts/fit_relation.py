"""The charts of a fitted relation: what was measured, and the fitted lines."""

import json
from typing import Any

import altair as alt

from lmexp.analysis.scaling.relations.relation import Picture, Relation
from lmexp.report.charts.base import PALETTE, styled
from lmexp.report.charts.fit_encodings import data_rows, log_axis, name_tip, tip, tips

HEIGHT = 380
LEGEND_COLUMNS = 6


def relation_charts(relation: Relation) -> dict[str, alt.LayerChart]:
    """Return the charts by the name of the file that each is written to."""
    return {name: _chart(picture) for name, picture in relation.pictures.items()}


def _chart(picture: Picture) -> alt.LayerChart:
    marks, lines = (
        data_rows({"x": [x for x, _, _ in of], "y": [y for _, y, _ in of], "by": [by for _, _, by in of]})
        for of in (picture.marks, picture.lines)
    )
    groups = list(dict.fromkeys(by for _, _, by in picture.marks))
    shared = not {by for _, _, by in picture.lines} <= set(groups)
    legend = alt.Legend(title=picture.colour, symbolOpacity=1, columns=LEGEND_COLUMNS) if picture.colour else None
    colours = [PALETTE[i % len(PALETTE)] for i in range(len(groups))]
    colour = alt.Color("by:N", sort=None, scale=alt.Scale(domain=groups, range=colours), legend=legend)
    base: dict[str, Any] = {
        "x": _axis("x", picture.x, [x for x, _, _ in picture.marks], picture.log_x),
        "y": _axis("y", picture.y, [y for _, y, _ in picture.marks], picture.log_y),
    }
    by = [name_tip("by", picture.colour)] if picture.colour else []
    told = tips(*by, tip("x", picture.x, ".4g"), tip("y", picture.y, ".4g"))
    line = alt.Chart(alt.InlineData(values=lines)).mark_line(strokeWidth=1.75, clip=True)
    points = alt.Chart(alt.InlineData(values=marks)).mark_point(size=40)
    layers = [
        line.encode(**base) if shared else line.encode(**base, color=colour),
        points.encode(**base, color=colour, **told),
    ]
    return styled(layers, json.dumps(picture.title), HEIGHT, picture.title)


def _axis(field: str, title: str, values: list[float], is_log: bool) -> Any:
    """Return an axis that spans the values instead of starting at 0."""
    channel = alt.X if field == "x" else alt.Y
    if is_log and min(values) >= 1:
        return log_axis(field, title, values, channel)
    scale = alt.Scale(type="log", nice=False, padding=16) if is_log else alt.Scale(zero=False, padding=16)
    return channel(
        f"{field}:Q", scale=scale, axis=alt.Axis(title=title, titleFontWeight="normal", format="~g", tickCount=6)
    )

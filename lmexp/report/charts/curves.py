"""The chart of the learning curves: the loss of each run against tokens, compute, time or money."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from lmexp.analysis.table import Study
from lmexp.report.charts.base import (
    CURVES,
    PALETTE,
    ROWS,
    SHAPES,
    Groups,
    axis,
    below,
    floor_lines,
    floors_of,
    lookup,
    short_number,
    styled,
    ticks_of,
)

CURVE_AXES = {
    "tokens": "training tokens",
    "flops": "training compute (FLOPs)",
    "seconds": "training time (s)",
    "dollars": "price of the time (dollars)",
}
"""The possible x axes of a curve. Dollars are the training time at the hourly price of the run, if it has one."""


def curves_chart(study: Study, curves: Sequence[Mapping[str, Any]], groups: Groups) -> alt.LayerChart:
    """Return the learning curves of all runs or settings; data: `curves` and, for the colours, `rows`.

    `curves` are those of the page's data (page/curves.py). The mean curve of a setting also has `half`, half the 95 %
    interval of each loss.
    """
    ticks = {name: ticks_of([x for curve in curves for x in curve[name] if x is not None]) for name in CURVE_AXES}
    lines = (
        alt.Chart(alt.NamedData(CURVES))
        .transform_lookup(lookup="run_id", from_=alt.LookupData(alt.NamedData(ROWS), key="run_id"), as_="run")
        .transform_calculate(half="datum.half || []")
        .transform_flatten([*CURVE_AXES, "loss", "half"])
        .transform_calculate(x="datum[against]", group=groups.value("datum.run"), slug="datum.run.slug")
        .transform_filter("isValid(datum.x) && isValid(datum.loss) && datum.x > 0")
    )
    encodings = {
        "x": alt.X(
            "x:Q", scale=alt.Scale(type="log", nice=False), axis=axis(grid=False, ticks=lookup("against", ticks))
        ),
        "y": alt.Y("loss:Q", scale=alt.Scale(zero=False), axis=axis(title=None)),
        "color": groups.channel(alt.Color, PALETTE),
        "detail": alt.Detail("run_id:N"),
    }
    training = lines.transform_filter("datum.kind === 'train'").mark_line(strokeWidth=1, opacity=0.4)
    validation = lines.transform_filter("datum.kind === 'validation'")
    bars = (
        validation.transform_filter("datum.half > 0")
        .transform_calculate(low="datum.loss - datum.half", high="datum.loss + datum.half")
        .mark_rule(strokeWidth=1.25, opacity=0.7)
        .encode(**(encodings | {"y": alt.Y("low:Q", scale=alt.Scale(zero=False), axis=axis(title=None))}), y2="high:Q")
    )
    interval = "isValid(datum.half) ? ' ± ' + format(datum.half, '.4f') : ''"
    tooltip = alt.ExprRef(
        f"{{run: datum.slug, 'validation loss': format(datum.loss, '.4f') + ({interval}), "
        f"tokens: {short_number('datum.tokens')}, FLOPs: {short_number('datum.flops')}, "
        "seconds: format(datum.seconds, ',.1f')}"
    )
    floors = floors_of(study, "loss")
    chosen_part = [alt.param(name="part", value=None)] if any("part" in floor for floor in floors) else []
    layers = [
        training.encode(**encodings).add_params(alt.param(name="against", value="tokens"), *chosen_part, groups.choose),
        bars,
        validation.mark_line(strokeWidth=1.75, tooltip=alt.ExprRef("{run: datum.slug}")).encode(**encodings),
        validation.mark_point(size=45, filled=True, opacity=1, tooltip=tooltip).encode(
            **encodings, shape=groups.channel(alt.Shape, SHAPES)
        ),
        below("against", CURVE_AXES),
        *floor_lines(floors),
    ]
    title = json.dumps("loss (nats)")
    return styled(layers, title, height=360, description="Loss of each run as it trained: validation and training")

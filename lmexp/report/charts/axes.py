"""What the swept axes do: all at once (parallel coordinates), one by one (effects), two together (heat map)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from lmexp.analysis.columns import axis_headings, number_format, value_text
from lmexp.analysis.frontier import numbers
from lmexp.analysis.table import Study
from lmexp.report.charts.base import DONE, INK, MAX_GROUPS, PAIRS, PALETTE, PAPER, ROWS, Groups, below, lookup, styled
from lmexp.report.charts.scatter import qualities
from lmexp.report.values import as_script
from lmexp.runs.columns import column, higher_is_better

DRAWN_PAIRS = 2000
"""At most this many pairs are drawn as ticks; the means are over all pairs."""


def parallel_chart(lines: Sequence[Mapping[str, Any]], groups: Groups) -> alt.LayerChart:
    """Return one line a run through its settings, its quality and its cost; data: `rows`.

    `lines` describes each vertical line: `key`, the column of `rows` that holds where a run crosses it (0 to 1),
    `title`, and `ticks`, pairs of such a place and its label (page_data.py). A box drawn across lines (the
    parameter `brush`) picks the runs that cross them inside it.
    """
    keys: list[str | alt.FieldName] = [str(line["key"]) for line in lines]
    runs = (
        alt.Chart(alt.NamedData(ROWS))
        .transform_filter("datum.drawn !== false && " + DONE)
        .transform_fold(keys, as_=["key", "y"])
        .transform_calculate(x=f"indexof({json.dumps(keys)}, datum.key)", group=groups.value("datum"))
        .transform_filter("isValid(datum.y)")
    )
    last = len(lines) - 1
    x = alt.X("x:Q", scale=alt.Scale(domain=[-0.25, last + 0.25], nice=False, zero=False), axis=None)
    y = alt.Y("y:Q", scale=alt.Scale(domain=[-0.06, 1.06], nice=False), axis=None)
    titles = [{"x": i, "y": -0.06, "title": line["title"]} for i, line in enumerate(lines)]
    ticks = [{"x": i, "y": at, "label": label} for i, line in enumerate(lines) for at, label in line["ticks"]]
    labels = alt.Chart(alt.InlineData(values=ticks))
    place: dict[str, Any] = {"align": "left", "dx": 6, "fontSize": 11, "limit": 110}
    posts = alt.Chart(alt.InlineData(values=titles))
    layers = [
        posts.mark_rule(color=INK, opacity=0.35, clip=True).encode(x=x),
        runs.mark_line(strokeWidth=1.25, tooltip=alt.ExprRef("{row: datum.i}"))
        .encode(
            x=x,
            y=y,
            color=groups.channel(alt.Color, PALETTE),
            detail="i:N",
            order="x:Q",
            opacity=alt.condition("datum.selected", alt.value(0.75), alt.value(0.06)),
        )
        .add_params(
            groups.choose,
            alt.selection_interval(
                name="brush",
                encodings=["x", "y"],
                zoom=False,
                mark=alt.BrushConfig(fill=INK, fillOpacity=0.06, stroke=INK),
            ),
        ),
        posts.mark_text(
            dy=16, fontSize=12, fontWeight="bold", color=INK, limit=alt.ExprRef(f"width / {len(lines)} - 6"), clip=False
        ).encode(x=x, y=y, text="title:N"),
        # Twice: a rim in the colour of the background keeps labels readable where lines pass.
        labels.mark_text(**place, stroke=PAPER, strokeWidth=4, strokeJoin="round").encode(x=x, y=y, text="label:N"),
        labels.mark_text(**place, color=INK).encode(x=x, y=y, text="label:N"),
    ]
    description = "Each finished run as a line through its settings, its quality and its cost"
    return styled(layers, json.dumps(""), height=340, description=description)


def effects_chart(study: Study, quality: str, effects: Sequence[Mapping[str, Any]]) -> alt.LayerChart:
    """Return the mean change of the quality for each value of an axis against the first one; data: `pairs`.

    `effects` are those of the page's data (page/data.py), which also says what `pairs` holds. The mark is the mean over
    the pairs; the bar is its 95 % interval, for which analysis/effects knows the scatter of a pair.
    """
    ups = qualities(study.table, quality)
    half_of_one: dict[str, dict[str, float | None]] = {name: {} for name in ups}
    of_pairs: dict[str, list[float]] = {name: [] for name in ups}
    values = {name: numbers(study.table, name) for name in ups}
    for effect in effects:
        for name, half in effect["half_of_one_pair"].items():
            half_of_one[name][effect["label"]] = half
            of_pairs[name] += (values[name][effect["after"]] - values[name][effect["before"]]).tolist()
    # All changes of a column have the same decimals: the column's own, as in the table, or what their size needs.
    formats = {name: f"+{number_format(name, of_pairs[name]) or ',.2f'}" for name in ups}
    spec = lookup("quality", formats)
    labels = list(dict.fromkeys(effect["label"] for effect in effects))
    short = {effect["label"]: effect["short"] for effect in effects if effect["short"] != effect["label"]}
    changes = alt.Chart(alt.NamedData(PAIRS))
    means = changes.transform_aggregate(mean="mean(change)", pairs="count()", groupby=["label"]).transform_calculate(
        one=f"({json.dumps(half_of_one)})[quality][datum.label]"
    )
    means = means.transform_calculate(half="isValid(datum.one) ? datum.one / sqrt(datum.pairs) : NaN")
    means = means.transform_calculate(
        interval=f"isFinite(datum.half) ? format(datum.mean - datum.half, {spec}) + ' to ' + "
        f"format(datum.mean + datum.half, {spec}) : 'unknown'",
        change=f"format(datum.mean, {spec})",
    ).transform_calculate(words="datum.label + ': ' + datum.change + ', 95 % interval ' + datum.interval")
    rows = alt.Y(
        "label:N",
        scale=alt.Scale(domain=labels),
        # A label may begin with the part of the study. The chart shows one part, whose name stands elsewhere.
        axis=alt.Axis(
            title=None,
            grid=False,
            labelLimit=260,
            ticks=False,
            domain=False,
            labelExpr=f"({json.dumps(short)})[datum.value] || datum.label" if short else alt.Undefined,
        ),
    )
    tooltip = alt.ExprRef("{effect: datum.label, mean: datum.change, pairs: datum.pairs, interval: datum.interval}")
    x = alt.Axis(title=None, tickCount=6, format="+,f", labelExpr="datum.value ? datum.label : '0'")
    every = 1 + 2 * (len(study.table) // DRAWN_PAIRS)  # odd: axes of two, four or eight values are not in step with it
    layers = [
        alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color=INK, opacity=0.5).encode(x="zero:Q"),
        changes.transform_filter(f"datum.pair % {every} === 0")
        .mark_tick(thickness=1.5, size=12, opacity=0.35, color=INK)
        .encode(x=alt.X("change:Q", axis=x), y=rows),
        means.transform_filter("isFinite(datum.half)")
        .transform_calculate(low="datum.mean - datum.half", high="datum.mean + datum.half")
        .mark_rule(strokeWidth=2, color=PALETTE[0])
        .encode(x=alt.X("low:Q", axis=x), x2="high:Q", y=rows),
        means.mark_point(size=80, filled=True, opacity=1, color=PALETTE[0], tooltip=tooltip)
        .encode(x=alt.X("mean:Q", axis=x), y=rows, description="words:N")
        .add_params(alt.param(name="quality", value=quality)),
    ]
    titles = {name: f"change in {column(name).heading}; {_better(name)} is better" for name in ups}
    description = "Mean change in quality by each value of an axis, over paired runs, with its interval"
    return styled(layers, lookup("quality", titles), height=30 * len(labels), description=description)


def heat_chart(study: Study, quality: str, axes: Sequence[str]) -> alt.LayerChart:
    """Return the mean quality for the values of two axes; data: `rows`. `axes` are those that may be chosen.

    A row is a run, or the mean of a setting over its `n` runs, so that a setting with more seeds has no more weight.
    """
    ups = qualities(study.table, quality)
    orders = {axis: _values(study, axis) for axis in axes}
    down, across = axes[0], axes[1]
    cells = _mean_of_cells()
    heads = axis_headings(study.varied)
    values = {name: study.table[name].dropna().unique().tolist() for name in axes}
    texts = {name: {as_script(value): value_text(value) for value in of_axis} for name, of_axis in values.items()}
    x = alt.X(
        "a:O",
        scale=alt.Scale(domain=alt.ExprRef(lookup("across", orders)), padding=0.02),
        axis=_heat_axis("across", texts, labelAngle=0, labelLimit=120, title=" "),
    )
    y = alt.Y(
        "d:O",
        scale=alt.Scale(domain=alt.ExprRef(lookup("down", orders)), padding=0.04),
        axis=_heat_axis("down", texts, labelLimit=160, title=None),
    )
    colour = alt.Color("mean:Q", scale=alt.Scale(scheme="viridis", zero=False), legend=None)
    # All cells have the decimals of the table; the mean of whole numbers is none, and has two.
    formats = {name: number_format(name, numbers(study.table, name).tolist()) or ",.2f" for name in ups}
    tooltip = alt.ExprRef("{across: datum.a, down: datum.d, mean: datum.text, runs: datum.runs}")
    cells = cells.transform_calculate(text=f"format(datum.mean, {lookup('quality', formats)})")
    words = {"x": x, "y": y, "text": "text:N"}
    layers = [
        cells.mark_rect(tooltip=tooltip, cornerRadius=2)
        .encode(x=x, y=y, color=colour)
        .add_params(
            alt.param(name="quality", value=quality),
            alt.param(name="across", value=across),
            alt.param(name="down", value=down),
        ),
        cells.mark_text(fontSize=12).encode(
            **words, color=alt.condition("datum.share > 0.55", alt.value("#10151a"), alt.value("#ffffff"))
        ),
        below("across", heads),
    ]
    means = lookup("quality", {name: f"mean {column(name).heading}" for name in ups})
    title = f"{means} + '; down: ' + {lookup('down', heads)}"
    return styled(
        layers,
        title,
        height=max(40 * max(map(len, orders.values())), 160),
        description="Mean quality for the values of two axes",
    )


def _heat_axis(parameter: str, texts: Mapping[str, Mapping[str, str]], **options: Any) -> alt.Axis:
    label = f"{lookup(parameter, texts)}[datum.label] || datum.label"
    return alt.Axis(labelExpr=label, labelOverlap="greedy", grid=False, domain=False, ticks=False, **options)


def _mean_of_cells() -> alt.Chart:
    """Return the chart's data: the mean quality for each pair of values (`a`, `d`), and where in the range it lies."""
    return (
        alt.Chart(alt.NamedData(ROWS))
        .transform_filter(f"datum.selected && {DONE} && isValid(datum[quality])")
        .transform_filter("isValid(datum[across]) && isValid(datum[down])")
        .transform_calculate(a="toString(datum[across])", d="toString(datum[down])", q="datum[quality]")
        .transform_calculate(runs="datum.n || 1")
        .transform_aggregate(mean="mean(q)", runs="sum(runs)", groupby=["a", "d"])
        .transform_joinaggregate(least="min(mean)", most="max(mean)")
        .transform_calculate(
            share="datum.most > datum.least ? (datum.mean - datum.least)/(datum.most - datum.least) : 0"
        )
    )


def by_effect(study: Study, quality: str, effects: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the axes with an effect on the quality, the largest first: by the largest mean change of one value.

    `effects` are those of the page's data (page/data.py).
    """
    values = numbers(study.table, quality)
    sizes: dict[str, float] = {}
    for effect in effects:
        if quality in effect["half_of_one_pair"]:
            change = abs(float(np.mean(values[effect["after"]] - values[effect["before"]])))
            sizes[effect["axis"]] = max(change, sizes.get(effect["axis"], 0.0))
    return sorted(sizes, key=lambda axis: -sizes[axis])


def shown_axes(study: Study, order: Sequence[str] = ()) -> list[str]:
    """Return the axes with few enough values for a row, a column or a colour each; those in `order` come first."""
    axes = [axis for axis in study.varied if 1 < len(_values(study, axis)) <= MAX_GROUPS]
    others = sorted((axis for axis in axes if axis not in order), key=lambda axis: axis == "seed")
    return [*(axis for axis in order if axis in axes), *others]


def _values(study: Study, axis: str) -> list[str]:
    """Return the values of an axis as the page's script writes them, in the order of the sweep, without repeats."""
    values = study.table[axis].dropna().unique().tolist()
    order = {str(value): i for i, value in enumerate(study.axes[axis])}
    ordered = sorted(values, key=lambda value: order.get(str(value), len(order)))
    return list(dict.fromkeys(as_script(value) for value in ordered))


def _better(name: str) -> str:
    return "more" if higher_is_better(name) else "less"

"""The chart that shows the answer of a study; it is chosen by the design that chose the answer (analysis/answer.py).

Some designs are shown best by a chart that the page has anyway: effects, the scatter, or learning curves. The others
have one of their own, which holds the numbers that the sentences of the answer quote.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from lmexp.analysis.answer import Answer, Design
from lmexp.analysis.frontier import is_done
from lmexp.analysis.scaling.answers import Answer as Fitted
from lmexp.analysis.scaling.checks import size_of
from lmexp.analysis.scaling.words import about_budgets, estimate_text, loss_text
from lmexp.analysis.table import Study
from lmexp.analysis.versus.versus import OVERALL, Versus
from lmexp.analysis.versus.versus import in_words as speedup_in_words
from lmexp.report.charts.base import DONE, INK, NUMBERS, PALETTE, PAPER, ROWS, styled
from lmexp.report.charts.claims import verdict_chart
from lmexp.report.charts.fit import COMPUTE, STEPS, floor_of, isoflop_chart, optimum_lines
from lmexp.report.charts.fit_encodings import (
    IF_SELECTED,
    SHADES,
    data_rows,
    log_axis,
    loss_axis,
    name_tip,
    run_rows,
    selectable,
    shade_by_size,
    tip,
    tips,
)
from lmexp.report.said import Said
from lmexp.runs.columns import column, higher_is_better
from lmexp.units import flops_text, si

MAX_SIZES = 12
"""With more sizes than this, the law has no line for each."""
ROW = 26
"""Pixels of a row of a chart that has rows."""


@dataclass(frozen=True)
class Lead:
    """The chart that shows an answer."""

    name: str
    """Its name among the charts of the page."""
    chart: alt.LayerChart | None = None
    """None if it is one of those that every page may have."""
    words: tuple[str, ...] = ()
    """What it shows, as sentences."""
    reads: tuple[str, ...] = ()
    """Columns of the page's rows that it draws."""


def lead_of(study: Study, said: Said, quality: str, drawn: Collection[str]) -> Lead | None:
    """Return the chart that shows the answer; `drawn` are the names of the page's other charts.

    None if there is nothing to draw.
    """
    verdicts = verdict_chart(said.claims)
    if verdicts is not None:
        return Lead("claims", verdicts, said.verdicts)
    basis = said.basis
    own = _OWN.get(basis.design) if basis else None
    lead = own(study, basis, quality) if own and basis else None
    if lead is not None:
        return lead
    if basis is not None and basis.design is Design.EFFECTS and "effects" in drawn:
        return Lead("effects")
    several = int(is_done(study.table).sum()) > 1
    return next((Lead(name) for name in (("scatter", "curves") if several else ("curves",)) if name in drawn), None)


def _isoflop(study: Study, of: Answer, quality: str) -> Lead | None:
    assert of.points is not None
    return Lead("isoflop", isoflop_chart(of.points, of.budgets), tuple(about_budgets(of.points, of.budgets)))


def _law(study: Study, of: Answer, quality: str) -> Lead | None:
    assert of.law is not None
    return Lead("law", law_chart(of.law), tuple(_about_law(of.law))) if of.law.points.has_sizes else None


def _arms(study: Study, of: Answer, quality: str) -> Lead | None:
    assert of.speedups is not None
    return Lead("speedup", speedup_chart(of.speedups), tuple(_about_arms(of.speedups)))


def _search(study: Study, of: Answer, quality: str) -> Lead | None:
    if len(study.objectives) > 1:
        return None  # the scatter shows their frontier
    return Lead("trials", trials_chart(quality), reads=(quality,))


_OWN: dict[Design, Callable[[Study, Answer, str], Lead | None]] = {
    Design.ISOFLOP: _isoflop,
    Design.LAW: _law,
    Design.ARMS: _arms,
    Design.SEARCH: _search,
}


def law_chart(answer: Fitted) -> alt.LayerChart:
    """Return the loss of the runs against compute, the law at each size, and its lowest loss up to the prediction.

    The law is the one that the answer quotes. The prediction is that at the last default budget, ten times the
    largest run, with its 95 % interval.
    """
    points, law = answer.points, answer.trusted
    rows, lines = run_rows(points, np.arange(len(points))), []
    sizes = size_of(points.params)
    means = np.exp(np.bincount(sizes, np.log(points.params)) / np.bincount(sizes))
    if law.law.inputs == ("params", "tokens") and sizes.max() < MAX_SIZES:
        for size in range(int(sizes.max()) + 1):
            its = np.flatnonzero(sizes == size)
            tokens = np.geomspace(points.tokens[its].min(), points.tokens[its].max(), STEPS)
            params = float(means[size])
            flops = tokens * float(np.median(points.flops[its] / points.tokens[its]))
            lines += data_rows({"flops": flops, "loss": law.loss(params, tokens).value}, params=params)
    best = [row for row in answer.best if row.by == law.law.name and row.loss is not None][-1:]
    highest = max([float(points.flops.max()), *(row.flops for row in best)])
    x = log_axis("flops", COMPUTE, [points.flops.min(), highest])
    layers = [
        alt.Chart(alt.InlineData(values=lines))
        .mark_line(strokeWidth=1.25, opacity=0.8)
        .encode(
            x=x,
            y=loss_axis(),
            detail="params:N",
            stroke=alt.Stroke("params:Q", legend=None, scale=alt.Scale(type="log", range=SHADES)),
        ),
        selectable(rows)
        .mark_point(size=50, filled=True)
        .encode(
            x=x,
            y=loss_axis(),
            fill=shade_by_size(means.tolist()),
            opacity=IF_SELECTED,
            **tips(
                *([name_tip("run", "run")] if points.names is not None else []),
                tip("params", "parameters"),
                tip("tokens", "tokens"),
                tip("flops", "FLOPs"),
                tip("loss", "loss", ".4f"),
            ),
        ),
        *floor_of(answer),
    ]
    if best:
        layers = [*optimum_lines(answer, law, x), *layers, *_prediction(best[0], x)]
    title = f"loss (nats): the runs, and by {law.law.name} the loss of each size and the lowest for each budget"
    said = "Loss of each run against its compute, the law's curve at each size, and its lowest loss with its interval"
    return styled(layers, json.dumps(title), 380, said)


def _prediction(best: Any, x: alt.X) -> list[alt.Chart]:
    """Return the mark of a predicted loss, its interval and its number."""
    value, low, high = (float(part) for part in best.loss)
    label = f"{best.beyond:.3g}x the compute: {estimate_text(best.loss, loss_text)}"
    rows = data_rows({"flops": [best.flops], "loss": [value], "low": [low], "high": [high]}, label=label)
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=x)
    above = base.encode(y=loss_axis("high"), text="label:N")
    text: dict[str, Any] = {"align": "right", "dx": 10, "dy": -9, "fontSize": 12}
    return [
        base.mark_rule(strokeWidth=1.75, color=INK).encode(y=loss_axis("low"), y2="high:Q"),
        base.mark_point(shape="diamond", size=120, filled=True, opacity=1, color=INK).encode(
            y=loss_axis(),
            **tips(tip("flops", "FLOPs"), tip("loss", "loss", ".4f"), tip("low", "from"), tip("high", "to")),
        ),
        above.mark_text(**text, stroke=PAPER, strokeWidth=4, strokeJoin="round"),
        above.mark_text(**text, color=INK),
    ]


def _about_law(answer: Fitted) -> list[str]:
    name = answer.trusted.law.name
    rows = [row for row in answer.best if row.by == name and row.loss is not None]
    return [
        f"At {flops_text(row.flops)} FLOPs, {row.beyond:.3g} times the largest run, the lowest loss is "
        f"{estimate_text(row.loss, loss_text)}, at {estimate_text(row.params, si)} parameters, by {name}."
        for row in rows
        if row.loss is not None
    ]


def speedup_chart(compared: Versus) -> alt.LayerChart:
    """Return how much less compute each arm needs than the baseline for equal quality, at each scale and over all."""
    rows: list[dict[str, Any]] = []
    for arm in compared.arms:
        one = arm.costs["flops"]
        scales = [each for each in one.scales if each.value is not None] if len(one.scales) > 1 else []
        for speedup in (*scales, one.overall):
            part = "all scales" if speedup.scale == OVERALL else speedup.scale
            label = part if len(compared.arms) == 1 else f"{arm.arm}, {part}" if scales else arm.arm
            columns = {"speedup": [speedup.value], "low": [speedup.low], "high": [speedup.high]}
            words = speedup_in_words(speedup, compared.baseline, arm.arm, one.cost, compared.confidence)
            rows += data_rows(columns, label=label, words=words, overall=speedup is one.overall)
    values = [row[name] for row in rows for name in ("speedup", "low", "high") if row[name] is not None]
    x = alt.X(
        "speedup:Q",
        title=None,
        scale=alt.Scale(type="log", nice=False, padding=24, domain=[min([*values, 1.0]), max([*values, 1.0])]),
        axis=alt.Axis(tickCount=6, labelExpr=NUMBERS + " + 'x'", labelOverlap="greedy"),
    )
    y = alt.Y(
        "label:N",
        scale=alt.Scale(domain=[row["label"] for row in rows]),
        axis=alt.Axis(title=None, grid=False, labelLimit=260, ticks=False, domain=False),
    )
    base = alt.Chart(alt.InlineData(values=rows)).encode(y=y)
    layers = [
        alt.Chart(alt.InlineData(values=[{"speedup": 1}])).mark_rule(color=INK, opacity=0.5).encode(x=x),
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=2, color=PALETTE[0])
        .encode(x=alt.X("low:Q", title=None), x2="high:Q"),
        base.mark_point(size=90, filled=True, opacity=1, color=PALETTE[0]).encode(
            x=x,
            shape=alt.Shape(
                "overall:N", scale=alt.Scale(domain=[False, True], range=["circle", "diamond"]), legend=None
            ),
            description="words:N",
            tooltip=tips(tip("speedup", "speedup", ".3g"), tip("low", "from", ".3g"), tip("high", "to", ".3g"))[
                "tooltip"
            ],
        ),
    ]
    arms = compared.arms[0].arm if len(compared.arms) == 1 else "each arm"
    title = (
        f"times the training compute that {compared.baseline} needs, divided by what {arms} needs for equal "
        f"{column(compared.quality).title}; more is better"
    )
    said = "Speedup of each arm over the baseline in training compute, with its interval"
    return styled(layers, json.dumps(title), ROW * len(rows) + 40, said)


def _about_arms(compared: Versus) -> list[str]:
    return [
        ("" if speedup is one.overall else f"{speedup.scale}: ")
        + speedup_in_words(speedup, compared.baseline, arm.arm, one.cost, compared.confidence)
        for arm in compared.arms
        for one in [arm.costs["flops"]]
        for speedup in (one.overall, *(one.scales if len(one.scales) > 1 else ()))
        if speedup.value is not None
    ]


def trials_chart(quality: str) -> alt.LayerChart:
    """Return the quality of each finished trial in the order of the search, and the best so far; data: `rows`."""
    best = "max" if higher_is_better(quality) else "min"
    trials = (
        alt.Chart(alt.NamedData(ROWS))
        .transform_filter(DONE)
        .transform_calculate(y=f"datum[{json.dumps(quality)}]", trial="datum.i + 1")
        .transform_filter("isValid(datum.y)")
        .transform_window(best=f"{best}(y)", sort=[alt.SortField("trial")], frame=[None, 0])
    )
    x = alt.X(
        "trial:Q",
        scale=alt.Scale(nice=False, padding=24, zero=False),
        axis=alt.Axis(title="trial", titleFontWeight="normal", grid=False, tickMinStep=1, format="d"),
    )
    y = alt.Y("y:Q", scale=alt.Scale(zero=False, padding=24), axis=alt.Axis(title=None, tickCount=6))
    layers = [
        trials.mark_line(interpolate="step-after", color=INK, opacity=0.45, strokeWidth=1.5).encode(
            x=x, y=alt.Y("best:Q", scale=alt.Scale(zero=False, padding=24), axis=alt.Axis(title=None, tickCount=6))
        ),
        trials.mark_point(size=90, filled=True, color=PALETTE[0], tooltip=alt.ExprRef("{row: datum.i}")).encode(
            x=x, y=y, opacity=IF_SELECTED, description=alt.Description("slug:N")
        ),
    ]
    title = f"{column(quality).heading} of each finished trial; the line is the best so far"
    return styled(layers, json.dumps(title), 340, "Quality of each finished trial in the order of the search")

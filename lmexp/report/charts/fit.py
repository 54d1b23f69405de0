"""The charts of a fit: loss against compute, best sizes by approach, isoFLOP parabolas, residuals.

They hold their own data: points and lines that were computed here, for a law is no transform that Vega-Lite has.
Measured runs are marks, laws are lines, 95 % intervals are bands. The law that is trusted most is drawn first.
"""

import json
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

from lmexp.analysis.scaling.answers import Answer
from lmexp.analysis.scaling.fit import Estimate, LawFit
from lmexp.report.charts.base import INK, PALETTE, SHAPES, styled
from lmexp.runs.columns import column

STEPS = 60
"""Points of a line: smooth at any width of a page."""
AHEAD = 10.0
"""How far beyond the largest run, or the largest budget asked about, lines go."""
SHADES = ["#4269d0", "#6cc5b0", "#efb118"]
"""From little to much: told apart by the colour-blind, readable on white and on near-black."""
HEIGHT = 380
COMPUTE = "training compute (FLOPs)"


def fit_charts(answer: Answer) -> dict[str, alt.LayerChart]:
    """Return the charts that a fit has, by name."""
    if answer.cost:
        return {"loss": cost_chart(answer), "residuals": residual_chart(answer)}
    charts = {"loss": loss_chart(answer), "sizes": size_chart(answer)}
    if any(approach.parabolas for approach in answer.approaches.values()):
        charts["isoflop"] = isoflop_chart(answer)
    return charts | {"residuals": residual_chart(answer)}


def loss_chart(answer: Answer) -> alt.LayerChart:
    """Return the runs' loss against compute, coloured by size, and what each law says the best use of compute gives."""
    points = answer.points
    runs = _data(
        {
            "flops": points.flops,
            "loss": points.loss,
            "params": points.params,
            "tokens": points.tokens,
            "unit": points.unit,
        }
    )
    lines, laws = [], {name: law for name, law in answer.fit.laws.items() if law.law.has_optimum}
    grid = _budgets(answer)
    for name, law in laws.items():
        lines += _line(name, "flops", grid, law.optimum(grid, answer.flops_per_token).loss)
    tooltip = [
        _tip("params", "parameters"),
        _tip("tokens", "tokens"),
        _tip("flops", "FLOPs"),
        _tip("loss", "loss", ".4f"),
    ]
    marks = (
        alt.Chart(runs)
        .mark_point(size=45, filled=True, opacity=0.75)
        .encode(x=_log("flops", COMPUTE, grid), y=_loss(), fill=_by_size(), tooltip=[*tooltip, "unit:N"])
    )
    return styled(
        [*_bands(lines, "flops", list(laws), answer), marks],
        json.dumps("loss, and what the best use of each budget gives"),
        HEIGHT,
        "Loss of each run against its compute, with the lowest loss that each law foretells and its interval",
    )


def cost_chart(answer: Answer) -> alt.LayerChart:
    """Return the frontier's loss against a cost, and the law."""
    assert answer.cost is not None
    name = "flops" if answer.cost == "train_flops" else answer.cost
    spent = answer.points.flops if name == "flops" else answer.points.costs[name]
    (law,) = answer.fit.laws.values()
    grid = np.geomspace(spent.min() / 1.5, max([spent.max() * AHEAD, *(row.amount for row in answer.bought)]), STEPS)
    runs = _data({"cost": spent, "loss": answer.points.loss, "params": answer.points.params})
    heading = column(answer.cost).heading
    marks = (
        alt.Chart(runs)
        .mark_point(size=60, filled=True, opacity=0.8, color=PALETTE[0])
        .encode(
            x=_log("cost", heading, grid),
            y=_loss(),
            tooltip=[_tip("cost", heading), _tip("loss", "loss", ".4f"), _tip("params", "parameters")],
        )
    )
    lines = _line(law.law.name, "cost", grid, law.loss(grid))
    title = f"loss against {column(answer.cost).title}: the runs on the frontier, and the law"
    return styled([*_bands(lines, "cost", [law.law.name], answer), marks], json.dumps(title), HEIGHT, title)


def size_chart(answer: Answer) -> alt.LayerChart:
    """Return the best size of each budget by each law and approach, with the vertices of the parabolas."""
    grid = _budgets(answer)
    names = [name for name, law in answer.fit.laws.items() if law.law.has_optimum]
    lines = []
    for name in names:
        lines += _line(name, "flops", grid, answer.fit.laws[name].optimum(grid, answer.flops_per_token).params)
    for name, approach in answer.approaches.items():
        lines += _line(name, "flops", grid, approach.params(grid))
    names += list(answer.approaches)
    layers = _bands(
        lines,
        "flops",
        names,
        answer,
        "params",
        _log("value", "best parameters, N*", [line["value"] for line in lines], alt.Y),
    )
    vertices = [
        {"flops": p.flops, "value": p.params, "low": p.interval[0], "high": p.interval[1], "by": name}
        for name, approach in answer.approaches.items()
        for p in approach.parabolas
    ]
    if vertices:
        base = alt.Chart(alt.InlineData(values=vertices)).encode(x=_log("flops", COMPUTE, grid))
        layers.append(
            base.mark_point(size=55, filled=True, opacity=1).encode(
                y=alt.Y("value:Q"),
                color=_by_name(names),
                tooltip=[_tip("flops", "FLOPs"), _tip("value", "N*"), _tip("low", "from"), _tip("high", "to")],
            )
        )
    title = "best size of a budget, by law and approach"
    return styled(
        layers, json.dumps(title), HEIGHT, "The best number of parameters against compute, by law and approach"
    )


def isoflop_chart(answer: Answer) -> alt.LayerChart:
    """Return loss against size at equal compute, the parabola through each budget, and its vertex."""
    points, rows, lines, vertices = answer.points, [], [], []
    parabolas = [p for approach in answer.approaches.values() for p in approach.parabolas]
    for parabola in parabolas:
        its = parabola.members
        rows += _rows({"params": points.params[its], "loss": points.loss[its]}, flops=parabola.flops)
        grid = np.geomspace(parabola.smallest, parabola.largest, STEPS)
        lines += _rows({"params": grid, "loss": parabola.loss(grid)}, flops=parabola.flops)
        lowest = float(parabola.loss(np.array([parabola.params]))[0])
        vertices.append({"flops": parabola.flops, "params": parabola.params, "loss": lowest})
    shade = alt.Scale(type="log", range=SHADES)
    x = _log("params", "parameters", [row["params"] for row in rows])
    layers = [
        alt.Chart(alt.InlineData(values=lines))
        .mark_line(strokeWidth=1.75)
        .encode(x=x, y=_loss(), stroke=alt.Stroke("flops:Q", scale=shade, legend=None), detail="flops:N"),
        alt.Chart(alt.InlineData(values=rows))
        .mark_point(size=40, filled=True, opacity=0.85)
        .encode(
            x=x,
            y=_loss(),
            fill=alt.Fill("flops:Q", scale=shade, legend=_gradient("FLOPs", ".0e")),
            tooltip=[_tip("params", "parameters"), _tip("flops", "FLOPs"), _tip("loss", "loss", ".4f")],
        ),
        alt.Chart(alt.InlineData(values=vertices))
        .mark_point(size=110, shape="diamond", filled=False, strokeWidth=1.75, color=INK, opacity=1)
        .encode(x=x, y=_loss(), tooltip=[_tip("flops", "FLOPs"), _tip("params", "N*"), _tip("loss", "loss", ".4f")]),
    ]
    title = "runs of equal compute: the lowest point of each parabola is the best size (diamonds)"
    return styled(layers, json.dumps(title), HEIGHT, "Loss against parameters at each budget, with parabolas")


def residual_chart(answer: Answer) -> alt.LayerChart:
    """Return how far each run lies from each law, in percent, against compute."""
    points, rows = answer.points, []
    for name, law in answer.fit.laws.items():
        rows += _rows({"flops": _spent(answer), "off": 100 * (points.loss / _fitted(answer, law) - 1)}, law=name)
    names = list(answer.fit.laws)
    zero = alt.Chart(alt.InlineData(values=[{"off": 0}])).mark_rule(color=INK, opacity=0.5).encode(y="off:Q")
    marks = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_point(size=35, opacity=0.8, strokeWidth=1.5)
        .encode(
            x=_log("flops", column(answer.cost).heading if answer.cost else COMPUTE, _spent(answer)),
            y=alt.Y("off:Q", axis=alt.Axis(title=None, format="+.1f", tickCount=6)),
            color=_by_name(names, "law"),
            shape=alt.Shape(
                "law:N", scale=alt.Scale(domain=names, range=SHAPES[: len(names)]), legend=alt.Legend(title=None)
            ),
            tooltip=["law:N", _tip("flops", "at"), _tip("off", "percent", "+.2f")],
        )
    )
    title = "measured loss above or below the law (percent)"
    return styled([zero, marks], json.dumps(title), 300, "Residuals of each law against compute")


def _fitted(answer: Answer, law: LawFit) -> Any:
    """Return a law's loss (n,) at every point, each at its own precision."""
    points = answer.points
    columns = {"params": points.params, "tokens": points.tokens, "flops": points.flops, **points.costs}
    inputs = [columns[name] for name in law.law.inputs]
    if points.precision is None:
        return law.loss(*inputs).value
    fitted = np.empty(len(points))
    for precision in np.unique(points.precision):
        here = points.precision == precision
        fitted[here] = law.loss(*(values[here] for values in inputs), precision=str(precision)).value
    return fitted


def _spent(answer: Answer) -> Any:
    if answer.cost in (None, "flops", "train_flops"):
        return answer.points.flops
    return answer.points.costs[str(answer.cost)]


def _budgets(answer: Answer) -> Any:
    """Return the budgets (STEPS,) that lines go through."""
    most = max([answer.largest * AHEAD, *(row.flops for row in answer.best)])
    return np.geomspace(answer.points.flops.min() / 1.5, most, STEPS)


def _line(name: str, x: str, grid: Any, estimate: Estimate) -> list[dict[str, Any]]:
    """Return the rows of a line with its band."""
    value, low, high = (np.broadcast_to(part, grid.shape) for part in estimate)
    return _rows({x: grid, "value": value, "low": low, "high": high}, by=name)


def _bands(
    lines: list[dict[str, Any]], x: str, names: list[str], answer: Answer, what: str = "loss", y: Any = None
) -> list[alt.Chart]:
    """Return lines with their intervals, solid as far as runs go."""
    heading = column(answer.cost).heading if answer.cost else COMPUTE
    ordinate = y if y is not None else _loss("value")
    base = alt.Chart(alt.InlineData(values=lines)).encode(
        x=_log(x, heading, [line[x] for line in lines]), color=_by_name(names)
    )
    tooltip = ["by:N", _tip(x, heading), _tip("value", what), _tip("low", "from"), _tip("high", "to")]
    band = base.mark_area(opacity=0.13).encode(y=alt.Y("low:Q"), y2="high:Q")
    rule = alt.Chart(alt.InlineData(values=[{x: answer.largest}])).mark_rule(strokeDash=[3, 4], opacity=0.5, color=INK)
    return [
        band,
        base.mark_line(strokeWidth=2).encode(y=ordinate, tooltip=tooltip),
        rule.encode(x=alt.X(f"{x}:Q")),
    ]


def _log(field: str, title: str, over: npt.ArrayLike, channel: Any = alt.X) -> Any:
    """Return a logarithmic axis over some values, which writes 1e18, or a prefix where they are no FLOPs.

    Its ticks are powers of ten, with 2 and 5 between where there are few of them.
    """
    text = "replace(format(datum.value, '.0e'), '+', '')" if "FLOPs" in title else "format(datum.value, '~s')"
    values = np.asarray(over, dtype=np.float64)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    digits = (1,) if high > 1e3 * low else (1, 2, 5)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    return channel(
        f"{field}:Q",
        scale=alt.Scale(type="log", nice=False, padding=16),
        axis=alt.Axis(
            title=title,
            titleFontWeight="normal",
            values=[tick for tick in ticks if low / 1.5 <= tick <= high * 1.5],
            labelExpr=text,
            labelOverlap="greedy",
            grid=channel is alt.Y,
        ),
    )


def _loss(field: str = "loss") -> alt.Y:
    """Return the axis of the loss: from its lowest to its highest, not from 0."""
    return alt.Y(
        f"{field}:Q", scale=alt.Scale(zero=False, padding=16), axis=alt.Axis(title=None, tickCount=6, format=".2~f")
    )


def _by_size() -> alt.Fill:
    return alt.Fill("params:Q", scale=alt.Scale(type="log", range=SHADES), legend=_gradient("parameters", "~s"))


def _gradient(title: str, text: str) -> alt.Legend:
    """Return the legend of a quantity that is told by shades."""
    return alt.Legend(
        title=title,
        titleFontWeight="normal",
        titleColor=INK,
        type="gradient",
        format=text,
        gradientLength=180,
        tickCount=4,
    )


def _by_name(names: Sequence[str], field: str = "by") -> alt.Color:
    scale = alt.Scale(domain=list(names), range=PALETTE[: len(names)])
    return alt.Color(f"{field}:N", scale=scale, legend=alt.Legend(title=None, symbolOpacity=1))


def _tip(field: str, title: str, text: str = ".3s") -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", title=title, format=text)


def _data(columns: dict[str, Any]) -> alt.InlineData:
    return alt.InlineData(values=_rows(columns))


def _rows(columns: dict[str, Any], **same: Any) -> list[dict[str, Any]]:
    """Return columns as rows of plain numbers with the six digits that a screen can show; not finite is null."""
    return [
        same | {name: _plain(value) for name, value in zip(columns, row, strict=True)}
        for row in zip(*columns.values(), strict=True)
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    return float(f"{value:.6g}") if np.isfinite(value) else None

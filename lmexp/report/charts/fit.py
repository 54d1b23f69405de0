"""The charts of a fit: loss against compute, best sizes by approach, isoFLOP parabolas, residuals.

Measured runs are marks, laws are lines, and 95 % intervals are bands. The charts hold their own data, computed here,
because Vega-Lite cannot evaluate a law. The law that is trusted most is drawn first.
"""

import json
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from lmexp.analysis.scaling.answers import Answer
from lmexp.analysis.scaling.approaches import EqualCompute, equal_compute
from lmexp.analysis.scaling.law_fit import Estimate, LawFit
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.words import budget_text
from lmexp.report.charts.base import INK, PALETTE, PAPER, SHAPES, floor_lines, styled
from lmexp.report.charts.fit_encodings import (
    IF_SELECTED,
    MAX_NAMED,
    SHADES,
    colour_by_name,
    data_rows,
    inline_data,
    log_axis,
    loss_axis,
    name_tip,
    named_legend,
    run_rows,
    selectable,
    shade_by_size,
    shade_legend,
    tip,
    tips,
)
from lmexp.runs.columns import column
from lmexp.units import si

STEPS = 60
"""Points of a line, enough to look smooth."""
BEYOND = 10.0
"""Lines go to this many times the largest run, or to the largest budget in question if that is more."""
HEIGHT = 380
COMPUTE = "training compute (FLOPs)"


def fit_charts(answer: Answer) -> dict[str, alt.LayerChart]:
    """Return the charts that a fit has, by name."""
    if answer.cost:
        return {"loss": cost_chart(answer), "residuals": residual_chart(answer)}
    if not answer.points.has_sizes:
        return {"residuals": residual_chart(answer)}
    charts = {"loss": loss_chart(answer)}
    if answer.best:
        charts["sizes"] = size_chart(answer)
    if any(approach.parabolas for approach in answer.approaches.values()):
        charts["isoflop"] = isoflop_chart(answer.points, equal_compute(answer.points))
    return charts | {"residuals": residual_chart(answer)}


def loss_chart(answer: Answer) -> alt.LayerChart:
    """Return the loss of the runs against compute, coloured by size, and the lowest loss that each law predicts."""
    points = answer.points
    runs = inline_data(
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
        lines += _line(name, "flops", grid, law.optimum(grid, answer.price).loss)
    told = tips(
        tip("params", "parameters"),
        tip("tokens", "tokens"),
        tip("flops", "FLOPs"),
        tip("loss", "loss", ".4f"),
        name_tip("unit"),
    )
    marks = (
        alt.Chart(runs)
        .mark_point(size=45, filled=True, opacity=0.75)
        .encode(x=log_axis("flops", COMPUTE, grid), y=loss_axis(), fill=shade_by_size(), **told)
    )
    return styled(
        [*(_bands(lines, "flops", list(laws), answer) if lines else []), marks, *floor_of(answer)],
        json.dumps("loss, and the lowest loss predicted for each budget"),
        HEIGHT,
        "Loss of each run against its compute, with the lowest loss that each law predicts and its interval",
    )


def cost_chart(answer: Answer) -> alt.LayerChart:
    """Return the frontier's loss against a cost, and the law."""
    assert answer.cost is not None
    name = "flops" if answer.cost == "train_flops" else answer.cost
    spent = answer.points.flops if name == "flops" else answer.points.costs[name]
    (law,) = answer.fit.laws.values()
    grid = np.geomspace(spent.min() / 1.5, max([spent.max() * BEYOND, *(row.amount for row in answer.bought)]), STEPS)
    runs = inline_data({"cost": spent, "loss": answer.points.loss, "params": answer.points.params})
    heading = column(answer.cost).heading
    marks = (
        alt.Chart(runs)
        .mark_point(size=60, filled=True, opacity=0.8, color=PALETTE[0])
        .encode(
            x=log_axis("cost", heading, grid),
            y=loss_axis(),
            **tips(
                tip("cost", heading),
                tip("loss", "loss", ".4f"),
                *([tip("params", "parameters")] if answer.points.has_sizes else []),
            ),
        )
    )
    lines = _line(law.law.name, "cost", grid, law.loss(grid))
    title = f"loss against {column(answer.cost).title}: the runs on the frontier, and the law"
    layers = [*_bands(lines, "cost", [law.law.name], answer), marks, *floor_of(answer)]
    return styled(layers, json.dumps(title), HEIGHT, title)


def size_chart(answer: Answer) -> alt.LayerChart:
    """Return the best size for each budget by each law and approach, with the vertices of the parabolas."""
    grid = _budgets(answer)
    names = [name for name, law in answer.fit.laws.items() if law.law.has_optimum]
    lines = []
    for name in names:
        lines += _line(name, "flops", grid, answer.fit.laws[name].optimum(grid, answer.price).params)
    for name, approach in answer.approaches.items():
        lines += _line(name, "flops", grid, approach.params(grid))
    names += list(answer.approaches)
    layers = _bands(
        lines,
        "flops",
        names,
        answer,
        "params",
        log_axis("value", "best parameters, N*", [line["value"] for line in lines], alt.Y),
    )
    vertices = [
        {"flops": p.flops, "value": p.params, "low": p.interval[0], "high": p.interval[1], "by": name}
        for name, approach in answer.approaches.items()
        for p in approach.parabolas
    ]
    if vertices:
        base = alt.Chart(alt.InlineData(values=vertices)).encode(x=log_axis("flops", COMPUTE, grid))
        layers.append(
            base.mark_point(size=55, filled=True, opacity=1).encode(
                y=alt.Y("value:Q"),
                color=colour_by_name(names),
                **tips(
                    tip("flops", "FLOPs"),
                    tip("value", "N*"),
                    tip("low", "from"),
                    tip("high", "to"),
                ),
            )
        )
    title = "best model size for a budget, by law and approach"
    return styled(
        layers, json.dumps(title), HEIGHT, "The best number of parameters against compute, by law and approach"
    )


def isoflop_chart(points: Points, budgets: Sequence[EqualCompute]) -> alt.LayerChart:
    """Return loss against size at equal compute, the parabola of each budget, and its vertex with the best size.

    A budget without a parabola has straight lines between the mean losses of its sizes.
    """
    rows, lines, vertices = [], [], []
    for budget in budgets:
        its, parabola = budget.members, budget.parabola
        rows += run_rows(points, its, flops=budget.flops)
        sizes, group = np.unique(points.params[its], return_inverse=True)
        if parabola is None:
            means = np.bincount(group, points.loss[its]) / np.bincount(group)
            lines += data_rows({"params": sizes, "loss": means}, flops=budget.flops)
            continue
        grid = np.geomspace(parabola.smallest, parabola.largest, STEPS)
        lines += data_rows({"params": grid, "loss": parabola.loss(grid)}, flops=budget.flops)
        lowest = parabola.loss(np.array([parabola.params]))
        vertices += data_rows(
            {
                "params": [parabola.params],
                "loss": lowest,
                "low": [parabola.interval[0]],
                "high": [parabola.interval[1]],
            },
            flops=budget.flops,
            label=si(parabola.params),
        )
    shade = alt.Scale(type="log", range=SHADES)
    x = log_axis("params", "parameters", points.params)
    y = loss_axis(margin=30)  # room for the label of the lowest vertex
    vertex = alt.Chart(alt.InlineData(values=vertices)).encode(x=x, y=y)
    names = {budget.flops: budget_text(budget.flops) for budget in budgets}
    few = len(names) <= MAX_NAMED
    legend = named_legend("training FLOPs", names) if few else shade_legend("training FLOPs")
    layers = [
        alt.Chart(alt.InlineData(values=lines))
        .mark_line(strokeWidth=1.75)
        .encode(x=x, y=y, stroke=alt.Stroke("flops:Q", scale=shade, legend=None), detail="flops:N"),
        selectable(rows)
        .mark_point(size=45, filled=True)
        .encode(
            x=x,
            y=y,
            fill=alt.Fill("flops:Q", scale=shade, legend=legend),
            opacity=IF_SELECTED,
            **tips(
                *([name_tip("run", "run")] if points.names is not None else []),
                tip("params", "parameters"),
                tip("flops", "FLOPs"),
                tip("loss", "loss", ".4f"),
            ),
        ),
        vertex.mark_point(size=110, shape="diamond", filled=False, strokeWidth=1.75, color=INK, opacity=1).encode(
            **tips(
                tip("flops", "FLOPs"),
                tip("params", "best size"),
                tip("low", "from"),
                tip("high", "to"),
                tip("loss", "loss", ".4f"),
            ),
        ),
        # Twice: a rim in the colour of the background keeps labels readable where lines pass.
        vertex.mark_text(dy=17, fontSize=12, stroke=PAPER, strokeWidth=4, strokeJoin="round").encode(text="label:N"),
        vertex.mark_text(dy=17, fontSize=12, color=INK).encode(text="label:N"),
    ]
    title = "loss (nats) of runs of equal compute; the diamond is the lowest point of a parabola, the best size"
    return styled(layers, json.dumps(title), HEIGHT, "Loss against parameters at each budget, with parabolas")


def residual_chart(answer: Answer) -> alt.LayerChart:
    """Return how far the loss of each run is from each law, in percent, against compute."""
    points, rows = answer.points, []
    for name, law in answer.fit.laws.items():
        rows += data_rows({"flops": _spent(answer), "off": 100 * (points.loss / law.fitted(points) - 1)}, law=name)
    names = list(answer.fit.laws)
    zero = alt.Chart(alt.InlineData(values=[{"off": 0}])).mark_rule(color=INK, opacity=0.5).encode(y="off:Q")
    marks = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_point(size=35, opacity=0.8, strokeWidth=1.5)
        .encode(
            x=log_axis("flops", column(answer.cost).heading if answer.cost else COMPUTE, _spent(answer)),
            y=alt.Y("off:Q", axis=alt.Axis(title=None, format="+.1f", tickCount=6)),
            color=colour_by_name(names, "law"),
            shape=alt.Shape(
                "law:N", scale=alt.Scale(domain=names, range=SHAPES[: len(names)]), legend=alt.Legend(title=None)
            ),
            **tips(name_tip("law"), tip("flops", "at"), tip("off", "percent", "+.2f")),
        )
    )
    title = "measured loss above or below the law (percent)"
    return styled([zero, marks], json.dumps(title), 300, "Residuals of each law against compute")


def optimum_lines(answer: Answer, law: LawFit, x: alt.X) -> list[alt.Chart]:
    """Return the lowest loss that a law predicts for each budget, with the band of its interval."""
    grid = _budgets(answer)
    base = alt.Chart(alt.InlineData(values=_line(law.law.name, "flops", grid, law.optimum(grid, answer.price).loss)))
    told = tips(tip("flops", "FLOPs"), tip("value", "lowest loss", ".4f"), tip("low", "from"), tip("high", "to"))
    return [
        base.mark_area(opacity=0.13, color=PALETTE[2], clip=True).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_line(strokeWidth=2.25, color=PALETTE[2]).encode(x=x, y=loss_axis("value"), **told),
    ]


def floor_of(answer: Answer) -> list[alt.Chart]:
    """Return the line of the loss that no model can beat, if it is known."""
    floor = answer.points.floor
    return floor_lines([] if floor is None else [{"floor": floor}])


def _spent(answer: Answer) -> Any:
    if answer.cost in (None, "flops", "train_flops"):
        return answer.points.flops
    return answer.points.costs[str(answer.cost)]


def _budgets(answer: Answer) -> Any:
    """Return the budgets (STEPS,) that lines go through."""
    most = max([answer.largest * BEYOND, *(row.flops for row in answer.best)])
    return np.geomspace(answer.points.flops.min() / 1.5, most, STEPS)


def _line(name: str, x: str, grid: Any, estimate: Estimate) -> list[dict[str, Any]]:
    """Return the rows of a line with its band."""
    value, low, high = (np.broadcast_to(part, grid.shape) for part in estimate)
    return data_rows({x: grid, "value": value, "low": low, "high": high}, by=name)


def _bands(
    lines: list[dict[str, Any]], x: str, names: list[str], answer: Answer, what: str = "loss", y: Any = None
) -> list[alt.Chart]:
    """Return lines with the bands of their intervals, and a dashed rule at the largest run."""
    heading = column(answer.cost).heading if answer.cost else COMPUTE
    ordinate = y if y is not None else loss_axis("value")
    base = alt.Chart(alt.InlineData(values=lines)).encode(
        x=log_axis(x, heading, [line[x] for line in lines]), color=colour_by_name(names)
    )
    told = tips(
        name_tip("by"),
        tip(x, heading),
        tip("value", what),
        tip("low", "from"),
        tip("high", "to"),
    )
    band = base.mark_area(opacity=0.13).encode(y=alt.Y("low:Q"), y2="high:Q")
    rule = alt.Chart(alt.InlineData(values=[{x: answer.largest}])).mark_rule(strokeDash=[3, 4], opacity=0.5, color=INK)
    return [
        band,
        base.mark_line(strokeWidth=2).encode(y=ordinate, **told),
        rule.encode(x=alt.X(f"{x}:Q")),
    ]

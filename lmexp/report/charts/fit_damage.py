"""The chart of a fit of the damage of rounding: the measured damage and the law, against training tokens."""

import json

import altair as alt
import numpy as np

from lmexp.analysis.scaling.damage import DamageFit
from lmexp.report.charts.base import styled
from lmexp.report.charts.fit_encodings import colour_by_name, data_rows, log_axis, tip
from lmexp.units import si

MAX_LINES = 12
"""With more sizes and widths than this, the points alone are drawn by width."""


def damage_charts(fit: DamageFit) -> dict[str, alt.LayerChart]:
    """Return the chart of the damage; a line is the law at one size and one number of bits."""
    points, marks, lines, names = fit.points, [], [], []
    groups = np.unique(np.stack([points.params, fit.bits], axis=1), axis=0)
    for params, bits in groups:
        rows = (points.params == params) & (fit.bits == bits)
        name = f"{si(params)} parameters, {bits:g} bits" if len(groups) <= MAX_LINES else f"{bits:g} bits"
        names.append(name)
        marks += data_rows({"tokens": points.tokens[rows], "damage": points.loss[rows]}, by=name)
        if len(groups) <= MAX_LINES:
            tokens = np.geomspace(points.tokens[rows].min(), points.tokens[rows].max(), 2)
            damage = [float(fit.damage(params, each, bits).value) for each in tokens]
            lines += data_rows({"tokens": tokens, "damage": np.array(damage)}, by=name)
    base = {
        "x": log_axis("tokens", "training tokens", points.tokens),
        "y": log_axis("damage", "rise of the loss (nats)", points.loss, alt.Y),
        "color": colour_by_name(list(dict.fromkeys(names))),
    }
    tooltip = ["by:N", tip("tokens", "tokens"), tip("damage", "rise of the loss", ".3g")]
    layers = [alt.Chart(alt.InlineData(values=marks)).mark_point(size=40).encode(**base, tooltip=tooltip)]
    if lines:
        layers.append(alt.Chart(alt.InlineData(values=lines)).mark_line(strokeWidth=1.75).encode(**base))
    title = "rise of the loss against tokens: measured (points) and by the law (lines)"
    return {"damage": styled(layers, json.dumps(title), 380, "Rise of the loss by rounding, against training tokens")}

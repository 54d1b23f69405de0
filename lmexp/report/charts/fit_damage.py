"""The chart of a fit of the damage of rounding: the measured damage and the law, against training tokens."""

import json

import altair as alt
import numpy as np

from lmexp.analysis.scaling.damage import DamageFit
from lmexp.report.charts.base import PALETTE, styled
from lmexp.report.charts.fit_encodings import data_rows, log_axis, name_tip, tip, tips
from lmexp.units import si

MAX_LINES = 12
"""With more pairs of a size and a width than this, the points alone are drawn."""


def damage_charts(fit: DamageFit) -> dict[str, alt.LayerChart]:
    """Return the chart of the damage; a line is the law at one size and one number of bits."""
    points, marks, lines = fit.points, [], []
    groups = np.unique(np.stack([points.params, fit.bits], axis=1), axis=0)
    for params, bits in groups:
        rows = (points.params == params) & (fit.bits == bits)
        of = {"by": si(params), "bits": f"{bits:g}"}
        marks += data_rows({"tokens": points.tokens[rows], "damage": points.loss[rows]}, **of)
        if len(groups) <= MAX_LINES:
            tokens = np.geomspace(points.tokens[rows].min(), points.tokens[rows].max(), 2)
            damage = [float(fit.damage(params, each, bits).value) for each in tokens]
            lines += data_rows({"tokens": tokens, "damage": np.array(damage)}, **of)
    base = {
        "x": log_axis("tokens", "training tokens", points.tokens),
        "y": alt.Y(
            "damage:Q",
            scale=alt.Scale(type="log", nice=False, padding=16),
            axis=alt.Axis(title="rise of the loss (nats)", titleFontWeight="normal", format="~g", tickCount=6),
        ),
        "color": alt.Color(
            "by:N", sort=None, title="parameters", scale=alt.Scale(range=PALETTE), legend=alt.Legend(symbolOpacity=1)
        ),
    }
    by_bits = alt.Shape("bits:N", title="bits", legend=alt.Legend(symbolOpacity=1))
    told = tips(
        name_tip("by", "parameters"),
        name_tip("bits", "bits"),
        tip("tokens", "tokens"),
        tip("damage", "rise of the loss", ".3g"),
    )
    layers = [alt.Chart(alt.InlineData(values=marks)).mark_point(size=40).encode(**base, shape=by_bits, **told)]
    if lines:
        layers.append(
            alt.Chart(alt.InlineData(values=lines)).mark_line(strokeWidth=1.75).encode(**base, detail="bits:N")
        )
    title = "rise of the loss against tokens: measured (points) and by the law (lines)"
    return {"damage": styled(layers, json.dumps(title), 380, "Rise of the loss by rounding, against training tokens")}

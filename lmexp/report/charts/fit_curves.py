"""The chart of a fit of loss curves: the measured losses and the law, for the fitted and the predicted schedules."""

import json
from collections.abc import Sequence

import altair as alt

from lmexp.analysis.scaling.curves import Curve
from lmexp.analysis.scaling.multipower import CurveFit
from lmexp.report.charts.base import styled
from lmexp.report.charts.fit_encodings import colour_by_name, data_rows, loss_axis, name_tip, tip, tips


def curve_charts(fit: CurveFit, predicted: Sequence[Curve]) -> dict[str, alt.LayerChart]:
    """Return the chart of the curves; a predicted schedule's name says that it was not fitted."""
    marks, lines, names = [], [], []
    for curve, name in [
        *((each, each.name) for each in fit.curves),
        *((each, f"{each.name}, predicted") for each in predicted),
    ]:
        names.append(name)
        rows, after = curve.fitted, curve.lr_sum > 0
        after[: curve.peak] = False
        marks += data_rows({"step": curve.step[rows], "loss": curve.loss[rows]}, by=name)
        lines += data_rows({"step": curve.step[after], "loss": fit.losses(curve)[after]}, by=name)
    x = alt.X("step:Q", axis=alt.Axis(title="optimizer steps", titleFontWeight="normal", format="~s", grid=False))
    told = tips(name_tip("by"), tip("step", "step"), tip("loss", "loss", ".4f"))
    base = {"x": x, "y": loss_axis(), "color": colour_by_name(names)}
    layers = [
        alt.Chart(alt.InlineData(values=marks)).mark_point(size=14, opacity=0.5).encode(**base, **told),
        alt.Chart(alt.InlineData(values=lines)).mark_line(strokeWidth=1.75).encode(**base),
    ]
    title = "loss against steps: measured (points) and by the law (lines)"
    return {"curves": styled(layers, json.dumps(title), 380, "Loss curves with the law's prediction for each schedule")}

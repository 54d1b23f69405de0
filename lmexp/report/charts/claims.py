"""The chart of a paper's claim: the band, our number with its interval, and the published number.

The verdict can be seen from it: borne out if our whole interval lies in the shaded band, contradicted if none of it
does.
"""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from lmexp.papers.judge import Judged
from lmexp.report.charts.base import INK, NUMBERS, PALETTE, styled

HEIGHT, WIDTH = 60, 720
CHART_NOTE = (
    "In the charts of claims, the shaded range is the band, the dot is our number with its 95 % interval, and the red "
    "tick is the published number."
)
MARGIN = 0.15
"""Space left and right of what is shown, as a share of it."""


def claim_chart(one: Judged) -> alt.LayerChart | None:
    """Return the chart of a claim; None if the runs give no number."""
    claim, ours, band = one.claim, one.ours, one.claim.limits
    if not math.isfinite(ours.value):
        return None
    published = claim.published if isinstance(claim.published, int | float) else math.nan
    shown = [number for number in (*ours, band.low, band.high, published) if math.isfinite(number)]
    room = MARGIN * ((max(shown) - min(shown)) or abs(max(shown)) or 1.0)
    low, high = min(shown) - room, max(shown) + room
    ends = {"low": max(ours.low, low), "high": min(ours.high, high)}
    values = ends | {"value": ours.value, "from": max(band.low, low), "to": min(band.high, high)}
    scale = alt.Scale(domain=[low, high], nice=False)

    def at(name: str) -> alt.X:
        return alt.X(f"{name}:Q", scale=scale, title=None, axis=alt.Axis(tickCount=5, labelExpr=NUMBERS))

    base = alt.Chart(alt.InlineData(values=[values]))
    layers = [
        base.mark_rect(color=PALETTE[0], opacity=0.2).encode(x=at("from"), x2="to:Q"),
        *([base.mark_rule(color=INK, strokeWidth=2).encode(x=at("low"), x2="high:Q")] if ours.low < ours.high else []),
        base.mark_point(color=INK, filled=True, size=80, opacity=1).encode(x=at("value")),
    ]
    if math.isfinite(published):
        ticks = alt.Chart(alt.InlineData(values=[{"published": published}]))
        layers.append(ticks.mark_tick(color=PALETTE[2], thickness=3, height=HEIGHT * 0.7).encode(x=at("published")))
    interval = f"ours {ours.value:.4g}" + (f", from {ours.low:.4g} to {ours.high:.4g}" if ours.low < ours.high else "")
    said = f"{claim.name}: {interval}; the band is {claim.band_in_words}"
    return styled(layers, "''", HEIGHT, said)


def claims_spec(judged: Sequence[Judged]) -> dict[str, Any] | None:
    """Return the charts of all claims below one another, as Vega-Lite has them; None if the runs give no number."""
    charts = [(one, chart.to_dict()) for one in judged if (chart := claim_chart(one))]
    if not charts:
        return None
    whole = ("$schema", "config", "background", "autosize", "datasets")
    parts: list[dict[str, Any]] = []
    datasets: dict[str, Any] = {}
    for one, spec in charts:
        title = {**spec["title"], "text": f"{one.claim.name}: {one.verdict}"}
        its = {key: value for key, value in spec.items() if key not in whole}
        parts.append({**its, "title": title, "width": WIDTH})
        datasets |= spec.get("datasets", {})
    first = charts[0][1]
    shared = {"$schema": first["$schema"], "config": first["config"], "datasets": datasets}
    return {**shared, "vconcat": parts, "spacing": 24}

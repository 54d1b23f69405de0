"""The chart of a paper's claim: the band, our number with its interval, and the published number.

The verdict can be seen from it: borne out if our whole interval lies in the shaded band, contradicted if none of it
does.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from lmexp.papers.judge import Judged
from lmexp.report.charts.base import INK, NUMBERS, PALETTE, styled

HEIGHT, WIDTH = 60, 720
ROW = 26
"""Pixels of a claim where all are in one chart."""
EDGE = 2.2
"""Where such a chart ends; its bands end at 1."""
COLOURS = dict(zip(("contradicted", "undecided", "borne out"), (PALETTE[2], PALETTE[1], PALETTE[4]), strict=True))
MARKS = dict(zip(("contradicted", "undecided", "borne out"), ("cross", "square", "circle"), strict=True))
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


def verdict_chart(judged: Sequence[Judged]) -> alt.LayerChart | None:
    """Return all claims below one another, each with its band, our number, the published one, and the verdict.

    Numbers of different claims have no unit in common, so each row has a scale of its own: the band has the same place
    in all, and what lies far outside is drawn at the edge. The numbers are in words beside it. None if the runs give no
    number.
    """
    known = [one for one in judged if math.isfinite(one.ours.value)]
    if not known:
        return None
    rows = [_on_common_scale(one) for one in known]
    y = alt.Y(
        "claim:N",
        scale=alt.Scale(domain=[row["claim"] for row in rows]),
        axis=alt.Axis(title=None, grid=False, labelLimit=280, ticks=False, domain=False),
    )

    def at(name: str) -> alt.X:
        return alt.X(f"{name}:Q", scale=alt.Scale(domain=[-EDGE, EDGE], nice=False), axis=None)

    base = alt.Chart(alt.InlineData(values=rows)).encode(y=y)
    published = alt.Chart(alt.InlineData(values=[row for row in rows if row["published"] is not None])).encode(y=y)
    verdicts = list(dict.fromkeys(row["verdict"] for row in rows))
    colours = alt.Scale(domain=verdicts, range=[COLOURS[verdict] for verdict in verdicts])
    shapes = alt.Scale(domain=verdicts, range=[MARKS[verdict] for verdict in verdicts])
    layers = [
        base.mark_bar(color=PALETTE[0], opacity=0.16, height=ROW - 6).encode(x=at("from"), x2="to:Q"),
        base.mark_rule(strokeWidth=2, color=INK).encode(x=at("low"), x2="high:Q"),
        published.mark_tick(color=PALETTE[2], thickness=3, height=ROW - 8).encode(x=at("published")),
        base.mark_point(filled=True, size=90, opacity=1).encode(
            x=at("ours"),
            color=alt.Color("verdict:N", scale=colours, legend=alt.Legend(title=None, symbolOpacity=1)),
            shape=alt.Shape("verdict:N", scale=shapes, legend=alt.Legend(title=None)),
            description="words:N",
            tooltip=[alt.Tooltip("words:N", title="claim")],
        ),
    ]
    title = "each claim: our number with its 95 % interval, the band (shaded) and the published number (red tick)"
    return styled(layers, json.dumps(title), ROW * len(rows), "Verdict, number and band of each claim")


def _on_common_scale(one: Judged) -> dict[str, Any]:
    """Return a claim's numbers with the band from -1 to 1; a band with one end has that end at 0."""
    claim, ours, band = one.claim, one.ours, one.claim.limits
    published = float(claim.published) if isinstance(claim.published, int | float) else math.nan
    ends = [end for end in (band.low, band.high) if math.isfinite(end)]
    numbers = [number for number in (*ours, published) if math.isfinite(number)]
    centre = sum(ends) / len(ends) if ends else ours.value
    unit = (band.high - band.low) / 2 if len(ends) == 2 else max(abs(number - centre) for number in numbers)

    def place(value: float) -> float:
        return min(max((value - centre) / (unit or 1.0), -EDGE), EDGE)

    low, high = (ours.low, ours.high) if ours.low < ours.high else (ours.value, ours.value)
    interval = f" ({ours.low:.4g} to {ours.high:.4g})" if ours.low < ours.high else ""
    return {
        "claim": claim.name,
        "verdict": one.verdict,
        "ours": place(ours.value),
        "low": place(low),
        "high": place(high),
        "from": place(band.low),
        "to": place(band.high),
        "published": place(published) if math.isfinite(published) else None,
        "words": f"{claim.name}: {one.verdict}; ours {ours.value:.4g}{interval}, the band is {claim.band_in_words}",
    }


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

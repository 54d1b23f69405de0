"""The report as one page, `report.html`: it opens without a network and can be sent to anybody.

The page is a template with its style and script (the folder `page/`), Vega once for both charts, and the
study as one block of JSON that the charts and the table share. A content security policy forbids every
request. Names come from configs and may hold anything: they are escaped as HTML, or as JSON without a `<`,
and the script writes them as text.
"""

import html
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
import vl_convert

import lmexp
from lmexp.analysis.columns import (
    QUALITIES,
    axis_headings,
    column,
    higher_is_better,
    meaning,
    number_format,
)
from lmexp.analysis.findings import findings
from lmexp.analysis.frontier import frontier
from lmexp.analysis.table import Study
from lmexp.files import write_atomically
from lmexp.report.charts import CURVE_AXES, curves_chart, frontier_chart
from lmexp.report.terminal import unfinished

RUN_POINTS = 300
"""Points of a curve that a screen can show; a longer curve is thinned to as many."""
ALL_POINTS = 60_000
"""Points of all curves together that a browser draws in a second or two."""
LEAD = ("tokens_per_second", "train_flops", "train_seconds", "peak_memory_gb", "energy_kwh", "dollars")
"""Costs that the table leads with, where they were measured."""


def write_report(study: Study, folder: Path, quality: str = "loss", cost: str = "train_seconds") -> Path:
    """Write `report.html` into `folder`, atomically, and return its path.

    Raises UserError for a quality or cost that is no column of numbers.
    """
    sentences = findings(study, quality, cost)
    marks = frontier(study.table, quality, cost)
    curves, thinned = _curves(study.curves)
    data = {
        "n_rows": len(study.table),
        "rows": {
            "frontier": marks.tolist(),
            **{name: _plain(study.table[name]) for name in _used(study.table)},
        },
        "columns": _columns(study, quality, cost),
        "sort": {"name": quality, "ascending": not higher_is_better(quality)},
        "curves": curves,
        "charts": {
            "frontier": frontier_chart(study, quality, cost).to_dict(),
            "curves": curves_chart(study).to_dict(),
        },
    }
    page = Template(_resource("page.html")).substitute(
        name=html.escape(study.name),
        question=f'<p class="question">{html.escape(study.question)}</p>' if study.question else "",
        findings=_findings(sentences),
        thinned=" Long curves are thinned." if thinned else "",
        frontier_axes=html.escape(f"{column(quality).title} against {column(cost).title}"),
        rest=_rest(study),
        glossary=_glossary(study),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=html.escape(lmexp.__version__),
        data=_script_json(data),
        css=_resource("page.css"),
        script=_resource("page.js"),
        vega=_vega(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "report.html"
    write_atomically(file, page)
    return file


def _resource(name: str) -> str:
    return files("lmexp.report").joinpath("page", name).read_text(encoding="utf-8")


@cache
def _vega() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that sets `vegaEmbed`."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _script_json(value: Any) -> str:
    """Return JSON that no HTML parser reads as markup: `<` is escaped, and so is all that is not ASCII."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", r"\u003c")


def _used(table: pd.DataFrame) -> list[str]:
    """Return the columns that have a value."""
    return [name for name in map(str, table) if table[name].notna().any() or name in ("state", "slug", "loss")]


def _plain(values: pd.Series) -> list[Any]:
    """Return a column as JSON values, null as None."""
    return values.astype(object).where(values.notna(), None).tolist()


def _columns(study: Study, quality: str, cost: str) -> list[dict[str, Any]]:
    """Return how the page shows each column: those that lead, then those that wait to be asked for."""
    used = _used(study.table)
    scores = [name for name in used if name.startswith("score/")]
    state = ["state"] if len(unfinished(study.table)) else []
    lead = ["slug", *study.varied, *state, quality, *QUALITIES[:3], cost, *LEAD, *scores]
    lead = [name for name in dict.fromkeys(lead) if name in used]
    headings = axis_headings(study.varied)
    mark = {
        "name": "frontier",
        "title": "●",
        "unit": "",
        "help": "on the frontier",
        "format": "",
        "lead": True,
    }
    mark |= {"numeric": False, "higher_is_better": True}
    return [mark] + [
        _column(study.table, name, headings.get(name), name in lead)
        for name in [*lead, *(name for name in used if name not in lead)]
    ]


def _column(table: pd.DataFrame, name: str, heading: str | None, lead: bool) -> dict[str, Any]:
    values, words = table[name], column(name)
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return {
        "name": name,
        "title": heading or words.title,
        "unit": "score" if name.startswith("score/") else words.unit,
        "help": f"{name}: {meaning(name)}" if meaning(name) else name,
        "format": number_format(name, values.dropna().astype(float)) if numeric else "",
        "numeric": numeric,
        "higher_is_better": higher_is_better(name),
        "lead": lead,
    }


def _curves(points: pd.DataFrame) -> tuple[list[dict[str, Any]], bool]:
    """Return the curves as objects of lists, at most RUN_POINTS each, and whether any was thinned."""
    groups = points.groupby(["run_id", "kind"], sort=False)
    most = min(RUN_POINTS, max(ALL_POINTS // max(groups.ngroups, 1), 10))
    curves = []
    for (run_id, kind), curve in groups:
        kept = curve.iloc[_spread(len(curve), most)]
        lists = {name: _rounded(kept[name]) for name in (*CURVE_AXES, "loss")}
        curves.append({"run_id": run_id, "kind": kind, **lists})
    return curves, bool(len(points)) and int(groups.size().max()) > most


def _spread(count: int, most: int) -> list[int]:
    """Return at most `most` positions among `count`, evenly spread, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _rounded(values: pd.Series) -> list[float | None]:
    """Return numbers with the six digits that a screen can show, null as None."""
    return [None if pd.isna(value) else float(f"{value:.6g}") for value in values]


def _findings(sentences: Sequence[str]) -> str:
    headline, *others = (html.escape(sentence) for sentence in sentences)
    items = "".join(f"<li>{sentence}</li>" for sentence in others)
    return f'<p class="headline">{headline}</p>' + (f"<ul>{items}</ul>" if items else "")


def _rest(study: Study) -> str:
    """Return what is no row with a result: runs that did not finish, cells that were skipped."""
    rows = unfinished(study.table)
    sections = []
    if len(rows):
        cells: list[tuple[Any, ...]] = [(row["slug"], row["state"], row["reason"]) for _, row in rows.iterrows()]
        sections.append(_section("unfinished", "Not finished", ("run", "state", "reason"), cells))
    if study.skipped:
        cells = [
            (", ".join(f"{axis} {value}" for axis, value in cell.values.items()), cell.reason) for cell in study.skipped
        ]
        sections.append(_section("skipped", "Skipped before the start", ("cell", "reason"), cells))
    if study.outside:
        runs = "1 run lies" if study.outside == 1 else f"{study.outside} runs lie"
        sections.append(f'<p class="note">{runs} in the folder that the sweep no longer has: left out.</p>')
    return "\n".join(sections)


def _section(name: str, title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a section with a small table of text."""
    head = "".join(f'<th scope="col">{html.escape(heading)}</th>' for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape('–' if pd.isna(value) else str(value))}</td>" for value in row) + "</tr>"
        for row in rows
    )
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>'
        f'<table class="wrap" aria-labelledby="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></section>"
    )


def _glossary(study: Study) -> str:
    return "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(meaning(name))}</dd>"
        for name in _used(study.table)
        if meaning(name)
    )

"""The report as one page, `report.html`, which opens without a network and can be sent to anybody.

The page consists of a template with its style and scripts (the folder `static/`), one copy of Vega for all charts, and
the study as one block of JSON that the charts and the table share. A content security policy forbids every request.
Names come from configs and can contain anything, so they are escaped as HTML, or as JSON without a `<`, and the script
writes them as text.

The table is a small script of its own instead of itables, because DataTables needs jQuery and 200 kB more, has a filter
of its own, and cannot share one selection with the charts.
"""

import html
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd

import lmexp
from lmexp.analysis.findings import Findings
from lmexp.analysis.forecasts.score import Score, calibration
from lmexp.analysis.table import Study
from lmexp.files import write_atomically
from lmexp.report.forecasts import HEADINGS, OFF_NOTE, calibration_sentences, forecast_rows
from lmexp.report.options import ViewOptions
from lmexp.report.page.data import page_data
from lmexp.report.page.details import details
from lmexp.report.page.vega import vega
from lmexp.report.said import said_of
from lmexp.report.terminal.study import unfinished
from lmexp.report.view import StudyView
from lmexp.runs.columns import column
from lmexp.units import counted

SCRIPTS = (
    "data.js",
    "filter.js",
    "table.js",
    "narrow.js",
    "charts.js",
    "detail.js",
    "compare.js",
    "address.js",
    "main.js",
    "print.js",
)
"""The files of the script, which are joined in this order into one module."""
FILES = (
    "<code>table.csv</code> and <code>table.parquet</code> hold the same rows with every column. This file holds the "
    "ends of the runs' logs, which may name folders of the machine they ran on."
)
PUBLISHED_FILES = (
    'The same rows with every column: <a href="table.csv">table.csv</a> and <a href="table.parquet">table.parquet</a>. '
    '<a href="README.md">README.md</a> says what the other files are. Logs are left out.'
)
"""What a page says of the files beside it."""
MAX_LISTED = 200
"""Rows of the table of unfinished runs and of skipped cells; the table of all runs has every run."""


def write_report(study: Study, folder: Path, quality: str = "loss", cost: str = "train_seconds") -> Path:
    """Write `report.html` into `folder`, atomically, and return its path.

    Raises UserError for a quality or cost that is no column of numbers.
    """
    page = report_page(study, quality, cost)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "report.html"
    write_atomically(file, page)
    return file


def report_page(
    study: Study,
    quality: str = "loss",
    cost: str = "train_seconds",
    version: str | None = None,
    published: Path | None = None,
) -> str:
    """Return the page. With a `version`, it asks its server (serve.py) for newer versions; else it makes no requests.

    `published` is the folder of a publication (study/publish.py): the page then links to the files beside it.

    Raises UserError for a quality or cost that is no column of numbers.
    """
    found = said_of(study, quality, cost)
    data = page_data(study, quality, cost, found) | {
        "details": details(study, quality, cost, published),
        "version": version,
    }
    return Template(resource("page.html")).substitute(
        head=head(study.name, connects=version is not None),
        name=html.escape(study.name),
        question=f'<p class="question">{html.escape(study.question)}</p>' if study.question else "",
        findings=_first(found),
        lead_words=_list(data["lead"]["words"] if data["lead"] else ()),
        more=_more(found),
        ties=_ties(data["about_ties"], found),
        forecasts=_forecasts(StudyView(study, ViewOptions()).forecasts),
        rest=_rest(study),
        glossary=_glossary(data["columns"]),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        lmexp=html.escape(lmexp.__version__),
        files=FILES if published is None else PUBLISHED_FILES,
        data=script_json(data),
        script="\n".join(resource(name) for name in SCRIPTS),
        vega=vega(),
    )


def resource(name: str) -> str:
    """Return the text of a file in the folder `static/`."""
    return files("lmexp.report.page").joinpath("static", name).read_text(encoding="utf-8")


def head(title: str, connects: bool = False) -> str:
    """Return everything above the body of a page; `connects` lets it make requests to its own server."""
    connect = "; connect-src 'self'" if connects else ""
    return Template(resource("head.html")).substitute(
        title=html.escape(title), connect=connect, css=resource("page.css")
    )


def script_json(value: Any) -> str:
    """Return JSON that no HTML parser reads as markup: `<` and everything outside ASCII is escaped."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", r"\u003c")


def _first(found: Findings) -> str:
    """Return the first sentences of the answer as paragraphs."""
    first, *others = map(_marked_up, found.first)
    return "".join([f'<p class="headline">{first}</p>', *(f"<p>{sentence}</p>" for sentence in others)])


def _more(found: Findings) -> str:
    """Return the rest of the answer and the other findings, folded away; nothing if there are none."""
    more = [sentence for sentence in found.sentences if sentence not in found.first]
    title = counted(len(more), "more finding")
    return f"<details><summary>{title}</summary>{_list(more)}</details>" if more else ""


def _list(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{_marked_up(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _ties(about_ties: Sequence[str], found: Findings) -> str:
    """Return what is tied on the frontier as a paragraph, unless the answer says it already."""
    new = [_marked_up(sentence) for sentence in about_ties if sentence not in found.answer]
    return f'<p class="note">{" ".join(new)}</p>' if new else ""


def _marked_up(sentence: str) -> str:
    """Return a sentence as HTML, in which commands between backticks are code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(sentence))


def _rest(study: Study) -> str:
    """Return the sections on what has no result: unfinished runs, and cells that were skipped."""
    rows = unfinished(study.table)
    sections = []
    if len(rows):
        cells: list[tuple[Any, ...]] = [
            (row["slug"], row["state"], row["reason"]) for _, row in rows.head(MAX_LISTED).iterrows()
        ]
        sections.append(_section("unfinished", "Not finished", ("run", "state", "reason"), cells, len(rows)))
    if study.skipped:
        cells = [
            (", ".join(f"{axis} {value}" for axis, value in cell.values.items()), cell.reason)
            for cell in study.skipped[:MAX_LISTED]
        ]
        sections.append(_section("skipped", "Skipped before the start", ("cell", "reason"), cells, len(study.skipped)))
    if study.outside:
        runs = counted(study.outside, "run", "is")
        sections.append(
            f'<p class="note">{runs} in the folder but not in the last sweep command, and left out here; '
            "<code>lmexp report --all</code> includes them.</p>"
        )
    sections += [f'<p class="note">{_marked_up(sentence)}</p>' for sentence in study.about_conflicts]
    return "\n".join(sections)


def _forecasts(scores: Sequence[Score]) -> str:
    """Return the section on sealed forecasts, or nothing if there are none."""
    if not scores:
        return ""
    sentences = [*calibration_sentences(calibration(scores)), OFF_NOTE]
    notes = "".join(f'<p class="note">{html.escape(sentence)}</p>' for sentence in sentences)
    rows = forecast_rows(scores)
    return _section("forecasts-title", "Sealed forecasts", HEADINGS, rows[:MAX_LISTED], len(rows), notes)


def _section(
    name: str, title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]], total: int, notes: str = ""
) -> str:
    """Return a section with a small table of text; `notes` is markup above it."""
    head = "".join(f'<th scope="col">{html.escape(heading)}</th>' for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{_breakable('–' if pd.isna(value) else str(value))}</td>" for value in row) + "</tr>"
        for row in rows
    )
    more = f'<p class="note">The first {len(rows)} of {total:,}.</p>' if total > len(rows) else ""
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>{notes}{more}'
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}">'
        f'<table class="wrap" aria-labelledby="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _breakable(text: str) -> str:
    """Return a text as HTML in which only words of more than 14 characters may break inside, as in detail.js."""
    parts = map(html.escape, re.split(r"(\S{15,})", text))
    return "".join(f'<span class="long">{part}</span>' if i % 2 else part for i, part in enumerate(parts))


def _glossary(columns: Sequence[dict[str, Any]]) -> str:
    return "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(column(name).meaning)}</dd>"
        for name in (shown["name"] for shown in columns)
        if column(name).meaning
    )

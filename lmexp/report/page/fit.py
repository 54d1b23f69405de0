"""A fit as one page, `fit.html`, which opens without a network, and its charts as files.

Names come from configs and files and can contain anything, so they are escaped as HTML, or as JSON without a `<`.
"""

import html
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

import altair as alt

import lmexp
from lmexp.analysis.scaling.answers import Answer
from lmexp.files import hash_text, read_json, write_atomically, write_json
from lmexp.report.charts.export import drawn
from lmexp.report.charts.fit import fit_charts
from lmexp.report.export.fit_document import fit_document
from lmexp.report.page.html import head, resource, script_json, vega
from lmexp.report.terminal.fit import TEXT_COLUMNS, FitText, fit_text

TITLES = {
    "loss": "Loss against compute",
    "curves": "Loss curves",
    "sizes": "Best model size for a budget",
    "isoflop": "At equal compute",
    "residuals": "How well the laws fit",
}


def write_fit(answer: Answer, name: str, folder: Path) -> Path:
    """Write `fit.html` and `fit.json` of a fit of runs into `folder`, atomically, and return the page's path."""
    return write_fit_page(fit_text(answer), fit_charts(answer), fit_document(answer), name, folder)


def write_fit_page(
    text: FitText, drawings: Mapping[str, alt.LayerChart], document: Mapping[str, Any], name: str, folder: Path
) -> Path:
    """Write `fit.html` and `fit.json` into `folder`, atomically, and return the page's path."""
    charts = {key: chart.to_dict() for key, chart in drawings.items()}
    sections = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{TITLES[key]}</h2>'
        f'<div id="chart-{key}" class="chart"></div></section>'
        for key in charts
    )
    page = Template(resource("fit.html")).substitute(
        head=head(f"{name}: fit"),
        name=html.escape(name),
        about="".join(f'<p class="note">{html.escape(sentence)}</p>' for sentence in text.about),
        headline="".join(f'<p class="headline">{html.escape(sentence)}</p>' for sentence in text.headline),
        notes=_list(text.notes),
        charts=sections,
        tables="".join(_table(*table) for table in text.tables),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=html.escape(lmexp.__version__),
        data=script_json(charts),
        vega=vega(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    _keep_earlier(folder, document)
    write_json(folder / "fit.json", document)
    file = folder / "fit.html"
    write_atomically(file, page)
    return file


def _keep_earlier(folder: Path, document: Mapping[str, Any]) -> None:
    """Rename the fit of other points, or of another question, that lies in a folder, so that it is not overwritten.

    Its name becomes `fit-HASH.json`, with the page beside it, HASH being that of what it answers.
    """
    file = folder / "fit.json"
    if not file.is_file():
        return
    try:
        question = _question(read_json(file))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # a file of this name by another program
        question = ""
    if question == _question(document):
        return
    name = f"fit-{hash_text(question or file.read_bytes().hex(), 8)}"
    file.replace(folder / f"{name}.json")
    if (folder / "fit.html").is_file():
        (folder / "fit.html").replace(folder / f"{name}.html")


def _question(document: Mapping[str, Any]) -> str:
    """Return what a fit answers as a text: its points, its question, and how it was fitted."""
    budgets = sorted({row["flops"] for row in document.get("best", [])})
    amounts = [row["amount"] for row in document.get("bought", [])]
    keys = ("source", "points_sha256", "n_points", "n_units", "cost", "served_tokens", "method", "seed")
    deltas = {name: law.get("delta") for name, law in document.get("laws", {}).items()}
    runs = [row["run"] for row in document.get("predicted", [])]
    return json.dumps([budgets, amounts, deltas, *([runs] if runs else []), [document.get(key) for key in keys]])


def write_fit_charts(charts: Mapping[str, alt.LayerChart], folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write every chart of a fit as `fit-NAME.FORMAT` into `folder`/charts, atomically, and return the files."""
    (folder / "charts").mkdir(parents=True, exist_ok=True)
    written = []
    for name, chart in charts.items():
        for form in formats:
            file = folder / "charts" / f"fit-{name}.{form}"
            write_atomically(file, drawn(chart.to_dict(), {}, form))
            written.append(file)
    return written


def _list(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a section with a table; a cell may have two lines."""
    kinds = ["" if heading in TEXT_COLUMNS else ' class="number"' for heading in headings]
    head = "".join(
        f'<th scope="col"{kind}>{html.escape(heading)}</th>' for heading, kind in zip(headings, kinds, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{html.escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    words = html.escape(title)
    return (
        f'<section><h2>{words}</h2><div class="scroll" tabindex="0" role="region" aria-label="{words}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )

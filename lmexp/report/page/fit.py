"""A fit as one page, `fit.html`, which opens without a network, and its charts as files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt

from lmexp.analysis.scaling.answers import Answer
from lmexp.files import hash_text, read_json, write_atomically, write_json
from lmexp.report.charts.export import drawn
from lmexp.report.charts.fit import fit_charts
from lmexp.report.export.fit_document import fit_document
from lmexp.report.page.document import Table, Titled, document_page
from lmexp.report.terminal.fit import TEXT_COLUMNS, FitText, fit_text

TITLES = {
    "loss": "Loss against compute",
    "curves": "Loss curves",
    "downstream": "Score against loss",
    "learning_rate": "Best learning rate of each group",
    "learning_rate_grids": "Loss against learning rate",
    "batch_size": "Best batch size of each group",
    "batch_size_grids": "Loss against batch size",
    "loss_to_loss": "Loss on one text against loss on another",
    "damage": "Rise of the loss by rounding, against tokens",
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
    page = document_page(
        kind="fit",
        name=name,
        about=text.about,
        headline=text.headline,
        notes=text.notes,
        charts={key: Titled(TITLES[key], chart.to_dict()) for key, chart in drawings.items()},
        tables=[Table(*table, text_columns=TEXT_COLUMNS) for table in text.tables],
        json_file="fit.json",
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
    asked = {name: law.get("irreducible_bounds") for name, law in document.get("laws", {}).items()}
    also: list[Any] = [runs] if runs else []
    also += [asked] if any(bounds not in (None, [0.0, None]) for bounds in asked.values()) else []
    own = [[law["expression"], law["bounds"]] for law in document.get("laws", {}).values() if law.get("expression")]
    also += [own] if own else []
    return json.dumps([budgets, amounts, deltas, *also, [document.get(key) for key in keys]])


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

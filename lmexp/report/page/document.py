"""A document as one page that opens without a network: sentences, charts and tables, one below the other.

Names come from configs and files and can contain anything, so they are escaped as HTML, or as JSON without a `<`.
"""

import html
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from string import Template
from typing import Any

import lmexp
from lmexp.report.page.html import head, resource, script_json
from lmexp.report.page.vega import vega


@dataclass(frozen=True)
class Titled:
    """A chart, as Vega-Lite has it, with the heading above it and the sentences below it."""

    title: str
    chart: dict[str, Any]
    below: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """A table of texts; a cell may have two lines."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: Collection[str] = ()
    """The headings of columns that hold no numbers."""


def document_page(
    *,
    kind: str,
    name: str,
    about: Sequence[str],
    headline: Sequence[str],
    notes: Sequence[str],
    charts: Mapping[str, Titled],
    tables: Sequence[Table],
    json_file: str,
) -> str:
    """Return the page.

    Args:
        kind: the verb that it is from.
        about: what the document is about, above everything else.
        headline: the sentences to read first.
        notes: further sentences, as a list.
        charts: by a key that can be the id of an element.
        json_file: the file beside the page with the same numbers.
    """
    sections = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{html.escape(titled.title)}</h2>'
        f'<div id="chart-{key}" class="chart"></div>{_notes(titled.below)}</section>'
        for key, titled in charts.items()
    )
    return Template(resource("document.html")).substitute(
        head=head(f"{name}: {kind}"),
        eyebrow=html.escape(f"lmexp {kind}"),
        name=html.escape(name),
        about=_notes(about),
        headline="".join(f'<p class="headline">{html.escape(sentence)}</p>' for sentence in headline),
        notes=_list(notes),
        charts=sections,
        tables="".join(map(_table, tables)),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=html.escape(lmexp.__version__),
        json=html.escape(json_file),
        data=script_json({key: titled.chart for key, titled in charts.items()}),
        vega=vega(),
        script=resource("print.js"),
    )


def _notes(sentences: Sequence[str]) -> str:
    return "".join(f'<p class="note">{html.escape(sentence)}</p>' for sentence in sentences)


def _list(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _table(table: Table) -> str:
    kinds = ["" if heading in table.text_columns else ' class="number"' for heading in table.headings]
    head = "".join(
        f'<th scope="col"{kind}>{html.escape(heading)}</th>'
        for heading, kind in zip(table.headings, kinds, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{html.escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in table.rows
    )
    words = html.escape(table.title)
    return (
        f'<section><h2>{words}</h2><div class="scroll" tabindex="0" role="region" aria-label="{words}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )

"""The table in the formats of documents and programs: md, html, latex; csv, parquet, json.

The formats for documents (md, html, latex) show what the terminal shows, with all rows, all columns and the notes;
names from configs are escaped, so they are never markup. The formats for programs have every column of the record.
"""

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lmexp.analysis.columns import axis_headings
from lmexp.errors import UserError, nearest
from lmexp.report.export.document import study_document
from lmexp.report.export.files import csv_text, parquet_bytes
from lmexp.report.terminal.study import GROUP_NOTE, group_texts
from lmexp.report.texts import FRONTIER_MARK
from lmexp.report.view import TIED_WITH, StudyView
from lmexp.runs.columns import column

FORMATS = ("md", "csv", "parquet", "json", "html", "latex")
_BY_SUFFIX = {"markdown": "md", "tex": "latex", "htm": "html", "pq": "parquet"} | {name: name for name in FORMATS}


@dataclass(frozen=True)
class _Texts:
    """A table of text: the heading and the alignment of each column, the rows, and the notes below."""

    headings: list[str]
    right: list[bool]
    rows: list[tuple[str, ...]]
    notes: list[str]


def format_named(name: str | None, output: Path | None) -> str | None:
    """Return the format with this name, or that of the output file's suffix; None if neither is given.

    Raises UserError for an unknown format.
    """
    if name is None and output is None:
        return None
    word = name if name is not None else (output or Path()).suffix.removeprefix(".").lower()
    if word not in _BY_SUFFIX:
        option = "--format" if name is not None else "--output"
        raise UserError(f"{option} {name or output}: one of {', '.join(FORMATS)}.{nearest(word, FORMATS)}")
    format_name = _BY_SUFFIX[word]
    if format_name == "parquet" and output is None:
        raise UserError("--format parquet is binary: name a file, as in --output table.parquet")
    return format_name


def rendered(shown: StudyView, name: str) -> bytes:
    """Return a study in one of FORMATS: its groups if it is grouped, else its rows."""
    if name == "json":
        document = study_document(shown)
        return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    if name in ("csv", "parquet"):
        table = _raw(shown)
        return parquet_bytes(table) if name == "parquet" else csv_text(table).encode()
    texts = _texts(shown)
    write = {"md": _markdown, "html": _html, "latex": _latex}[name]
    return write(texts).encode()


def _raw(shown: StudyView) -> pd.DataFrame:
    """Return the rows in order with their mark, or the groups."""
    if shown.options.group_by and shown.groups is not None:
        return shown.groups
    table = shown.table.iloc[shown.order]
    if shown.options.columns:
        return table[shown.names]
    table = table.copy()
    table.insert(0, "frontier", shown.marks[shown.order])
    table.insert(1, TIED_WITH, shown.tied_with.iloc[shown.order])
    return table


def _texts(shown: StudyView) -> _Texts:
    if shown.options.group_by:
        texts, headings, right = group_texts(shown)
        notes = [GROUP_NOTE.format(mark=FRONTIER_MARK)]
    else:
        texts = shown.texts(shown.order)
        headings = {name: column(name).heading for name in texts} | axis_headings(shown.study.varied) | {"frontier": ""}
        right, notes = {name for name in texts if name != "frontier" and shown.is_number(name)}, shown.notes
    rows = list(zip(*texts.values(), strict=True))
    return _Texts([headings[name] for name in texts], [name in right for name in texts], rows, notes)


def _markdown(texts: _Texts) -> str:
    """Return a table in GitHub's Markdown."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rule = ["---:" if right else "---" for right in texts.right]
    lines = [line(list(map(_md, texts.headings))), line(rule)]
    lines += [line(list(map(_md, row))) for row in texts.rows]
    return "\n".join([*lines, "", *(f"{_md(note)}  " for note in texts.notes)]) + "\n"


def _md(text: str) -> str:
    """Return a text that Markdown shows as it is: special characters are escaped, and nothing becomes a link."""
    text = re.sub(r"[\\`*\[\]<>|~&!#$@]", lambda sign: "\\" + sign.group(), " ".join(text.split()))
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # within a word it is a letter
    text = re.sub(r"(?<=\w):(?=//)", r"\\:", text)
    return re.sub(r"(?i)\b(www)\.", r"\1\\.", text)


def _html(texts: _Texts) -> str:
    """Return a table element for an HTML page."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' scope=col' if tag == 'th' else ''}{' style=text-align:right' if right else ''}>"
            f"{html.escape(text)}</{tag.split()[0]}>"
            for text, right in zip(row, texts.right, strict=True)
        )

    head = f"<thead><tr>{cells('th', texts.headings)}</tr></thead>"
    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in texts.rows)
    caption = "<br>".join(map(html.escape, texts.notes))
    return f"<table>\n<caption>{caption}</caption>\n{head}\n<tbody>\n{body}\n</tbody>\n</table>\n"


_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "–": "--", "−": "$-$", "±": r"$\pm$",
    "≈": r"$\approx$", "[": "{[}", "]": "{]}",
}  # fmt: skip


def _latex(texts: _Texts) -> str:
    """Return a tabular for the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    aligned = "".join("r" if right else "l" for right in texts.right)
    lines = ["% \\usepackage{booktabs} and, for \\textquotedbl, \\usepackage[T1]{fontenc}"]
    lines += [rf"\begin{{tabular}}{{{aligned}}}", r"\toprule", line(list(map(_tex, texts.headings))), r"\midrule"]
    lines += [line(list(map(_tex, row))) for row in texts.rows]
    notes = r" \\ ".join(map(_tex, texts.notes))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", rf"\par\smallskip{{\footnotesize {notes}\par}}"]) + "\n"


def _tex(text: str) -> str:
    """Return a text that LaTeX prints as it is."""
    return "".join(_TEX.get(sign, sign) for sign in " ".join(text.split()))

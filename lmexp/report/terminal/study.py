"""A study in the terminal: what was found, the side-by-side table, the means over seeds, and what did not finish.

The table takes the width it is given: where not all columns fit, the least telling ones give way, and the
caption names them. Of very many rows the best are shown, and the frontier. Names from configs are shown as they
are, never read as markup.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmexp.analysis.columns import axis_headings
from lmexp.analysis.findings import findings
from lmexp.analysis.frontier import is_done
from lmexp.analysis.groups import HALF, SD
from lmexp.analysis.table import Study
from lmexp.report.view import MARK, MEASURES, NULL, StudyView, column_texts
from lmexp.runs.columns import COLUMNS, column
from lmexp.units import printable

GIVE_WAY = sorted(MEASURES, key=lambda name: -(COLUMNS[name].terminal_rank or 0))
"""The order in which columns are hidden when the table is too wide."""
MOST_REASONS = 20
"""Runs that did not finish and are named with their reason; table.csv has all."""
GAP = 2
"""Cells between two columns: the box's own, and padding."""


def print_study(shown: StudyView, console: Console) -> None:
    """Print a study: its question, the findings, what was asked, the tables, and the runs that did not finish.

    Raises UserError for a quality, a cost or a sort that is no column of numbers, and for a wrong expression.
    """
    study = shown.study
    quality, cost = shown.view.quality[0], shown.view.cost[0]
    console.print(Text(printable(study.name), style="bold"))
    if study.question:
        console.print(Text(study.question, style="italic"))
    console.print()
    for sentence in findings(study, quality, cost):
        console.print(Text(printable(sentence)))
    if shown.choices:
        console.print()
        for sentence in shown.choices:
            console.print(Text(printable(sentence)))
    console.print()
    if not shown.view.group_by:
        console.print(study_table(shown, console.width))
    if shown.groups is not None:
        if not shown.view.group_by:
            console.print()
        console.print(group_table(shown, console.width))
    rest = unfinished(study.table)
    if len(rest) and not shown.view.group_by:
        named = rest.head(MOST_REASONS)
        rows = [(row["slug"] or row["run_id"], row["state"], row["reason"]) for _, row in named.iterrows()]
        console.print()
        console.print(small_table(("run", "state", "reason"), rows))
        if len(rest) > len(named):
            console.print(Text(f"{len(rest) - len(named):,} more did not finish; table.csv has all.", style="dim"))


def study_table(shown: StudyView, width: int) -> Table:
    """Return the rows side by side, at most `width` cells wide where that is possible.

    Rows are sorted by task, and within it by the sort column (the quality unless it is given), the best first; rows
    without a number come last.
    """
    table, view = shown.table, shown.view
    texts = shown.texts(shown.first)
    headings = {"frontier": ""} | _headings(shown.study, shown.names)
    keep = {*view.quality, *view.cost, view.sort, *shown.study.varied, *view.columns}
    notes = list(shown.notes)
    if len(shown.first) < len(table):
        notes.append(
            f"{len(shown.first):,} of {len(table):,} rows: the first, and the frontier. --top 0 shows all, "
            "table.csv holds them."
        )
    states = ["" if done else "dim" for done in is_done(table)[shown.first]]
    right = {name for name in shown.names if shown.is_number(name)}
    return _fitted(texts, headings, right, [name for name in GIVE_WAY if name not in keep], notes, width, states)


def group_table(shown: StudyView, width: int) -> Table:
    """Return the means over seeds: of the quality with its interval and standard deviation, of the rest alone."""
    texts, headings, right = group_texts(shown)
    view = shown.view
    keep = {*view.quality, *view.cost}
    notes = [GROUP_NOTE.format(mark=MARK)]
    groups = shown.groups
    assert groups is not None, "asked for only where there are groups"
    if view.top and len(groups) > view.top:
        texts = {name: cells[: view.top] for name, cells in texts.items()}
        notes.append(f"{view.top} of {len(groups):,} groups; --top 0 shows all.")
    return _fitted(texts, headings, right, [name for name in GIVE_WAY if name not in keep], notes, width)


GROUP_NOTE = (
    "Means over n independent runs, ± half of the 95 % interval (Student's t), sd the standard deviation; "
    "{mark} on the frontier of the means."
)


def group_texts(shown: StudyView) -> tuple[dict[str, list[str]], dict[str, str], set[str]]:
    """Return the groups as text by column, their headings, and which are aligned as numbers."""
    groups, measures = shown.groups, shown.measures
    assert groups is not None, "asked for only where there are groups"
    extra = {name + end for name in measures for end in (SD, HALF)}
    keys = [str(n) for n in groups if n not in {"frontier", "n", "mixed", *measures, *extra}]
    texts = {"frontier": [MARK if on else "" for on in groups["frontier"]]}
    texts |= {name: column_texts(groups, name) for name in keys}
    texts["n"] = column_texts(groups, "n")
    for name in measures:
        means = column_texts(groups, name)
        if name in shown.view.quality:
            as_measured = groups.rename(columns={name: "\0", name + HALF: name})
            halves = column_texts(as_measured, name)
            texts[name] = [m if h == NULL else f"{m} ± {h}" for m, h in zip(means, halves, strict=True)]
            as_measured = groups.rename(columns={name: "\0", name + SD: name})
            texts[name + SD] = column_texts(as_measured, name)
        else:
            texts[name] = means
    if (groups["mixed"] != "").any():
        texts["mixed"] = [printable(str(words)) for words in groups["mixed"]]
    headings = {"frontier": "", **{name: column(name).short for name in texts if name != "frontier"}}
    headings |= axis_headings(keys) | {name + SD: "sd" for name in shown.view.quality}
    right = {name for name in texts if name not in ("frontier", "mixed")}
    return texts, headings, right - {key for key in keys if not pd.api.types.is_numeric_dtype(groups[key])}


def small_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Return a plain table of a few columns of text; null is shown as a dash, long text is folded."""
    result = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for heading in headings:
        result.add_column(Text(heading), overflow="fold")
    for row in rows:
        result.add_row(*(Text(NULL if value is None or pd.isna(value) else printable(str(value))) for value in row))
    return result


def unfinished(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of runs that ended without a result, or have not ended."""
    return table[~is_done(table)]


def _fitted(
    texts: Mapping[str, list[str]],
    headings: Mapping[str, str],
    right: set[str],
    give_way: list[str],
    notes: Sequence[str],
    width: int,
    styles: Sequence[str] = (),
) -> Table:
    """Return columns of text as a table that fits, its notes below; what had to go is named there."""
    gap = GAP
    if sum(column_widths(headings, texts).values()) + gap * len(texts) > width:
        # Before a column has to go, headings take two lines and the gaps shrink.
        gap, headings = 1, {name: _folded(headings[name]) for name in texts}
    hidden = fit(column_widths(headings, texts), gap, give_way, width)
    lines = [*notes[:1], *([f"Not shown at this width: {', '.join(hidden)}."] if hidden else []), *notes[1:]]
    result = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, gap - 1, 0, 0),
        caption=Text(printable_lines(lines), style="dim"),
        caption_justify="left",
    )
    shown = {name: cells for name, cells in texts.items() if name not in hidden}
    for name in shown:
        at = name in right
        result.add_column(Text(headings[name]), justify="right" if at else "left", overflow="fold", no_wrap=at)
    rows = list(zip(*shown.values(), strict=True))
    for cells, style in zip(rows, styles or [""] * len(rows), strict=True):
        result.add_row(*map(Text, cells), style=style)
    return result


def printable_lines(lines: Iterable[str]) -> str:
    """Return lines as one text, each without what would move a cursor."""
    return "\n".join(map(printable, lines))


def _headings(study: Study, names: Iterable[str]) -> dict[str, str]:
    return {name: column(name).short for name in names} | axis_headings(study.varied)


def column_widths(headings: Mapping[str, str], texts: Mapping[str, list[str]]) -> dict[str, int]:
    """Return the cells that each column takes; a heading may have several lines."""
    return {
        name: max(cell_len(text) for text in [*headings[name].split("\n"), *cells]) for name, cells in texts.items()
    }


def _folded(heading: str) -> str:
    """Break a long heading at its word boundary nearest the middle: `n_layers`, `bits/byte`, `train s`."""
    breaks = [i + (heading[i] == "_") for i in range(1, len(heading) - 1) if heading[i] in "_/ "]
    if len(heading) < 7 or not breaks:
        return heading
    at = min(breaks, key=lambda i: abs(i - len(heading) / 2))
    return f"{heading[:at]}\n{heading[at:].strip()}"


def fit(widths: dict[str, int], gap: int, order: list[str], width: int) -> list[str]:
    """Return the columns that must go, in `order`, for the rest to fit into `width` cells."""
    total = sum(cells + gap for cells in widths.values())
    hidden: list[str] = []
    for name in order:
        if total <= width:
            break
        if name in widths:
            hidden.append(name)
            total -= widths[name] + gap
    return hidden

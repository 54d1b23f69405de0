"""A study in the terminal: what was found, the side-by-side table, and what did not finish.

The table takes the width it is given: where not all columns fit, the least telling ones give way, and the
caption names them. Names from configs are shown as they are, never read as markup.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmexp.analysis.columns import axis_headings, column, format_number, higher_is_better, number_format
from lmexp.analysis.findings import findings, name_of
from lmexp.analysis.frontier import frontier, numbers
from lmexp.analysis.table import Study
from lmexp.units import printable

MEASURES = (
    "loss", "perplexity", "bits_per_byte",
    "tokens_per_second", "train_flops", "peak_memory_gb", "train_seconds",
)  # fmt: skip
SCORES = ("score/seq2seq/bleu", "score/classify/f1_macro", "score/tag/span_f1")
"""The one score of each task that stands beside its loss; table.csv has all."""
GIVE_WAY = (
    "perplexity",
    "peak_memory_gb",
    "bits_per_byte",
    "tokens_per_second",
    "train_flops",
    "train_seconds",
)
"""The order in which columns leave a table that is too wide."""
MARK = "*"
GAP = 2
"""Cells between two columns: the box's own, and padding."""


def print_study(
    study: Study,
    console: Console,
    quality: str = "loss",
    cost: str = "train_seconds",
    sort: str | None = None,
) -> None:
    """Print a study: its question, the findings, the table, and the runs that did not finish.

    Raises UserError for a quality, a cost or a sort that is no column of numbers.
    """
    console.print(Text(study.name, style="bold"))
    if study.question:
        console.print(Text(study.question, style="italic"))
    console.print()
    for sentence in findings(study, quality, cost):
        console.print(Text(sentence))
    console.print()
    console.print(study_table(study, console.width, quality, cost, sort))
    rest = unfinished(study.table)
    if len(rest):
        rows = [(row["slug"] or row["run_id"], row["state"], row["reason"]) for _, row in rest.iterrows()]
        console.print()
        console.print(small_table(("run", "state", "reason"), rows))


def study_table(
    study: Study,
    width: int,
    quality: str = "loss",
    cost: str = "train_seconds",
    sort: str | None = None,
) -> Table:
    """Return all rows side by side, at most `width` cells wide where that is possible.

    Rows are sorted by task, and within it by `sort` (`quality` unless it is given), the best first; rows without a
    number come last.
    """
    table = study.table
    marks = frontier(table, quality, cost)
    order = _order(table, sort or quality)
    measured = [name for name in (*SCORES, *MEASURES) if name in table and table[name].notna().any()]
    measures = list(dict.fromkeys([quality, *measured, cost]))
    texts = {name: [cells[i] for i in order] for name, cells in _cells(study, measures).items()}
    texts = {"": [MARK if marks.iloc[i] else "" for i in order], **texts}

    keep = {quality, cost, sort, *study.varied}
    headings = _headings(study, texts)
    gap = GAP
    if sum(column_widths(headings, texts).values()) + gap * len(texts) > width:
        # Before a column has to go, headings take two lines and the gaps shrink.
        gap, headings = 1, {name: _folded(heading) for name, heading in headings.items()}
    hidden = fit(column_widths(headings, texts), gap, [name for name in GIVE_WAY if name not in keep], width)
    result = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, gap - 1, 0, 0),
        caption=Text(_caption(study, quality, cost, hidden), style="dim"),
        caption_justify="left",
    )
    shown = {name: cells for name, cells in texts.items() if name not in hidden}
    for name in shown:
        right = name in measures or (name in table and pd.api.types.is_numeric_dtype(table[name]))
        result.add_column(Text(headings[name]), justify="right" if right else "left", overflow="fold", no_wrap=right)
    states = table["state"].iloc[order]
    for cells, state in zip(zip(*shown.values(), strict=True), states, strict=True):
        result.add_row(*map(Text, cells), style="" if state == "done" else "dim")
    return result


def small_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Return a plain table of a few columns of text; null is shown as a dash, long text is folded."""
    result = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for heading in headings:
        result.add_column(Text(heading), overflow="fold")
    for row in rows:
        result.add_row(*(Text("–" if value is None or pd.isna(value) else printable(str(value))) for value in row))
    return result


def unfinished(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of runs that ended without a result, or have not ended."""
    return table[(table["state"] != "done").to_numpy(dtype=bool, na_value=True)]


def _order(table: pd.DataFrame, sort: str) -> np.ndarray:
    """Return the positions of rows, task by task, from best to worst, those without a number last."""
    values = numbers(table, sort)
    ranked = -values if higher_is_better(sort) else values
    tasks = pd.factorize(table["task"])[0]
    return np.lexsort((np.where(np.isnan(ranked), np.inf, ranked), np.where(tasks < 0, tasks.max() + 1, tasks)))


def _cells(study: Study, measures: list[str]) -> dict[str, list[str]]:
    """Return the texts of what could be shown: axes (or the run, where there are none), measures, state."""
    table = study.table
    whose = study.varied or ["slug"]
    if len(study.tasks) > 1 and "task" not in whose:
        whose = ["task", *whose]
    names = [*whose, *[name for name in measures if name not in study.varied]]
    if len(unfinished(table)):
        names.append("state")
    cells = {name: column_texts(table, name) for name in names}
    if "slug" in cells:
        cells["slug"] = [name_of(row, table) for _, row in table.iterrows()]
    return cells


def column_texts(table: pd.DataFrame, name: str) -> list[str]:
    """Return a column as text in its format; null is a dash."""
    values = table[name]
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return ["–" if pd.isna(value) else printable(str(value)) for value in values]
    spec = number_format(name, values.dropna().astype(float))
    return ["–" if pd.isna(value) else format_number(float(value), spec) for value in values]


def _headings(study: Study, names: Iterable[str]) -> dict[str, str]:
    return {name: column(name).short for name in names} | axis_headings(study.varied)


def column_widths(headings: dict[str, str], texts: dict[str, list[str]]) -> dict[str, int]:
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


def _caption(study: Study, quality: str, cost: str, hidden: list[str]) -> str:
    """Say what the mark means, and what is not shown."""
    both = f"both {column(quality).title} and {column(cost).title}"
    lines = [f"{MARK} on the frontier: no other run beats it on {both}."]
    if hidden:
        lines.append(f"Not shown at this width: {', '.join(hidden)}.")
    if study.outside:
        runs = "1 run" if study.outside == 1 else f"{study.outside} runs"
        lines.append(f"Left out: {runs} in the folder that the sweep no longer has.")
    return "\n".join(lines)

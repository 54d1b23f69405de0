"""A study in the terminal: what it says, the side-by-side table, the means over seeds, and what did not finish.

The table fits the width of the terminal (layout.py). A long table is cut to its first rows and the frontier.
"""

from collections.abc import Iterable, Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmexp.analysis.columns import axis_headings
from lmexp.analysis.frontier import is_done
from lmexp.analysis.groups import HALF, SD
from lmexp.analysis.table import Study
from lmexp.report.said import said_of
from lmexp.report.terminal.forecast import print_forecasts
from lmexp.report.terminal.layout import fitted_table, small_table
from lmexp.report.texts import FRONTIER_MARK, NULL, column_texts, frontier_text
from lmexp.report.view import MEASURES, TIED_WITH, StudyView
from lmexp.runs.columns import COLUMNS, column
from lmexp.units import printable

HIDE_FIRST = sorted(MEASURES, key=lambda name: -(COLUMNS[name].terminal_rank or 0))
"""The order in which columns are hidden when the table is too wide."""
MAX_REASONS = 20
"""Unfinished runs that are listed with their reason; table.csv has all."""


def print_study(shown: StudyView, console: Console) -> None:
    """Print a study: its question, what it says, the answers, the tables, and the runs that did not finish.

    Raises UserError for a quality, a cost or a sort that is no column of numbers, and for a wrong expression.
    """
    study = shown.study
    quality, cost = shown.options.quality[0], shown.options.cost[0]
    console.print(Text(printable(study.name), style="bold"))
    if study.question:
        console.print(Text(study.question, style="italic"))
    console.print()
    found = said_of(study, quality, cost)
    for sentence in found.answer:
        console.print(Text(printable(sentence), style="bold"))
    for sentence in found.rest:
        console.print(Text(printable(sentence)))
    if shown.answers:
        console.print()
        for sentence in shown.answers:
            console.print(Text(printable(sentence)))
    console.print()
    if not shown.options.group_by:
        console.print(study_table(shown, console.width, said=found.answer))
    if shown.groups is not None:
        if not shown.options.group_by:
            console.print()
        console.print(group_table(shown, console.width))
    if shown.forecasts:
        console.print()
        print_forecasts(shown.forecasts, console)
    rest = unfinished(study.table)
    if len(rest) and not shown.options.group_by:
        named = rest.head(MAX_REASONS)
        rows = [(row["slug"] or row["run_id"], row["state"], row["reason"]) for _, row in named.iterrows()]
        console.print()
        console.print(small_table(("run", "state", "reason"), rows))
        if len(rest) > len(named):
            console.print(Text(f"{len(rest) - len(named):,} more did not finish; table.csv has all.", style="dim"))


def study_table(shown: StudyView, width: int, said: Sequence[str] = ()) -> Table:
    """Return the rows side by side, at most `width` characters wide if that is possible.

    Rows are sorted by task, and within it by the sort column (the quality unless it is given), the best first; rows
    without a number come last. `said` are sentences that the notes need not repeat.
    """
    table, options = shown.table, shown.options
    texts = shown.texts(shown.first)
    headings = {"frontier": ""} | _headings(shown.study, shown.names)
    keep = {*options.quality, *options.cost, options.sort, *shown.study.varied, *options.columns}
    notes = [note for note in shown.notes if note not in said]
    if len(shown.first) < len(table):
        notes.append(
            f"{len(shown.first):,} of {len(table):,} rows: the first ones and the frontier. --top 0 shows all rows; "
            "table.csv has them too."
        )
    states = ["" if done else "dim" for done in is_done(table)[shown.first]]
    right = {name for name in shown.names if shown.is_number(name)}
    return fitted_table(texts, headings, right, [name for name in HIDE_FIRST if name not in keep], notes, width, states)


def group_table(shown: StudyView, width: int) -> Table:
    """Return the means over seeds; quality has its interval and its standard deviation too."""
    texts, headings, right = group_texts(shown)
    options = shown.options
    keep = {*options.quality, *options.cost}
    notes = [GROUP_NOTE.format(mark=FRONTIER_MARK)]
    groups = shown.groups
    assert groups is not None, "called only if there are groups"
    if options.top and len(groups) > options.top:
        texts = {name: cells[: options.top] for name, cells in texts.items()}
        notes.append(f"{options.top} of {len(groups):,} groups; --top 0 shows all.")
    return fitted_table(texts, headings, right, [name for name in HIDE_FIRST if name not in keep], notes, width)


GROUP_NOTE = (
    "Means over n independent runs, ± half of the 95 % interval (Student's t) and sd the standard deviation, both of "
    "these runs alone; {mark} on the frontier of the means."
)


def group_texts(shown: StudyView) -> tuple[dict[str, list[str]], dict[str, str], set[str]]:
    """Return the groups as text by column, their headings, and which are aligned as numbers."""
    groups, measures = shown.groups, shown.measures
    assert groups is not None, "called only if there are groups"
    extra = {name + end for name in measures for end in (SD, HALF)}
    keys = [str(n) for n in groups if n not in {"frontier", TIED_WITH, "n", "mixed", *measures, *extra}]
    tied = groups[TIED_WITH].notna() if TIED_WITH in groups else pd.Series(False, index=groups.index)
    texts = {"frontier": [frontier_text(*marks) for marks in zip(groups["frontier"], tied, strict=True)]}
    texts |= {name: column_texts(groups, name) for name in keys}
    texts["n"] = column_texts(groups, "n")
    for name in measures:
        means = column_texts(groups, name)
        if name in shown.options.quality:
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
    headings |= axis_headings(keys) | {name + SD: "sd" for name in shown.options.quality}
    right = {name for name in texts if name not in ("frontier", "mixed")}
    return texts, headings, right - {key for key in keys if not pd.api.types.is_numeric_dtype(groups[key])}


def unfinished(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of runs without a result."""
    return table[~is_done(table)]


def _headings(study: Study, names: Iterable[str]) -> dict[str, str]:
    return {name: column(name).short for name in names} | axis_headings(study.varied)

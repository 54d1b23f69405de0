"""Small tables and sentences in the terminal: plan, status, lists."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmexp.report.terminal import column_widths, fit, small_table
from lmexp.runs.record import Row
from lmexp.units import si


def plan_sentence(name: str, rows: Sequence[Row]) -> str:
    """Return a plan in one line."""
    tokens, flops = (sum(row[key] for row in rows) for key in ("tokens", "train_flops"))
    sizes = sorted({row["n_params"] for row in rows})
    range_ = si(sizes[0]) if len(sizes) == 1 else f"{si(sizes[0])} to {si(sizes[-1])}"
    runs = "1 run" if len(rows) == 1 else f"{len(rows)} runs"
    return f"{name}: {runs} of {range_} parameters, {si(tokens)} tokens and {si(flops)} FLOPs in all"


def print_plan(rows: Sequence[Row], headings: Mapping[str, str], console: Console) -> None:
    """Print a plan: a row a run, counts with SI prefixes, then the totals.

    Nothing is cut off: where the terminal is too narrow, what a cell costs goes, the axes and the totals stay.
    """
    axes = list(dict.fromkeys(key for row in rows for key in takewhile(lambda key: key not in headings, row)))
    texts = {axis: [_swept(row.get(axis)) for row in rows] for axis in axes}
    texts |= {key: [_figure(key, row[key]) for row in rows] for key in headings}
    titles = {axis: axis.rsplit(".", 1)[-1] for axis in axes} | dict(headings)
    gap = 2 if console.width > 90 else 1
    hidden = fit(column_widths(titles, texts), gap, list(headings)[::-1], console.width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
    shown = {key: cells for key, cells in texts.items() if key not in hidden}
    for key in shown:
        table.add_column(Text(titles[key]), justify="left" if key in axes else "right", overflow="fold")
    for cells in zip(*shown.values(), strict=True):
        table.add_row(*map(Text, cells))
    console.print(table)
    if hidden:
        console.print(f"Not shown at this width: {', '.join(hidden)}; --json has them.")
    console.print(plan_sentence("total", rows))


def print_status(rows: Sequence[Row], console: Console) -> None:
    """Print what the runs of a sweep are doing, and how many are in each state."""
    console.print(
        small_table(
            ("run", "state", "done", "train loss", "reason"),
            [
                (
                    row["run"],
                    row["state"],
                    "" if row["share"] is None else f"{row['share']:.0%}",
                    "" if row["train_loss"] is None else f"{row['train_loss']:.4f}",
                    row["reason"] or "",
                )
                for row in rows
            ],
        )
    )
    states = [row["state"] for row in rows]
    console.print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    if "running" not in states and set(states) & {"queued", "failed", "cancelled"}:
        console.print("Nothing runs now; the same sweep command goes on from here.")


def print_list(found: Mapping[str, str], console: Console) -> None:
    """Print names, each with its line."""
    width = max((len(name) for name in found), default=0)
    for name, line in found.items():
        console.print(Text(f"{name:<{width}}  {line}"), soft_wrap=True)


def print_store(found: Mapping[str, Any], console: Console) -> None:
    """Print what a token store holds."""
    console.print(
        small_table(
            ("split", "documents", "tokens", "bytes"),
            [
                (split, *(f"{found[split][key]:,}" for key in ("documents", "tokens", "bytes")))
                for split in ("train", "validation")
            ],
        )
    )
    console.print(Text(f"vocabulary {found['vocab_size']:,}\n{found['path']}"), soft_wrap=True)


def _figure(key: str, value: float) -> str:
    if key == "steps":
        return f"{value:,}"
    return f"{si(value * 1e9)}B" if key.endswith("_gb") else si(value)


def _swept(value: Any) -> str:
    """Return a swept value; large numbers with an SI prefix, as in 10.0T."""
    is_large = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= 1e5
    return si(float(value)) if is_large else str(value)

"""What the runs of a sweep are doing, as a table in the terminal: once, or watched until nothing runs."""

import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lmexp.report.terminal.layout import small_table
from lmexp.runs.record import Row
from lmexp.runs.state import PRUNED, RESULTS
from lmexp.units import duration, si

WATCH_SECONDS = 1.0
"""Between two looks of `status --watch`."""


def print_status(rows: Sequence[Row], by_itself: Callable[[], bool], console: Console) -> None:
    """Print what the runs of a sweep are doing, how many are in each state, and whether it takes a command to go on.

    `by_itself` returns whether the sweep continues without a further command.
    """
    console.print(_status(rows))
    if any(map(_is_open, rows)) and not _goes_on(rows, by_itself):
        console.print("Nothing runs now; the same command goes on from here.")


def watch_status(look: Callable[[], Sequence[Row]], by_itself: Callable[[], bool], console: Console) -> None:
    """Keep showing what the runs of a sweep are doing, until nothing runs and nothing will start by itself.

    Without a terminal, print one line for each run whose state has changed.
    """
    rows = look()
    if not console.is_terminal:
        seen: dict[str, tuple[str, str]] = {}
        while True:
            for row in rows:
                now = (row["state"], "" if row["share"] is None else f"{row['share']:.0%}")
                if seen.get(row["run"]) != now:
                    seen[row["run"]] = now
                    console.print(Text(f"{row['run']}  {' '.join(now)}"), soft_wrap=True)
            if not _goes_on(rows, by_itself):
                return
            time.sleep(WATCH_SECONDS)
            rows = look()
    with Live(_status(rows), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while _goes_on(rows, by_itself):
            time.sleep(WATCH_SECONDS)
            rows = look()
            # What runs comes first: a long sweep is taller than the screen.
            live.update(_status(sorted(rows, key=lambda row: row["state"] != "running")), refresh=True)


def _is_open(row: Row) -> bool:
    """Whether the same command would run it. What a search gave up has its answer."""
    is_pruned = row["state"] == "cancelled" and (row["reason"] or "").startswith(PRUNED)
    return row["state"] not in RESULTS and not is_pruned


def _goes_on(rows: Sequence[Row], by_itself: Callable[[], bool]) -> bool:
    """Whether a run is under way, or will be without a further command."""
    return any(row["state"] == "running" for row in rows) or by_itself()


def _status(rows: Sequence[Row]) -> Group:
    table = small_table(
        ("run", "state", "done", "tokens/s", "left", "train loss", "reason"),
        [
            (
                row["run"],
                row["state"],
                "" if row["share"] is None else f"{row['share']:.0%}",
                "" if row["tokens_per_second"] is None else si(row["tokens_per_second"]),
                "" if row["seconds_left"] is None else duration(row["seconds_left"]),
                "" if row["train_loss"] is None else f"{row['train_loss']:.4f}",
                row["reason"] or "",
            )
            for row in rows
        ],
    )
    states = [row["state"] for row in rows]
    return Group(table, Text(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))))

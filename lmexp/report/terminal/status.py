"""What the runs of a sweep are doing, as a table in the terminal: once, or watched until nothing runs."""

import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lmexp.report.terminal.layout import fitted_table
from lmexp.runs.record import Row
from lmexp.runs.state import PRUNED, RESULTS
from lmexp.units import duration, printable, si

WATCH_SECONDS = 1.0
"""Between two looks of `status --watch`."""
RIGHT = ("done", "tokens/s", "left", "train loss", "predicted loss")
"""Columns of numbers."""
HIDDEN_FIRST = ("train loss", "tokens/s", "left", "predicted loss", "done")
"""Columns that a narrow terminal does not show, the least important first."""


def print_status(
    rows: Sequence[Row], by_itself: Callable[[], bool], console: Console, calibration: Sequence[str] = ()
) -> None:
    """Print what the runs of a sweep are doing, how many are in each state, and whether it takes a command to go on.

    `by_itself` returns whether the sweep continues without a further command; `calibration` says how good the predicted
    losses are.
    """
    console.print(_status(rows, console.width, calibration))
    if any(map(_is_open, rows)) and not _goes_on(rows, by_itself):
        console.print("Nothing runs now; the same command continues from here.")


def watch_status(
    look: Callable[[], Sequence[Row]],
    by_itself: Callable[[], bool],
    console: Console,
    calibration: Callable[[], Sequence[str]] = tuple,
) -> None:
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
                    predicted = _predicted(row)
                    more = f"  predicted loss {predicted}" if predicted else ""
                    console.print(Text(f"{row['run']}  {' '.join(now)}{more}"), soft_wrap=True)
            if not _goes_on(rows, by_itself):
                for line in calibration():
                    console.print(Text(line), soft_wrap=True)
                return
            time.sleep(WATCH_SECONDS)
            rows = look()
    with Live(
        _status(rows, console.width, calibration()), console=console, auto_refresh=False, vertical_overflow="crop"
    ) as live:
        while _goes_on(rows, by_itself):
            time.sleep(WATCH_SECONDS)
            rows = look()
            # What runs comes first: a long sweep is taller than the screen.
            first = sorted(rows, key=lambda row: row["state"] != "running")
            live.update(_status(first, console.width, calibration()), refresh=True)


def _is_open(row: Row) -> bool:
    """Whether the same command would run it. What a search gave up has its answer."""
    is_pruned = row["state"] == "cancelled" and (row["reason"] or "").startswith(PRUNED)
    return row["state"] not in RESULTS and not is_pruned


def _goes_on(rows: Sequence[Row], by_itself: Callable[[], bool]) -> bool:
    """Whether a run is under way, or will be without a further command."""
    return any(row["state"] == "running" for row in rows) or by_itself()


def _predicted(row: Row) -> str:
    """Return the predicted final loss with its interval; nothing if there is none."""
    if row.get("predicted_loss") is None:
        return ""
    return f"{row['predicted_loss']:.3f} ({row['predicted_low']:.3f} to {row['predicted_high']:.3f})"


def _status(rows: Sequence[Row], width: int, calibration: Sequence[str]) -> Group:
    """Return one line for each run, then the reasons: a run is never spread over several lines."""
    names = _short_names([row["run"] for row in rows])
    texts = {
        "run": names,
        "state": [row["state"] for row in rows],
        "done": ["" if row["share"] is None else f"{row['share']:.0%}" for row in rows],
        "tokens/s": ["" if row["tokens_per_second"] is None else si(row["tokens_per_second"]) for row in rows],
        "left": ["" if row["seconds_left"] is None else duration(row["seconds_left"]) for row in rows],
        "predicted loss": list(map(_predicted, rows)),
        "train loss": ["" if row["train_loss"] is None else f"{row['train_loss']:.4f}" for row in rows],
    }
    texts = {name: cells for name, cells in texts.items() if name in ("run", "state") or any(cells)}
    headings = {name: name for name in texts}
    states = texts["state"]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    table = fitted_table(texts, headings, RIGHT, HIDDEN_FIRST, [], width)
    lines = [counts, *_reasons(names, rows, "reason"), *_reasons(names, rows, "not_predicted"), *calibration]
    return Group(table, *(Text(printable(line)) for line in lines))


def _reasons(names: Sequence[str], rows: Sequence[Row], key: str) -> Iterator[str]:
    """Yield each reason once, after the run or the number of runs that have it."""
    runs_of: dict[str, list[str]] = {}
    for name, row in zip(names, rows, strict=True):
        if row.get(key):
            runs_of.setdefault(row[key], []).append(name)
    what = "no final loss is predicted yet: " if key == "not_predicted" else ""
    for reason, runs in runs_of.items():
        yield f"{runs[0] if len(runs) == 1 else f'{len(runs)} runs'}: {what}{reason}"


def _short_names(runs: Sequence[str]) -> list[str]:
    """Return the names of runs without their hashes, where those are unique; otherwise as they are."""
    slugs = [run.rpartition("-")[0] or run for run in runs]
    return [slug if slugs.count(slug) == 1 else run for slug, run in zip(slugs, runs, strict=True)]

"""What the runs of a sweep are doing, as a table in the terminal: once, or watched until nothing runs."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lmexp.analysis.columns import axis_headings
from lmexp.report.terminal.layout import fitted_table, room_for, shortened
from lmexp.report.texts import NULL
from lmexp.runs.record import Row
from lmexp.runs.state import PRUNED, RESULTS
from lmexp.runs.status import slug
from lmexp.units import counted, duration, plain_number, printable, si

WATCH_SECONDS = 1.0
"""Between two looks of `status --watch`."""
RIGHT = ("done", "tokens/s", "left", "train loss", "predicted loss")
"""Columns of numbers."""
HIDDEN_FIRST = ("train loss", "tokens/s", "left", "predicted loss", "done")
"""Columns that a narrow terminal does not show, the least important first."""
MIN_NAME = 40
"""Characters that a name may take before columns are hidden for it; a longer one is shortened in its middle."""
NOT_STARTED = "not started"
"""What the table says of a run that is queued although nothing is there that would start it."""


def print_status(
    rows: Sequence[Row], by_itself: Callable[[], bool], console: Console, calibration: Sequence[str] = ()
) -> None:
    """Print what the runs of a sweep are doing, how many are in each state, and whether it takes a command to go on.

    `by_itself` returns whether the sweep continues without a further command; `calibration` says how good the predicted
    losses are.
    """
    will_start = by_itself()
    console.print(_status(rows, console.width, calibration, will_start))
    if any(map(_is_open, rows)) and not _goes_on(rows, lambda: will_start):
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
                now = (_state(row, by_itself), "" if row["share"] is None else f"{row['share']:.0%}")
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
    first_look = _status(rows, console.width, calibration(), by_itself())
    with Live(first_look, console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while _goes_on(rows, by_itself):
            time.sleep(WATCH_SECONDS)
            rows = look()
            # What runs comes first: a long sweep is taller than the screen.
            first = sorted(rows, key=lambda row: row["state"] != "running")
            live.update(_status(first, console.width, calibration(), by_itself()), refresh=True)


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


def _state(row: Row, by_itself: Callable[[], bool]) -> str:
    """Return the state as the table says it: what nobody will start has not started, and does not wait in a queue."""
    never_started = row["state"] == "queued" and not row.get("attempts")
    return NOT_STARTED if never_started and not by_itself() else str(row["state"])


def _status(rows: Sequence[Row], width: int, calibration: Sequence[str], will_start: bool) -> Group:
    """Return one line for each run, then the reasons: a run is never spread over several lines.

    `will_start` says whether queued runs start without a further command.
    """
    names = _names(rows)
    texts = {
        "run": names,
        "state": [_state(row, lambda: will_start) for row in rows],
        "done": ["" if row["share"] is None else f"{row['share']:.0%}" for row in rows],
        "tokens/s": ["" if row["tokens_per_second"] is None else si(row["tokens_per_second"]) for row in rows],
        "left": ["" if row["seconds_left"] is None else duration(row["seconds_left"]) for row in rows],
        "predicted loss": list(map(_predicted, rows)),
        "train loss": ["" if row["train_loss"] is None else f"{row['train_loss']:.4f}" for row in rows],
    }
    texts = {name: cells for name, cells in texts.items() if name in ("run", "state") or any(cells)}
    headings = {name: name for name in texts}
    names = texts["run"] = shortened(names, room_for("run", texts, headings, HIDDEN_FIRST, MIN_NAME, width))
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
        yield f"{runs[0] if len(runs) == 1 else counted(len(runs), 'run')}: {what}{reason}"


def _names(rows: Sequence[Row]) -> list[str]:
    """Return the names of runs with the keys that differ instead of their hashes; as they are, if these are equal."""
    slugs = [slug(row["run"]) for row in rows]
    told = _told_apart([row.get("differs") or {} for row in rows])
    names = [f"{name}, {differs}" if differs else name for name, differs in zip(slugs, told, strict=True)]
    return [name if names.count(name) == 1 else row["run"] for name, row in zip(names, rows, strict=True)]


def _told_apart(all_values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the values of each run's keys as text, such as `lr 0.003`; rounded, if that does not make two equal."""
    headings = axis_headings(dict.fromkeys(key for values in all_values for key in values))

    def text(write: Callable[[Any], str]) -> list[str]:
        return [", ".join(f"{headings[key]} {write(value)}" for key, value in values.items()) for values in all_values]

    rounded, exact = text(_rounded), text(_exact)
    return rounded if len(set(rounded)) == len(set(exact)) else exact


def _rounded(value: Any) -> str:
    return plain_number(value) if isinstance(value, int | float) and not isinstance(value, bool) else _exact(value)


def _exact(value: Any) -> str:
    return NULL if value is None else value if isinstance(value, str) else json.dumps(value, default=str)

"""The result of bench in the terminal: one row for each shape and precision, and one sentence that sums it up."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.text import Text

from lmexp.cost.contention import MAX_WAIT_FRACTION
from lmexp.report.terminal.layout import column_widths, columns_to_hide, empty_table
from lmexp.runs.record import Row
from lmexp.units import si

HEADINGS = {
    "precision": "precision",
    "batch": "batch",
    "prompt": "prompt",
    "loss": "loss",
    "time_to_first_token_ms": "first\nms",
    "prefill_tokens_per_second": "prefill\ntok/s",
    "decode_tokens_per_second": "decode\ntok/s",
    "decode_ms_p50": "p50\nms",
    "decode_ms_p95": "p95\nms",
    "decode_ms_p99": "p99\nms",
    "compile_seconds": "compile\ns",
    "weights_gb": "weights",
    "kv_cache_gb": "cache",
    "peak_memory_gb": "peak\nmemory",
    "bandwidth_use": "memory\nspeed",
}
SPEEDS = {key for key in HEADINGS if "_ms" in key or key.endswith("per_second") or key == "bandwidth_use"}
HIDE_FIRST = (
    "peak_memory_gb",
    "decode_ms_p95",
    "kv_cache_gb",
    "time_to_first_token_ms",
    "bandwidth_use",
    "decode_ms_p99",
)
"""The order in which columns are hidden when the table is too wide."""


def print_bench(document: Row, console: Console) -> None:
    """Print the table, the notes and the finding."""
    rows = document["rows"]
    _print_table(rows, console)
    for note in _notes(document):
        console.print(Text(note), soft_wrap=True)
    console.print(Text(finding(document), style="bold"), soft_wrap=True)


def finding(document: Row) -> str:
    """Return what the other precisions gain and lose; ratios are medians over the shapes that both have.

    They are compared with the trained precision or, if that was not measured, with the first that was.
    """
    rows = document["rows"]
    names = list(dict.fromkeys(row["precision"] for row in rows))
    base = document["trained_precision"] if document["trained_precision"] in names else names[0]
    others = [name for name in names if name != base]
    if not others:
        best = max(rows, key=lambda row: row["decode_tokens_per_second"])
        return (
            f"{base} decodes up to {si(best['decode_tokens_per_second'])} tokens/s, {best['batch']} sequences at once."
        )
    parts = []
    for name in others:
        mine, theirs = ({(r["batch"], r["prompt"]): r for r in rows if r["precision"] == p} for p in (name, base))
        common = [shape for shape in mine if shape in theirs]
        if not common:
            continue
        speeds = [mine[s]["decode_tokens_per_second"] / theirs[s]["decode_tokens_per_second"] for s in common]
        first, second = mine[common[0]], theirs[common[0]]
        words = f"{name} decodes at {median(speeds):.2f}x the speed of {base}"
        words += f", with {first['weights_gb'] / second['weights_gb']:.2f}x its bytes of weights"
        if first["loss"] is not None and second["loss"] is not None:
            words += f", for {round(first['loss'] - second['loss'], 4) or 0.0:+.4f} loss"  # never -0.0000
        parts.append(words)
    return "; ".join(parts) + "."


def _print_table(rows: Sequence[Row], console: Console) -> None:
    texts = {key: [_marked(key, row) for row in rows] for key in HEADINGS}
    # A column without any number is left out; a note says why there is no loss.
    texts = {key: cells for key, cells in texts.items() if any(cell != "–" for cell in cells)}
    headings = {key: HEADINGS[key] for key in texts}
    hidden = columns_to_hide(column_widths(headings, texts), 1, HIDE_FIRST, console.width)
    table = empty_table(gap=1)
    shown = {key: cells for key, cells in texts.items() if key not in hidden}
    for key in shown:
        table.add_column(Text(headings[key]), justify="left" if key == "precision" else "right", overflow="fold")
    for cells in zip(*shown.values(), strict=True):
        table.add_row(*map(Text, cells))
    console.print(table)
    if hidden:
        names = ", ".join(HEADINGS[key].replace("\n", " ") for key in hidden)
        console.print(f"Not shown at this width: {names}; --json has them.", soft_wrap=True)


def _notes(document: Row) -> list[str]:
    """Return what is missing in the table, and what could be misread."""
    rows, notes = document["rows"], list(document["notes"])
    for gap in document["skipped"]:
        named = {"batch": gap["batch"], "prompt": gap["prompt"], "new": gap["new"]}
        what = " ".join(f"{key} {value}" for key, value in named.items() if value is not None)
        notes.append(f"Skipped: {' '.join(filter(None, (gap['precision'], what)))}: {gap['reason']}.")
    if any(row["precision"] == "int4" for row in rows):
        notes.append(
            "int4 takes one byte for each weight here: its loss is that of int4, its memory and speed are not those of "
            "packed int4."
        )
    used = [row["bandwidth_use"] for row in rows if row["bandwidth_use"] is not None]
    if used and max(used) > 1:
        notes.append(
            "Memory speed is above 100% because the weights fit into the CPU's caches, which are faster than memory."
        )
    if not rows[0]["exclusive"]:
        notes.append("Another run or program used this device at the same time: the speeds are too low.")
    if (rows[0]["cpu_wait_fraction"] or 0.0) > MAX_WAIT_FRACTION:
        notes.append("Other programs kept it waiting for the cores of this CPU: the speeds are too low.")
    return notes


def _is_slowed(row: Row) -> bool:
    """Whether other work on the device made the speeds of a row too low."""
    return not row["exclusive"] or (row["cpu_wait_fraction"] or 0.0) > MAX_WAIT_FRACTION


def _marked(key: str, row: Row) -> str:
    """Return a cell; a speed that other work made too low has a ~, as in the table of a study."""
    text = _figure(key, row[key])
    return f"~{text}" if key in SPEEDS and text != "–" and _is_slowed(row) else text


def _figure(key: str, value: Any) -> str:
    """Return a cell: counts with three digits and an SI prefix, GB as bytes, shares in percent."""
    if value is None:
        return "–"
    if key == "loss":
        return f"{value:.4f}"
    if key == "bandwidth_use":
        return f"{value:.0%}"
    if key == "compile_seconds":
        return f"{value:.1f}"
    if key.endswith("_gb"):
        return f"{si(value * 1e9)}B"
    if "_ms" in key:
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return si(value) if key.endswith("per_second") else str(value)

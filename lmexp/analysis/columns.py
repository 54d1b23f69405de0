"""How a column is spoken of: its title, heading and unit, its number format, its good direction.

The record's names are the contract and stay as they are in tables on disk. What people read, in the terminal,
on the page and in the findings, comes from here, so that one column is called one thing.

A format is `.4f` or `,.2f` as in Python and in d3, or `.3s`, three digits and an SI prefix as in d3: so the
terminal, the charts and the page's script print the same digits.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from lmexp.runs.record import COLUMNS
from lmexp.units import si

SI = ".3s"
"""Three significant digits and a prefix: 1.23M."""


@dataclass(frozen=True)
class Column:
    """A column as people read it."""

    title: str
    """As in a sentence: `training time`."""
    unit: str = ""
    """As after a number: `s`."""
    short: str = ""
    """The narrowest clear heading, unit included; the column's own name when empty."""
    format: str = ""
    """How its numbers are written; empty means that it follows from the values."""

    @property
    def heading(self) -> str:
        """The title with its unit, for axes and wide tables."""
        return f"{self.title} ({self.unit})" if self.unit and self.unit not in self.title else self.title


_KNOWN: dict[str, Column] = {
    "slug": Column("run", short="run"),
    "loss": Column("loss", "nats", "loss", ".4f"),
    "perplexity": Column("perplexity", "", "ppl", ",.2f"),
    "bits_per_byte": Column("bits per byte", "", "bits/byte", ".4f"),
    "accuracy": Column("accuracy", "share right", "accuracy", ".4f"),
    "n_params": Column("parameters", "", "params", SI),
    "n_params_active": Column("active parameters", "", "active params", SI),
    "n_params_embedding": Column("embedding parameters", "", "embedding", SI),
    "n_params_matmul": Column("matmul parameters", "", "matmul params", SI),
    "n_layers": Column("layers", "", "layers"),
    "d_model": Column("width", "", "d_model"),
    "n_heads": Column("heads", "", "heads"),
    "context": Column("context", "tokens", "context"),
    "tokens": Column("training tokens", "tokens", "tokens", SI),
    "epochs": Column("epochs", "", "epochs"),
    "flops_per_token": Column("FLOPs per token", "FLOPs", "FLOPs/token", SI),
    "flops_per_token_6n": Column("FLOPs per token, 6N", "FLOPs", "6N", SI),
    "flops_per_token_kaplan": Column("FLOPs per token, Kaplan", "FLOPs", "Kaplan", SI),
    "flops_per_token_causal": Column("FLOPs per token, causal", "FLOPs", "causal", SI),
    "flops_per_token_hardware": Column("FLOPs per token, hardware", "FLOPs", "hardware", SI),
    "flops_per_token_recompute": Column("FLOPs per token, recomputing", "FLOPs", "recomputing", SI),
    "train_flops": Column("training compute", "FLOPs", "FLOPs", SI),
    "batch_tokens": Column("batch", "tokens", "batch", SI),
    "tokens_per_second": Column("throughput", "tokens/s", "tokens/s", SI),
    "step_ms_p50": Column("step time, median", "ms", "ms/step"),
    "step_ms_p95": Column("step time, 95th percentile", "ms", "ms p95"),
    "mfu": Column("MFU", "share of peak", "MFU", ".3f"),
    "peak_flops": Column("peak", "FLOP/s", "peak FLOP/s", SI),
    "data_wait_fraction": Column("data wait", "share of time", "data wait", ".3f"),
    "compile_seconds": Column("compile time", "s", "compile s"),
    "train_seconds": Column("training time", "s", "train s"),
    "wall_seconds": Column("wall time", "s", "wall s"),
    "peak_memory_gb": Column("peak memory", "GB", "GB"),
    "reserved_memory_gb": Column("reserved memory", "GB", "reserved GB"),
    "weights_gb": Column("weights", "GB", "weights GB"),
    "energy_kwh": Column("energy", "kWh", "kWh"),
    "kwh_per_million_tokens": Column("energy per million tokens", "kWh", "kWh/1M tokens"),
    "dollars": Column("price", "dollars", "dollars"),
    "dollars_per_million_tokens": Column("price per million tokens", "dollars", "dollars/1M tokens"),
    "dollars_per_hour": Column("price of a device per hour", "dollars", "dollars/h"),
}

MOST_AXES = 5
"""More columns of settings than these leave no room for results."""
QUALITIES = ("loss", "perplexity", "bits_per_byte", "accuracy")
"""Columns that say how good a model is; scores join them."""
COSTS = (
    "train_flops", "train_seconds", "wall_seconds", "tokens", "n_params", "peak_memory_gb", "weights_gb",
    "energy_kwh", "dollars",
)  # fmt: skip
"""Columns that say what a model costs; less is better in each."""

DEVICE_BOUND = {
    "tokens_per_second", "step_ms_p50", "step_ms_p95", "mfu", "train_seconds", "wall_seconds", "data_wait_fraction",
    "energy_kwh", "kwh_per_million_tokens", "dollars", "dollars_per_million_tokens",
}  # fmt: skip
"""What another device, or another run on the same one, changes."""

_HIGHER = {"accuracy", "acc", "f1", "bleu", "chrf", "tokens_per_second", "throughput", "mfu"}
_LOWER_SCORES = {
    "loss",
    "perplexity",
    "ppl",
    "bits_per_byte",
    "wer",
    "cer",
    "ter",
    "error",
    "brier",
    "ece",
    "mse",
    "mae",
}


def column(name: str) -> Column:
    """Return how `name` is spoken of; a name that is not listed (an axis, a score) speaks for itself."""
    title = name.removeprefix("score/").replace("/", " ") if name.startswith("score/") else name
    if name.startswith("flops/"):
        part = name.removeprefix("flops/").replace("_", " ")
        return Column(f"FLOPs per token, {part}", "FLOPs", part, SI)
    return _KNOWN.get(name) or Column(title=title, short=title)


def axis_headings(axes: Iterable[str]) -> dict[str, str]:
    """Return the shortest heading of each axis that no other has: `n_layers` for `model.n_layers`."""
    axes = list(axes)
    last = Counter(axis.rsplit(".", 1)[-1] for axis in axes)
    return {axis: end if last[end := axis.rsplit(".", 1)[-1]] == 1 else axis for axis in axes}


def telling(axes: Sequence[str], cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the axes that a table shows: all, or of more than MOST_AXES those that it takes to tell its cells apart.

    An axis adds nothing where those before it determine its value, as when one point sets several keys.
    """
    if len(axes) <= MOST_AXES:
        return list(axes)
    kept: list[str] = []
    groups = 1
    for axis in axes:
        finer = len({tuple(str(cell.get(name)) for name in [*kept, axis]) for cell in cells})
        if finer > groups:
            kept, groups = [*kept, axis], finer
    return kept


def meaning(name: str) -> str:
    """Return the contract's words for a column, or nothing."""
    if name.startswith("score/"):
        return "score of a task: score/<task>/<metric>"
    if name.startswith("flops/"):
        return "training FLOPs per token of one part of the model"
    return COLUMNS.get(name, "")


def higher_is_better(name: str) -> bool:
    """Whether more of a column is good: accuracy, throughput, MFU, and scores other than losses and errors.

    Of a column that is none of the record's, as in a table of one's own, the common names of scores are known.
    """
    if name.startswith("score/"):
        metric = name.rsplit("/", 1)[-1]
        return metric not in _LOWER_SCORES and not re.search(r"_ms(_|$)", metric)  # of bench: milliseconds
    return name in _HIGHER or name.startswith(("f1_", "rouge"))


def number_format(name: str, values: Iterable[float]) -> str:
    """Return the format of a column's numbers: the listed one, or decimals that suit its typical size.

    One format serves a whole column, so that its digits align. Empty means: write the value as it is.
    """
    listed = column(name).format
    if listed:
        return listed
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    if all(float(size).is_integer() for size in sizes):
        return SI if sizes and max(sizes) >= 1e6 else ""
    if name not in COLUMNS and not name.startswith("score/"):
        return ""  # an axis is written as it was in the sweep file
    decimals = min(max(2 - math.floor(math.log10(median(sizes))), 0), 8)
    return f",.{decimals}f"


def format_number(value: float, spec: str) -> str:
    """Return a number in a format of this module."""
    if spec.endswith("s"):
        return si(value)
    if spec:
        return format(value, spec)
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:g}"


def in_words(name: str, value: float) -> str:
    """Return one value with its unit, as in a sentence: `12.3 s`, `1.23P FLOPs`."""
    text = format_number(value, number_format(name, [value]) or ",.4g")
    return f"{text} {column(name).unit}".rstrip()

"""How the numbers of a column are written, and how the axes of a sweep are named and chosen for a table.

Titles, units and formats of the record's columns come from runs/columns.py; the formats are described there.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from lmexp.runs.columns import COLUMNS, SI, column
from lmexp.runs.differences import distinguishing_keys
from lmexp.units import short_si, si

MAX_AXES = 5
"""A table with more columns of settings than this has no room left for results."""


def axis_headings(axes: Iterable[str]) -> dict[str, str]:
    """Return the shortest unique heading of each axis: `n_layers` for `model.n_layers`."""
    axes = list(axes)
    last = Counter(axis.rsplit(".", 1)[-1] for axis in axes)
    return {axis: end if last[end := axis.rsplit(".", 1)[-1]] == 1 else axis for axis in axes}


def distinguishing_axes(axes: Sequence[str], cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the axes that a table shows: all up to MAX_AXES, else only those needed to tell the cells apart.

    An axis is not needed if the axes before it determine its value, as when one point of a sweep sets several keys.
    """
    return list(axes) if len(axes) <= MAX_AXES else distinguishing_keys(axes, cells)


def number_format(name: str, values: Iterable[float]) -> str:
    """Return the format of a column's numbers: its own, or as many decimals as its typical size needs.

    The whole column has one format, so that its digits align. An empty format means: write the value as it is.
    """
    if column(name).format:
        return column(name).format
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    if all(float(size).is_integer() for size in sizes):
        return SI if sizes and max(sizes) >= 1e6 else ""
    if name not in COLUMNS and not name.startswith("score/"):
        return ""  # an axis is written as it was in the sweep file
    decimals = min(max(2 - math.floor(math.log10(median(sizes))), 0), 8)
    return f",.{decimals}f"


def format_number(value: float, spec: str) -> str:
    """Return a number in one of the formats of `number_format`."""
    if spec.endswith("s"):
        return si(value)
    if spec:
        return format(value, spec)
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:g}"


def value_text(value: Any) -> str:
    """Return a value of an axis as people write it: bf16, 4, 65536, 100k, 40G, 1e-5, true, null.

    Numbers from 10,000 have an SI prefix if three digits say them exactly; from a million, always, with four digits.
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if not isinstance(value, int | float):
        return str(value)
    size = abs(value)
    if size >= 1e6 or (size >= 1e4 and float(f"{value:.3g}") == value):
        return short_si(value)
    text = f"{value:.6g}"
    return re.sub(r"e-0*", "e-", text)


def setting_in_words(axes: Sequence[str], values: Iterable[Any], with_nulls: bool = True) -> str:
    """Return the values of some axes in one line: texts as they are, others with the name of their axis.

    A column of the record, such as the tokens of a milestone, has the format of the column. Without nulls, the axes
    that a cell does not set are left out, unless it sets none.
    """
    headings = axis_headings(axes)
    pairs = list(zip(axes, values, strict=False))
    if not with_nulls:
        pairs = [pair for pair in pairs if pair[1] is not None] or pairs
    return ", ".join(
        value if isinstance(value, str) else f"{headings[axis]} {_text_in(axis, value)}" for axis, value in pairs
    )


def _text_in(name: str, value: Any) -> str:
    """Return a value of a column as its table has it, or a value of an axis as people write it."""
    spec = number_format(name, [value]) if name in COLUMNS and isinstance(value, int | float) else ""
    return format_number(value, spec) if spec else value_text(value)


def in_words(name: str, value: float) -> str:
    """Return one value with its unit, as in a sentence: `12.3 s`, `1.23P FLOPs`."""
    text = format_number(value, number_format(name, [value]) or ",.4g")
    return f"{text} {column(name).unit}".rstrip()

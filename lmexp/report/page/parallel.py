"""The parallel coordinates of the page: a vertical line for each setting and measure, and where each row crosses it."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.columns import axis_headings, format_number, number_format, value_text
from lmexp.analysis.frontier import numbers
from lmexp.analysis.table import Study
from lmexp.report.page.curves import spread
from lmexp.runs.columns import COLUMNS, column

MAX_LINES = 8
"""Vertical lines that a screen has room for."""
MAX_NUMBER_TICKS, MAX_WORD_TICKS = 6, 12
"""Labels on a line of numbers, beyond which only its ends have one, and on a line of words."""
MIN_GAP = 0.05
"""The smallest distance of two labels, as a share of the height."""
LOG_RATIO = 20
"""Numbers are placed by their logarithm if the largest is more than this many times the smallest."""

Heights = list[float | None]
"""Where each row crosses a line, from 0 at the bottom to 1 at the top; None for a row without a value."""
Ticks = list[list[Any]]
"""The labels of a line, each as [height, text]."""


def parallel_lines(study: Study, quality: str, cost: str) -> tuple[list[dict[str, Any]], dict[str, Heights]]:
    """Return the lines with their labels, and for each line, by its key, where the rows cross it."""
    heads = axis_headings(study.varied)
    names = [name for name in study.varied if name != "seed" and study.table[name].nunique() > 1]
    names = [*names[: MAX_LINES - 2], *(name for name in (cost, quality) if name not in names)]
    lines: list[dict[str, Any]] = []
    heights: dict[str, Heights] = {}
    for name in names:
        placed = _placed(study.table, name, study.axes.get(name, []))
        if placed:
            key = f"line{len(lines)}"
            heights[key], ticks = placed
            lines.append({"key": key, "name": name, "title": heads.get(name) or column(name).title, "ticks": ticks})
    return lines, heights


def _placed(table: pd.DataFrame, name: str, order: Sequence[Any]) -> tuple[Heights, Ticks] | None:
    """Return where the values of a column lie, with their labels; None if there are no values."""
    values = table[name]
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return _placed_numbers(numbers(table, name), name)
    return _placed_words(values, order)


def _placed_numbers(values: np.ndarray, name: str) -> tuple[Heights, Ticks] | None:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    distinct = np.unique(finite)
    low, high = float(distinct[0]), float(distinct[-1])
    labelled = distinct if len(distinct) <= MAX_NUMBER_TICKS else np.array([low, high])
    spec = number_format(name, finite) if name in COLUMNS else ""
    ticks = _apart(zip(_heights(labelled, low, high).tolist(), labelled.tolist(), strict=True))
    heights = [round(height, 4) if np.isfinite(height) else None for height in _heights(values, low, high).tolist()]
    return heights, [[height, format_number(value, spec) if spec else value_text(value)] for height, value in ticks]


def _apart(ticks: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return rising ticks without those whose labels would touch; the lowest and the highest stay."""
    first, *others = ticks
    kept = [first]
    for tick in others:
        if tick[0] - kept[-1][0] >= MIN_GAP and (1 - tick[0] >= MIN_GAP or tick is others[-1]):
            kept.append(tick)
    return kept


def _heights(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return numbers between `low` and `high` as heights from 0 to 1; NaN stays NaN."""
    if low == high:
        return np.where(np.isfinite(values), 0.5, np.nan)
    transform: Any = np.log if low > 0 and high > LOG_RATIO * low else np.positive
    with np.errstate(divide="ignore", invalid="ignore"):
        heights: np.ndarray = (transform(values) - transform(low)) / (transform(high) - transform(low))
    return heights


def _placed_words(values: pd.Series, order: Sequence[Any]) -> tuple[Heights, Ticks] | None:
    """Return heights and labels for words, in the order of the sweep, then in that of the table."""
    present = list(map(str, values.dropna().unique()))
    known = [value for value in dict.fromkeys([*map(str, order), *present]) if value in set(present)]
    if not known:
        return None
    height = {value: i / (len(known) - 1) if len(known) > 1 else 0.5 for i, value in enumerate(known)}
    labelled = [known[i] for i in spread(len(known), MAX_WORD_TICKS)]
    return [None if pd.isna(v) else height[str(v)] for v in values], [[height[value], value] for value in labelled]

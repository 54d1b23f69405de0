"""Parts of sentences: a value with its unit, a difference, a ratio, a price."""

from typing import Any

import numpy as np

from lmexp.analysis.columns import format_number, in_words, number_format
from lmexp.analysis.comparable import SHARED_MARK
from lmexp.runs.columns import column


def value_text(name: str, value: Any, half: float | None = None) -> str:
    """Return a value with its title and unit, such as `loss, 2.5010 ± 0.0030 nats`."""
    text = in_words(name, float(value))
    if half is not None:
        spec = number_format(name, [float(value)]) or ",.4g"
        number = format_number(float(value), spec)
        text = f"{number} ± {half_text(half, spec)}{text.removeprefix(number)}"
    return f"{column(name).title}, {text}"


def half_text(half: float, spec: str) -> str:
    """Return half an interval with the digits of its value, or with one significant digit if that would show 0."""
    text = format_number(half, spec)
    return text if half == 0 or text.strip("0.,") else np.format_float_positional(half, precision=1, fractional=False)


def size_text(name: str, value: float) -> str:
    """Return the size of a difference, with the column's number of digits."""
    return format_number(value, number_format(name, [value]) or ",.4g")


def signed_text(change: float, spec: str) -> str:
    """Return a change with its sign."""
    return ("−" if change < 0 else "+") + format_number(abs(change), spec)


def ratio_text(value: float) -> str:
    """Return a ratio such as `0.50x`."""
    return f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


def price_text(cost: str, spent: float | None, is_slowed: bool) -> str:
    """Return `, for 12.3 s of training time`; nothing if the cost is not known."""
    return "" if spent is None else f", for {mark(is_slowed)}{in_words(cost, spent)} of {column(cost).title}"


def mark(is_slowed: bool) -> str:
    """Return the mark of a number that was measured beside other work, or nothing."""
    return SHARED_MARK if is_slowed else ""

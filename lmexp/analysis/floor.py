"""The floor of a text: the loss that no model can beat, if it is known (column loss_floor), in the unit of a quality.

Perplexity is exp(loss), and bits per byte are the loss times what the tokenizer makes of a byte, so both have the floor
of the loss. Other qualities have none.
"""

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Floats
from lmexp.analysis.frontier import is_done, numbers

FLOORED = ("loss", "perplexity", "bits_per_byte")
"""The qualities that have a floor."""
MAX_DIFFERENCE = 1e-6
"""Floors that differ by less than this share of their value are the same, but for rounding."""


def floors(table: pd.DataFrame, quality: str) -> Floats:
    """Return the floor of each row of a table, in the unit of a quality: (rows,), NaN where it is not known.

    Raises UserError if a column that is needed holds no numbers.
    """
    if quality not in FLOORED or "loss_floor" not in table:
        return np.full(len(table), np.nan)
    floor = numbers(table, "loss_floor")
    if quality == "perplexity":
        return np.exp(floor)
    return floor if quality == "loss" else floor * numbers(table, "bits_per_byte") / numbers(table, "loss")


def distinct_floors(table: pd.DataFrame, quality: str) -> list[float]:
    """Return the floors of the finished rows of a table, each once, the lowest first."""
    known = floors(table, quality)[is_done(table)]
    known = np.sort(known[np.isfinite(known)])
    is_new = np.diff(known, prepend=-np.inf) > MAX_DIFFERENCE * known
    return [float(value) for value in known[is_new]]


def shared_floor(table: pd.DataFrame, quality: str) -> float | None:
    """Return the floor that all finished rows of a table share; None if one has another, or none."""
    known = distinct_floors(table, quality)
    has_all = np.isfinite(floors(table, quality)[is_done(table)]).all()
    return known[0] if len(known) == 1 and has_all else None

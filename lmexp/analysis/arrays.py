"""The arrays that the analysis computes with."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]
"""Which rows are meant, True or False for each."""


def as_numbers(values: pd.Series) -> pd.Series:
    """Return a column as floats, with NaN for text; a whole number beyond all floats is infinite."""
    try:
        return pd.to_numeric(values, errors="coerce").astype(float)
    except OverflowError:
        return values.map(_as_number).astype(float)


def _as_number(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        return math.nan

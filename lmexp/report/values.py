"""Values as JSON has them: no numpy types, no NaN, no infinity, and no more digits than a reader can use."""

import math
from typing import Any

import numpy as np
import pandas as pd


def json_value(value: Any, digits: int | None = None) -> Any:
    """Return a value, with all that is inside a mapping or list, as plain JSON.

    What is missing or not finite becomes null. Floats keep `digits` significant digits, or all of them.
    """
    if isinstance(value, dict):
        return {str(key): json_value(inner, digits) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(inner, digits) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if digits is None else float(f"{value:.{digits}g}")
    return value


def json_column(values: pd.Series, digits: int | None = None) -> list[Any]:
    """Return the values of a column as `json_value` has them."""
    if pd.api.types.is_float_dtype(values):
        floats = values.to_numpy(dtype=float, na_value=np.nan)
        kept = [float(value) if digits is None else float(f"{value:.{digits}g}") for value in floats]
        return [value if math.isfinite(value) else None for value in kept]
    return [json_value(value, digits) for value in values.astype(object)]


def as_script(value: Any) -> str:
    """Return a value as JavaScript's String does."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e21:
            return str(int(value))
        mantissa, _, exponent = repr(value).partition("e")
        if exponent and -7 < int(exponent) < 0:
            return f"{value:.{len(mantissa.replace('.', '').lstrip('-')) - 1 - int(exponent)}f}"
        return f"{mantissa}e{int(exponent):+d}" if exponent else mantissa
    return str(value)

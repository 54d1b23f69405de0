"""Columns of a table as text, as the terminal and the document formats show them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmexp.analysis.columns import format_number, number_format
from lmexp.units import printable

if TYPE_CHECKING:
    import pandas as pd

FRONTIER_MARK = "*"
"""Marks a row on the frontier."""
TIED_MARK = "≈"
"""Marks a row whose setting is tied with one that costs no more."""
NULL = "–"
"""Stands for what was not measured."""


def frontier_text(is_on_frontier: bool, is_tied: bool) -> str:
    """Return the marks of a row."""
    return FRONTIER_MARK * bool(is_on_frontier) + TIED_MARK * bool(is_tied)


def column_texts(table: "pd.DataFrame", name: str, positions: Sequence[int] | np.ndarray | None = None) -> list[str]:
    """Return a column, or the rows of it at `positions`, as text; all numbers of a column have one format."""
    import pandas as pd  # here, because a plan has no such table, and takes a second less without pandas

    values = table[name]
    shown = values if positions is None else values.iloc[list(positions)]
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return [NULL if pd.isna(value) else printable(str(value)) for value in shown]
    spec = number_format(name, values.dropna().astype(float))
    return [NULL if pd.isna(value) else format_number(float(value), spec) for value in shown]

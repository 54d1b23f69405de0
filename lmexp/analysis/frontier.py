"""The frontier: the rows that no other row of their task beats on both quality and cost.

Exact, by one sort: going up in cost, a row stays when it is the best of its cost and better than everything
cheaper. Rows that tie on both stay together, for neither beats the other.
"""

import numpy as np
import pandas as pd

from lmexp.analysis.columns import higher_is_better as known_direction
from lmexp.errors import UserError, nearest


def frontier(
    table: pd.DataFrame,
    quality: str = "loss",
    cost: str = "train_seconds",
    higher_is_better: bool | None = None,
) -> pd.Series:
    """Return for each row whether it is on the frontier of `quality` against `cost`, in O(n log n).

    What is predicted must be the same for a comparison: where the table has a `task`, each task has a frontier of its
    own. Less cost is better. The direction of `quality` is the column's own (columns.higher_is_better) unless
    it is given. Rows without one of the two numbers are never on it; nor, where the table has a `state`, are
    rows of runs that are not done.

    Raises UserError for a column that the table does not have, or that holds no numbers.
    """
    up = known_direction(quality) if higher_is_better is None else higher_is_better
    spent = numbers(table, cost)
    lost = -numbers(table, quality) if up else numbers(table, quality)
    known = np.isfinite(spent) & np.isfinite(lost)
    if "state" in table:
        known &= (table["state"] == "done").to_numpy(dtype=bool, na_value=False)

    marks = np.zeros(len(table), dtype=bool)
    tasks = table["task"].fillna("").astype(str).to_numpy() if "task" in table else np.zeros(len(table))
    for task in np.unique(tasks[known]):
        here = known & (tasks == task)
        marks[here] = _undominated(spent[here], lost[here])
    return pd.Series(marks, index=table.index, name="frontier")


def numbers(table: pd.DataFrame, name: str) -> np.ndarray:
    """Return a column as float64, null as NaN. Raises UserError when it is missing or holds no numbers."""
    if name not in table:
        raise UserError(
            f"there is no column '{name}'.{nearest(name, table.columns)} "
            "Some are loss, bits_per_byte, accuracy, train_seconds, train_flops, peak_memory_gb"
        )
    values = table[name]
    if values.isna().all():
        return np.full(len(table), np.nan)
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        raise UserError(f"column '{name}' holds no numbers")
    return values.to_numpy(dtype=float, na_value=np.nan)


def _undominated(cost: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Whether no other point is as good on both and better on one; less is better."""
    if not len(cost):
        return np.zeros(0, dtype=bool)
    order = np.lexsort((loss, cost))
    _, first, group = np.unique(cost[order], return_index=True, return_inverse=True)
    best = loss[order][first]  # of each distinct cost
    cheaper = np.concatenate([[np.inf], np.minimum.accumulate(best)[:-1]])  # best of all lower costs
    keep = (loss[order] == best[group]) & (best < cheaper)[group]
    marks = np.empty(len(cost), dtype=bool)
    marks[order] = keep
    return marks

"""The frontier: the rows that no other row of their task beats on every quality and cost that counts.

Exact, for any number of columns. Two columns take one sort: going up in cost, a row stays when it is the best of its
cost and better than everything cheaper. With more, rows are sorted column by column, so a row can be beaten only by
one before it, and is held against the frontier so far: O(rows x frontier). Rows that tie on all stay together, for
none beats the other.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Floats, Marks
from lmexp.errors import UserError, nearest
from lmexp.runs.columns import higher_is_better as known_direction

Names = str | Sequence[str]
"""One column, or several."""

_TOGETHER = 128
"""Rows that are held against the frontier at once: few enough to be cheap among themselves."""


def frontier(
    table: pd.DataFrame,
    quality: Names = "loss",
    cost: Names = "train_seconds",
    higher_is_better: bool | None = None,
    turned: Mapping[str, bool] | None = None,
) -> pd.Series:
    """Return for each row whether it is on the frontier of the columns `quality` and `cost`.

    What is predicted must be the same for a comparison: where the table has a `task`, each task has a frontier of its
    own. Each column has its own good direction (columns.higher_is_better): less loss and fewer seconds, but more
    accuracy and more tokens per second; `higher_is_better` overrides it for `quality`, `turned` for the columns that it
    names (True: more is better). Rows without one of the numbers,
    or with an infinite one, are never on it; nor, where the table has a `state`, are rows of runs that are not done.

    Raises UserError for a column that the table does not have, or that holds no numbers.
    """
    own = {} if higher_is_better is None else dict.fromkeys(names_of(quality), higher_is_better)
    losses = objectives(table, quality, cost, own | dict(turned or {}))
    known = is_done(table) & np.isfinite(losses).all(axis=1)
    marks = np.zeros(len(table), dtype=bool)
    tasks = table["task"].fillna("").astype(str).to_numpy() if "task" in table else np.zeros(len(table))
    for task in np.unique(tasks[known]):
        here = known & (tasks == task)
        marks[here] = undominated(losses[here])
    return pd.Series(marks, index=table.index, name="frontier")


def objectives(
    table: pd.DataFrame, quality: Names, cost: Names, turned: Mapping[str, bool] | None = None
) -> Floats:  # (rows, columns)
    """Return what is to be small, a column each for `quality` and `cost`: where more is good, the negative."""
    up = turned or {}
    columns = dict.fromkeys([*names_of(quality), *names_of(cost)])
    signs = [-1.0 if up.get(name, known_direction(name)) else 1.0 for name in columns]
    # Adding 0 makes -0 the 0 that it equals.
    return np.column_stack([sign * numbers(table, name) + 0.0 for name, sign in zip(columns, signs, strict=True)])


def names_of(names: Names) -> list[str]:
    """Return one name or several as a list. Raises UserError for none."""
    found = [names] if isinstance(names, str) else list(names)
    if not found:
        raise UserError("a frontier takes at least one column as quality and one as cost")
    return found


def is_done(table: pd.DataFrame) -> Marks:  # (rows,)
    """Whether a row is of a finished run; all are where the table has no `state`."""
    if "state" not in table:
        return np.ones(len(table), dtype=bool)
    return (table["state"] == "done").to_numpy(dtype=bool, na_value=False)


def numbers(table: pd.DataFrame, name: str) -> Floats:  # (rows,)
    """Return a column as float64, null as NaN. Raises UserError when it is missing or holds no numbers."""
    if name not in table:
        raise UserError(
            f"there is no column '{name}'.{nearest(name, map(str, table.columns))} "
            "Some are loss, bits_per_byte, accuracy, train_seconds, train_flops, peak_memory_gb"
        )
    values = table[name]
    if values.isna().all():
        return np.full(len(table), np.nan)
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        raise UserError(f"column '{name}' holds no numbers")
    return values.to_numpy(dtype=float, na_value=np.nan)


def undominated(losses: Floats) -> Marks:  # (rows, columns) -> (rows,)
    """Whether no other row is as small in every column and smaller in one. All must be finite."""
    if not len(losses):
        return np.zeros(0, dtype=bool)
    # Sorted by the first column, then the second, ...; equal rows are one point.
    points, of_row = np.unique(losses, axis=0, return_inverse=True)
    found = _staircase(points) if points.shape[1] == 2 else _filtered(points)
    return np.asarray(found[of_row.reshape(-1)], dtype=bool)


def _staircase(points: Floats) -> Marks:
    """Of two columns: a point stays when its second is below that of every point before it."""
    best_before = np.minimum.accumulate(np.concatenate([[np.inf], points[:-1, 1]]))
    return np.asarray(points[:, 1] < best_before, dtype=bool)


def _filtered(points: Floats) -> Marks:
    """Of sorted, distinct points: one stays when none before it is as small in all columns after the first."""
    rest = points[:, 1:]
    found = np.zeros(len(points), dtype=bool)
    kept = np.empty_like(rest)
    count = 0
    for start in range(0, len(points), _TOGETHER):
        block = np.arange(start, min(start + _TOGETHER, len(points)))
        block = block[~_beaten(rest[block], kept[:count])]
        among = _beaten_before(rest[block])
        block = block[~among]
        found[block] = True
        kept[count : count + len(block)] = rest[block]
        count += len(block)
    return found


def _beaten(points: Floats, by: Floats) -> Marks:
    """Whether one of `by` is as small as a point in every column; a column at a time, to need no third dimension."""
    beaten = np.ones((len(points), len(by)), dtype=bool)
    for column in range(points.shape[1]):
        beaten &= by[None, :, column] <= points[:, None, column]
    return np.asarray(beaten.any(axis=1), dtype=bool)


def _beaten_before(points: Floats) -> Marks:
    """The same by an earlier one among the points themselves."""
    beaten = np.tri(len(points), k=-1, dtype=bool)
    for column in range(points.shape[1]):
        beaten &= points[None, :, column] <= points[:, None, column]
    return np.asarray(beaten.any(axis=1), dtype=bool)

"""The Pareto frontier: the rows that no other row of the same task dominates in the chosen quality and cost columns.

The result is exact for any number of columns. Two columns take one sort: in the order of rising cost, a row stays if
it is the best at its cost and better than every cheaper row. With more columns, rows are sorted column by column, so
only an earlier row can dominate a row, and each row is compared with the frontier so far: O(rows x frontier). Rows
that are equal in all columns stay together, because neither dominates the other.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Floats, Marks
from lmexp.analysis.rankable import rank_groups
from lmexp.errors import UserError, nearest
from lmexp.runs.columns import higher_is_better as known_direction

Names = str | Sequence[str]
"""One column, or several."""

_TOGETHER = 128
"""Rows compared with the frontier at once: few enough that comparing them with each other is cheap."""


def frontier(
    table: pd.DataFrame,
    quality: Names = "loss",
    cost: Names = "train_seconds",
    higher_is_better: bool | None = None,
    turned: Mapping[str, bool] | None = None,
) -> pd.Series:
    """Return for each row whether it is on the frontier of the columns `quality` and `cost`.

    Rows that cannot be ranked together (rankable.py), such as those of other tasks or scored on other texts, have
    frontiers of their own. Every column has a direction (columns.higher_is_better): lower loss and fewer seconds are
    better, but higher accuracy and more tokens per second. `higher_is_better` overrides the direction of `quality`,
    `turned` that of the columns it names (True: higher is better). A row with a missing or infinite number is never on
    the frontier, and neither is a row whose `state`, if the table has that column, is not done.

    Raises UserError for a column that the table lacks or that is not numeric.
    """
    own = {} if higher_is_better is None else dict.fromkeys(names_of(quality), higher_is_better)
    losses = objectives(table, quality, cost, own | dict(turned or {}))
    known = is_done(table) & np.isfinite(losses).all(axis=1)
    marks = np.zeros(len(table), dtype=bool)
    groups = rank_groups(table, [*names_of(quality), *names_of(cost)])
    for group in np.unique(groups[known]):
        here = known & (groups == group)
        marks[here] = undominated(losses[here])
    return pd.Series(marks, index=table.index, name="frontier")


def objectives(
    table: pd.DataFrame, quality: Names, cost: Names, turned: Mapping[str, bool] | None = None
) -> Floats:  # (rows, columns)
    """Return the values to minimise, one column per name: those of a column where higher is better are negated."""
    up = turned or {}
    columns = dict.fromkeys([*names_of(quality), *names_of(cost)])
    signs = [-1.0 if up.get(name, known_direction(name)) else 1.0 for name in columns]
    # Adding 0 turns -0 into 0.
    return np.column_stack([sign * numbers(table, name) + 0.0 for name, sign in zip(columns, signs, strict=True)])


def names_of(names: Names) -> list[str]:
    """Return one or several names as a list. Raises UserError if there is none."""
    listed = [names] if isinstance(names, str) else list(names)
    if not listed:
        raise UserError("a frontier takes at least one column as quality and one as cost")
    return listed


def is_done(table: pd.DataFrame) -> Marks:  # (rows,)
    """Return a mask of the rows of finished runs; it marks all rows if the table has no `state`."""
    if "state" not in table:
        return np.ones(len(table), dtype=bool)
    return (table["state"] == "done").to_numpy(dtype=bool, na_value=False)


def numbers(table: pd.DataFrame, name: str) -> Floats:  # (rows,)
    """Return a column as float64, with null as NaN. Raises UserError if it is missing or not numeric."""
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
    """Return a mask of the rows that no other row dominates: as small in every column and smaller in at least one.

    All values must be finite.
    """
    if not len(losses):
        return np.zeros(0, dtype=bool)
    # np.unique sorts by the first column, then the second, ..., and merges equal rows into one point.
    points, of_row = np.unique(losses, axis=0, return_inverse=True)
    on_frontier = _staircase(points) if points.shape[1] == 2 else _filtered(points)
    return np.asarray(on_frontier[of_row.reshape(-1)], dtype=bool)


def _staircase(points: Floats) -> Marks:
    """Mark the frontier of sorted points (n, 2): a point stays if its second value is below all earlier ones."""
    best_before = np.minimum.accumulate(np.concatenate([[np.inf], points[:-1, 1]]))
    return np.asarray(points[:, 1] < best_before, dtype=bool)


def _filtered(points: Floats) -> Marks:
    """Mark the frontier of sorted, distinct points (n, k).

    A point stays if no earlier point is as small in all columns after the first.
    """
    rest = points[:, 1:]
    on_frontier = np.zeros(len(points), dtype=bool)
    kept = np.empty_like(rest)
    count = 0
    for start in range(0, len(points), _TOGETHER):
        block = np.arange(start, min(start + _TOGETHER, len(points)))
        block = block[~_dominated(rest[block], kept[:count])]
        among = _dominated_before(rest[block])
        block = block[~among]
        on_frontier[block] = True
        kept[count : count + len(block)] = rest[block]
        count += len(block)
    return on_frontier


def _dominated(points: Floats, by: Floats) -> Marks:
    """Mark the points for which some row of `by` is as small in every column.

    The loop goes column by column, so that no array needs a third dimension.
    """
    dominated = np.ones((len(points), len(by)), dtype=bool)
    for column in range(points.shape[1]):
        dominated &= by[None, :, column] <= points[:, None, column]
    return np.asarray(dominated.any(axis=1), dtype=bool)


def _dominated_before(points: Floats) -> Marks:
    """Mark the points for which an earlier one of the points is as small in every column."""
    dominated = np.tri(len(points), k=-1, dtype=bool)
    for column in range(points.shape[1]):
        dominated &= points[None, :, column] <= points[:, None, column]
    return np.asarray(dominated.any(axis=1), dtype=bool)

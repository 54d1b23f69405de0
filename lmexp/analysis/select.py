"""Choosing a run: the cheapest that reaches a quality, the best under a limit, the knee of the frontier.

Each function returns one row or None. A limit is a column and a number, and its direction is the one in which the
column is better: `loss=3.0` means at most 3.0, `accuracy=0.8` at least 0.8.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Marks
from lmexp.analysis.frontier import frontier, is_done, numbers, objectives
from lmexp.errors import UserError
from lmexp.runs.columns import higher_is_better

Limits = Mapping[str, float]
"""A bound for each of some columns."""


def parse_limits(words: Sequence[str], option: str) -> dict[str, float]:
    """Parse limits such as `loss=3.0` or `dollars=2,peak_memory_gb=8`. Raises UserError if one cannot be parsed."""
    limits: dict[str, float] = {}
    for word in (part for text in words for part in text.split(",")):
        name, sign, value = word.strip().rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not sign or not name.strip() or not math.isfinite(number):
            raise UserError(f"{option} {word.strip()}: a column and a number, as in {option} loss=3.0")
        limits[name.strip()] = number
    return limits


def meets(table: pd.DataFrame, limits: Limits) -> Marks:  # (rows,)
    """Return a mask of the rows of finished runs that meet every limit. A null value meets no limit."""
    met = is_done(table)
    for name, bound in limits.items():
        values = numbers(table, name)
        met = met & np.isfinite(values) & (values >= bound if higher_is_better(name) else values <= bound)
    return met


def cheapest(table: pd.DataFrame, limits: Limits, quality: str, cost: str) -> int | None:
    """Return the position of the cheapest row within the limits, or None; the rows must compare (rankable.py).

    A tie goes to the row of better quality.
    """
    return _first(table, meets(table, limits), cost, quality)


def best(table: pd.DataFrame, limits: Limits, quality: str, cost: str) -> int | None:
    """Return the position of the best row within the limits, or None; the rows must compare (rankable.py).

    A tie goes to the cheaper row.
    """
    return _first(table, meets(table, limits), quality, cost)


def _first(table: pd.DataFrame, allowed: Marks, first: str, then: str) -> int | None:
    """Return the position of the allowed row that is best in `first`, then in `then`."""
    losses = objectives(table, first, then)
    allowed = allowed & np.isfinite(losses[:, 0])
    if not allowed.any():
        return None
    ranked = np.where(allowed[:, None] & np.isfinite(losses), losses, np.inf)
    at = np.flatnonzero(allowed)
    return int(at[np.lexsort((ranked[at, -1], ranked[at, 0]))[0]])


def knee(table: pd.DataFrame, quality: str, cost: str) -> int | None:
    """Return the position of the knee of the frontier of two columns, or None if it has no knee.

    Both columns are scaled to 0..1 over the frontier. Costs above 0 are scaled by their logarithm, because costs are
    compared as ratios. The knee is the row farthest on the good side of the line between the frontier's ends (Das,
    Structural Optimization 18, 1999; for curves, Satopaa et al., "Finding a Kneedle in a Haystack", 2011). A frontier
    with fewer than three points, or one that never dips below the line, has no knee. The rows must compare
    (rankable.py).
    """
    losses = objectives(table, quality, cost)
    if losses.shape[1] != 2:
        return None
    on = np.flatnonzero(frontier(table, quality, cost).to_numpy())
    lost, spent = losses[on].T
    if len(np.unique(spent)) < 3:
        return None
    spent = np.log(spent) if (spent > 0).all() else spent
    across = (spent - spent.min()) / np.ptp(spent)
    down = (lost - lost.min()) / np.ptp(lost)
    below = 1 - across - down  # sqrt(2) times the distance to the line from (0, 1) to (1, 0)
    return int(on[np.argmax(below)]) if below.max() > 1e-9 else None

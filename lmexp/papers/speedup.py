"""How many times fewer tokens one arm of a study needs than another to reach the same loss.

The loss is the higher of the two arms' losses at their most tokens, which both have reached. Between the points of an
arm, such as its milestones, ln L is interpolated linearly in ln D.
"""

import numpy as np

from lmexp.analysis.arrays import Floats, Marks
from lmexp.errors import UserError
from lmexp.papers.evidence import Ints


def speedup(
    tokens: Floats, loss: Floats, arm: Marks, base: Marks, setting: Ints, cell: Ints, tuned: Floats | None
) -> float:
    """Return the geometric mean over pairs of the tokens of `base` divided by those of `arm` at equal loss.

    Args:
        tokens, loss: (n,) of each row.
        arm, base: (n,) whether a row is of the arm.
        setting: (n,) the number of a row's values of all other axes; a pair agrees in it.
        cell: (n,) the same without the seed.
        tuned: (n,) of what the best value is taken for each arm and cell: the one with the lowest mean loss at the
            most tokens.

    Raises UserError if an arm reached the loss before its first point.
    """
    known = np.isfinite(tokens) & np.isfinite(loss)
    arms = [_tuned(rows & known, tokens, loss, cell, tuned) for rows in (arm, base)]
    logs = []
    for number in np.unique(setting):
        curves = [_curve(tokens[rows], loss[rows]) for rows in (of_arm & (setting == number) for of_arm in arms)]
        if all(len(at) for at, _ in curves):
            target = max(losses[-1] for _, losses in curves)
            first, second = (_tokens_at(at, losses, target) for at, losses in curves)
            logs.append(second - first)
    if logs and not np.isfinite(logs).any():
        raise UserError(
            "speedup: an arm reached the other's last loss before its own first point: it needs earlier ones"
        )
    return float(np.exp(np.nanmean(logs))) if logs else np.nan


def _tuned(rows: Marks, tokens: Floats, loss: Floats, cell: Ints, tuned: Floats | None) -> Marks:
    """Return which of some rows (n,) have the best value of `tuned` in their cell; all without it."""
    if tuned is None:
        return rows
    best = np.zeros_like(rows)
    for number in np.unique(cell[rows]):
        inside = rows & (cell == number)
        last = inside & (tokens >= tokens[inside].max() * (1 - 1e-9))
        values = np.unique(tuned[last])
        lowest = values[np.argmin([loss[last & (tuned == value)].mean() for value in values])]
        best |= inside & (tuned == lowest)
    return best


def _curve(tokens: Floats, loss: Floats) -> tuple[Floats, Floats]:
    """Return the distinct ln D (k,) in rising order, and ln of the mean loss (k,) at each."""
    at, group = np.unique(np.log(tokens), return_inverse=True)
    return at, np.log(np.bincount(group, loss, len(at)) / np.bincount(group, minlength=len(at)))


def _tokens_at(at: Floats, losses: Floats, target: float) -> float:
    """Return the ln D at which a curve first reaches a loss that it does reach; NaN if its first point is lower."""
    first = int(np.argmax(losses <= target))
    if losses[first] == target:
        return float(at[first])
    if first == 0:
        return np.nan
    share = (losses[first - 1] - target) / (losses[first - 1] - losses[first])
    return float(at[first - 1] + share * (at[first] - at[first - 1]))

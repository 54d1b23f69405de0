"""How many times fewer tokens one arm of a study needs than another to reach the same loss.

The loss is the higher of the two arms' losses at their most tokens, which both have reached. `lmexp versus` reads the
same curves (analysis/versus/curves.py).
"""

import numpy as np

from lmexp.analysis.arrays import Floats, Marks
from lmexp.analysis.versus.curves import Curve, log_speedup, tuned
from lmexp.errors import UserError
from lmexp.papers.evidence import Ints


def speedup(
    tokens: Floats, loss: Floats, arm: Marks, base: Marks, setting: Ints, cell: Ints, best: Floats | None
) -> float:
    """Return the geometric mean over pairs of the tokens of `base` divided by those of `arm` at equal loss.

    Args:
        tokens, loss: (n,) of each row.
        arm, base: (n,) whether a row is of the arm.
        setting: (n,) the number of a row's values of all other axes; a pair agrees in it.
        cell: (n,) the same without the seed.
        best: (n,) of what the best value is taken for each arm and cell: the one with the lowest mean loss at the
            most tokens.

    Raises UserError if an arm reached the loss before its first point.
    """
    known = np.isfinite(tokens) & np.isfinite(loss)
    arms = [arm & known, base & known]
    if best is not None:
        arms = [tuned(rows, tokens, loss, cell, best) for rows in arms]
    logs = []
    for number in np.unique(setting):
        pair = [rows & (setting == number) for rows in arms]
        if all(rows.any() for rows in pair):
            ours, theirs = (Curve.of(tokens[rows], loss[rows]) for rows in pair)
            logs.append(log_speedup(theirs, ours, max(ours.levels[-1], theirs.levels[-1])))
    if logs and not np.isfinite(logs).any():
        raise UserError(
            "speedup: an arm reached the other's last loss before its own first point: it needs earlier ones"
        )
    return float(np.exp(np.nanmean(logs))) if logs else np.nan

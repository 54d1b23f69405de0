"""The best value of a tuned number: the vertex of a parabola of the mean losses in its logarithm.

The parabola goes through the lowest mean and its two neighbours on either side, as far as there are any: far from the
minimum a loss is no parabola of the logarithm of a learning rate.
"""

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.errors import UserError

NEIGHBOURS = 2
"""How many values on either side of the lowest mean the parabola goes through."""


def vertex(at: Floats, means: Floats) -> float:
    """Return the vertex, from rising values (k,) above 0 and the mean at each; NaN with fewer than three values.

    Raises UserError without a minimum inside.
    """
    if len(at) < 3:
        return np.nan
    logs, near = np.log(at), window(at, means)
    square, line, _ = np.polyfit(logs[near], means[near], 2)
    if square <= 0:
        best = at[int(means.argmin())]
        raise UserError(f"the parabola through the values near {best:g} has no minimum; add values or seeds")
    return float(np.exp(np.clip(-line / (2 * square), logs[0], logs[-1])))


def window(at: Floats, means: Floats) -> slice:
    """Return which of the rising values (k,) the parabola goes through. Raises UserError for a minimum at the edge."""
    best = int(means.argmin())
    if not 0 < best < len(at) - 1:
        end, missing = ("smallest", "smaller") if best == 0 else ("largest", "larger")
        raise UserError(
            f"the minimum lies at the edge of the grid: the lowest mean is that of the {end} of {len(at)} values, "
            f"{at[best]:g}; add {missing} values"
        )
    return slice(max(best - NEIGHBOURS, 0), best + NEIGHBOURS + 1)

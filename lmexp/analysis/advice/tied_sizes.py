"""The sizes that are as good as the best one, as far as noise goes: a budget's loss is flat about its best size."""

from collections.abc import Callable

import numpy as np


def tied_sizes(
    loss: Callable[[float], float], best: float, margin: float, ends: tuple[float, float]
) -> tuple[float, float]:
    """Return the smallest and the largest size whose loss is at most `margin` above that of the best size.

    `loss` is the loss of a size on the budget, infinite for a size that the budget does not pay for; it must rise on
    both sides of `best`. No size beyond `ends` is returned.
    """
    from scipy.optimize import brentq

    least = loss(best)

    def above(ln_size: float) -> float:
        return min(loss(float(np.exp(ln_size))) - least - margin, 1.0)  # a root takes finite numbers

    def reach(end: float) -> float:
        if margin == 0 or above(np.log(end)) <= 0:
            return best if margin == 0 else end
        return float(np.exp(brentq(above, np.log(best), np.log(end))))

    low, high = ends
    return reach(min(low, best)), reach(max(high, best))

"""Least absolute deviations, the limit of Huber's loss for a small delta.

The sum of |ln(predicted/measured)| is not smooth. Its minimum lies at a kink, where about as many residuals are 0 as
there are parameters, and Newton's method fails. So each step replaces the residuals by their tangents. The exact
minimum of that problem is a linear program, within a box that shrinks if the step does not gain. From a start nearby,
two or three steps end at the optimum.
"""

import numpy as np
from scipy.optimize import linprog

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.surface import Surface

STEPS = 50
FIRST_BOX = 0.1
"""Half the width of the first step's box, in working parameters, which are logarithms or of that size."""
TOLERANCE = 1e-13
"""A step that would gain less than this share of the objective ends the search."""


def least_absolute_deviations(surface: Surface, weights: Floats, start: Floats) -> Floats:
    """Return the parameters (k,) at the minimum of the sum of |residual| with weights (n,), near a start (k,)."""
    parameters, box = start, FIRST_BOX
    value = _deviation(surface, weights, parameters)
    for _ in range(STEPS):
        step, predicted = _tangent_step(surface, weights, parameters, box)
        if value - predicted <= TOLERANCE * value:
            break
        moved = _deviation(surface, weights, parameters + step)
        if moved < value:
            parameters, value, box = parameters + step, moved, 2 * box
        else:
            box = float(np.abs(step).max()) / 4
    return parameters


def _deviation(surface: Surface, weights: Floats, parameters: Floats) -> float:
    return float(weights @ np.abs(surface.residual(parameters[None])[0]))


def _tangent_step(surface: Surface, weights: Floats, parameters: Floats, box: float) -> tuple[Floats, float]:
    """Return the best step (k,) inside a box, and the objective there, if residuals were straight in the parameters.

    The program is: minimise w (u + v) over steps s and u, v >= 0, subject to r + J s = u - v.
    """
    used = weights > 0
    residual = surface.residual(parameters[None])[0, used]
    n, k = len(residual), len(parameters)
    bounds: list[tuple[float, float | None]] = [(-box, box)] * k + [(0.0, None)] * (2 * n)
    for i, (low, high) in enumerate(zip(*surface.bounds, strict=True)):
        bounds[i] = (max(-box, float(low - parameters[i])), min(box, float(high - parameters[i])))
    result = linprog(
        np.concatenate([np.zeros(k), weights[used], weights[used]]),
        A_eq=np.hstack([surface.jacobian(parameters)[used], -np.eye(n), np.eye(n)]),
        b_eq=-residual,
        bounds=bounds,
        method="highs",
    )
    if result.x is None:  # no step, no gain
        return np.zeros(k), _deviation(surface, weights, parameters)
    return result.x[:k], float(result.fun)

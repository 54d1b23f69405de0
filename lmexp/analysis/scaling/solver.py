"""The best fit, not a good one: a grid, a small linear problem in every cell of it, then Newton from the best few.

What is minimised is the weighted sum over points of Huber's loss of r = ln(predicted/measured). The sum, never the
mean: a mean is so small that an optimiser's tolerances stop it where it began.

`solve` finds the optimum from nothing. `descend` improves many problems at once, one for each row of weights: those of
a bootstrap, which begin where the whole's optimum and its rivals are.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.surface import Surface

EXPONENTS = np.geomspace(0.02, 2.0, 16)
"""The grid's alpha and beta."""
GAMMAS = np.geomspace(0.05, 2.0, 8)
"""The grid's gamma, where it is free; 1 is added."""
FLOORS = np.array([0.0, 0.25, 0.45, 0.6, 0.7, 0.8, 0.88, 0.95, 0.99])
"""The grid's E, as parts of the smallest loss, where it is free."""
GRID_POINTS = 1000
"""The grid needs no more points than this to find where to begin."""
STARTS = 48
"""How many of the grid's cells Newton begins at."""
PATIENCE = 12
"""Steps without gain until a descent ends: at Huber's kinks the best step is far shorter than the first tried."""
STEPS = 200
"""Of a descent at most; ten to fifty are usual."""
LAST_STEPS = 2000
"""Of the last descents to an optimum: along the valley of an exponent that hardly matters it takes hundreds."""
LONGEST_STEP = 1.5
"""In each working parameter, all of which are logarithms or of their size."""
AT_ONCE = 40_000
"""Points times problems worked on at once: what stays in a processor's cache."""
HUBER = 1.345
"""Of the residuals' standard deviation: Huber's loss is then 95 % as efficient as squares where noise is normal."""
MAD_TO_DEVIATION = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""
SMALLEST_DELTA = 1e-6
"""Below this, residuals are rounding, and every one counts by its square."""


class Solution(NamedTuple):
    """Where a descent ended."""

    parameters: Floats
    """(batch, k), as surface.py has them."""
    objective: Floats
    """(batch,)"""


def solve(surface: Surface, weights: Floats, delta: float | None = None) -> tuple[Solution, float]:
    """Return the distinct optima of one problem, weights (n,), the best first, and the delta of Huber's loss.

    Without a `delta` it is 1.345 robust standard deviations (1.4826 MAD) of the residuals at the optimum itself,
    found by turns, beginning with squares.
    """
    start = _best_of_grid(surface, weights, np.inf if delta is None else delta)
    if delta is not None:
        found = _distinct(_descend_alike(surface, weights, start, delta))
        return _distinct(_descend_alike(surface, weights, found.parameters, delta, LAST_STEPS)), delta
    found = _descend_alike(surface, weights, start, np.inf)
    delta = np.inf
    for _ in range(20):
        previous, delta = delta, robust_delta(surface.residual(_best(found).parameters)[0], weights)
        found = _descend_alike(surface, weights, _distinct(found).parameters, delta)
        if abs(delta - previous) <= 1e-6 * delta:
            break
    return _distinct(_descend_alike(surface, weights, found.parameters, delta, LAST_STEPS)), delta


def robust_delta(residual: Floats, weights: Floats) -> float:
    """Return 1.345 x 1.4826 x the median absolute deviation of residuals (n,) whose weight is not 0."""
    residual = residual[weights > 0]
    deviation = MAD_TO_DEVIATION * np.median(np.abs(residual - np.median(residual)))
    return max(HUBER * float(deviation), SMALLEST_DELTA)


def descend(surface: Surface, weights: Floats, start: Floats, delta: float, steps: int = STEPS) -> Solution:
    """Return the optimum of every problem, weights (batch, n), from its own start (batch, k), piece by piece."""
    size = max(AT_ONCE // len(surface), 1)
    pieces = [
        _newton(surface, weights[at : at + size], start[at : at + size], delta, steps)
        for at in range(0, len(weights), size)
    ]
    return Solution(*(np.concatenate(parts) for parts in zip(*pieces, strict=True)))


def descend_from_each(surface: Surface, weights: Floats, starts: Floats, delta: float) -> Solution:
    """Return the best optimum of every problem, weights (batch, n), over all starts (s, k)."""
    best: Solution | None = None
    for start in starts:
        found = descend(surface, weights, np.tile(start, (len(weights), 1)), delta)
        if best is None:
            best = found
            continue
        better = found.objective < best.objective
        best = Solution(
            np.where(better[:, None], found.parameters, best.parameters),
            np.where(better, found.objective, best.objective),
        )
    assert best is not None
    return best


def _descend_alike(surface: Surface, weights: Floats, starts: Floats, delta: float, steps: int = STEPS) -> Solution:
    """Return where descents of one problem, weights (n,), end from several starts (s, k)."""
    return descend(surface, np.tile(weights, (len(starts), 1)), starts, delta, steps)


def _best(found: Solution) -> Solution:
    """Return the best of several ends, as a batch of one."""
    at = [int(np.argmin(found.objective))]
    return Solution(found.parameters[at], found.objective[at])


def _distinct(found: Solution) -> Solution:
    """Return the ends, the best first, each once."""
    order = np.argsort(found.objective, kind="stable")
    kept: list[int] = []
    for i in order:
        if np.isfinite(found.objective[i]) and not any(
            np.allclose(found.parameters[i], found.parameters[j], rtol=1e-3, atol=1e-3) for j in kept
        ):
            kept.append(int(i))
    return Solution(found.parameters[kept], found.objective[kept])


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # a step too far is refused by its value
def _newton(surface: Surface, weights: Floats, start: Floats, delta: float, steps: int) -> Solution:
    """Return the end of damped Newton for every problem of a batch.

    Directions of negative curvature are taken by its size; a step without gain is tried again with more damping. A
    problem is done when a full step would gain less than 1e-13 of the objective, or when patience ends.
    """
    parameters = start.copy()
    value, gradient, hessian = surface.derivatives(parameters, weights, delta)
    damping = np.full(len(start), 1e-3)
    failed = np.zeros(len(start), dtype=int)
    floor = 1e-28 * weights.sum(axis=1)
    active = np.arange(len(start))
    for _ in range(steps):
        step, gain = _step(surface, parameters[active], gradient[active], hessian[active], damping[active])
        going = (gain > 1e-13 * value[active] + floor[active]) & (failed[active] < PATIENCE)
        active, step = active[going], step[going]
        if not len(active):
            break
        trial = parameters[active] + step
        if surface.has_floor:
            trial[:, 0] = np.maximum(trial[:, 0], 0.0)
        new_value, new_gradient, new_hessian = surface.derivatives(trial, weights[active], delta)
        better = new_value < value[active]  # false for NaN
        won, lost = active[better], active[~better]
        parameters[won], value[won] = trial[better], new_value[better]
        gradient[won], hessian[won] = new_gradient[better], new_hessian[better]
        damping[won] = np.maximum(damping[won] / 10, 1e-12)
        damping[lost] = np.maximum(damping[lost] * 8, 1e-6)
        failed[won] = 0
        failed[lost] += 1
    return Solution(parameters, value)


def _step(
    surface: Surface, parameters: Floats, gradient: Floats, hessian: Floats, damping: Floats
) -> tuple[Floats, Floats]:
    """Return the damped step (batch, k), and what the undamped one would gain (batch,).

    Parameters are scaled by their own curvature first. E stays at 0 where it would go below.
    """
    if surface.has_floor:
        held = (parameters[:, 0] <= 0) & (gradient[:, 0] > 0)
        gradient, hessian = gradient.copy(), hessian.copy()
        gradient[held, 0] = 0.0
        hessian[held, 0, :] = hessian[held, :, 0] = 0.0
        hessian[held, 0, 0] = 1.0
    lost = ~(np.isfinite(hessian.sum(axis=(1, 2))) & np.isfinite(gradient.sum(axis=1)))  # a start beyond all numbers
    if lost.any():
        gradient = np.where(lost[:, None], 0.0, gradient)
        hessian = np.where(lost[:, None, None], np.eye(hessian.shape[1]), hessian)
    diagonal = np.abs(np.diagonal(hessian, axis1=1, axis2=2))
    scale = np.sqrt(np.maximum(diagonal, 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300))
    values, vectors = np.linalg.eigh(hessian / (scale[:, :, None] * scale[:, None, :]))
    along = np.einsum("bij,bi->bj", vectors, gradient / scale)
    values = np.maximum(np.abs(values), 1e-13)
    step = -np.einsum("bij,bj->bi", vectors, along / (values + damping[:, None])) / scale
    longest = np.maximum(np.abs(step).max(axis=1), LONGEST_STEP)
    return step * (LONGEST_STEP / longest)[:, None], (along**2 / values).sum(axis=1) / 2


def _best_of_grid(surface: Surface, weights: Floats, delta: float) -> Floats:
    """Return the starts (s, k): the best cells of the grid in E, gamma, alpha and beta.

    In a cell only A and B are unknown, and (L - E)^(1/gamma) = A N^-alpha + B D^-beta is linear in them: two
    equations by least squares of the residual's first order, kept above 0.
    """
    if len(surface) > GRID_POINTS:  # an even choice in the order of the data's own values, not of the rows
        rows = np.lexsort((*surface.log_inputs, surface.log_loss))
        rows = rows[np.linspace(0, len(rows) - 1, GRID_POINTS).astype(int)]
        surface, weights, whole = surface.at(rows), weights[rows], surface
        moved = [here - there for here, there in zip(surface.centres, whole.centres, strict=True)]
    else:
        moved = [0.0] * len(surface.centres)
    free = surface.law.free
    shifts = surface.precisions.start if surface.precisions else np.zeros(0)
    floors = FLOORS * np.exp(surface.log_loss[weights > 0].min()) if "E" in free else np.zeros(1)
    gammas = np.append(GAMMAS, 1.0) if "gamma" in free else np.ones(1)
    betas = EXPONENTS if "beta" in free else np.ones(1)
    alpha, beta = (grid.ravel() for grid in np.meshgrid(EXPONENTS, betas, indexing="ij"))
    x = surface.centred[0] + (surface.precisions.shift(shifts[None])[0] if surface.precisions else 0.0)
    u = np.exp(-np.outer(EXPONENTS, x))  # (exponents, n)
    v = np.exp(-np.outer(betas, surface.centred[1])) if "B" in free else None
    cells = []
    for floor in floors:
        for gamma in gammas:
            log_part = np.log(np.maximum(np.exp(surface.log_loss) - floor, 1e-3 * floor))
            target = np.exp(log_part / gamma)
            w = weights * (gamma * np.exp(log_part - surface.log_loss) / target) ** 2
            a, b = _two_terms(u, v, target, w)
            columns = {"E": floor, "a": a, "alpha": alpha, "b": b, "beta": beta, "g": np.log(gamma)}
            working = [np.broadcast_to(columns[name], alpha.shape) for name in surface.names if name in columns]
            cells.append(np.column_stack([*working, np.tile(shifts, (len(alpha), 1))]))
    starts = np.stack(cells)  # (cells of E and gamma, cells of alpha and beta, k)
    scores = np.stack([surface.objective(cell, weights[None], delta) for cell in starts])
    each = max(
        2 * STARTS // len(alpha), 1
    )  # several of a pair where pairs are few, for gammas have optima of their own
    best = np.argsort(np.where(np.isfinite(scores), scores, np.inf), axis=0, kind="stable")[:each]  # of each pair
    at = np.broadcast_to(np.arange(len(alpha)), best.shape).ravel()
    best = best.ravel()
    chosen = np.argsort(scores[best, at], kind="stable")[:STARTS]
    start = starts[best[chosen], at[chosen]]
    for name, exponent, shift in zip(("a", "b"), ("alpha", "beta"), moved, strict=False):
        if name in surface.names:  # back to the centres of all points
            slope = start[:, surface.names.index(exponent)] if exponent in surface.names else 1.0
            start[:, surface.names.index(name)] += slope * shift
    return start


def _two_terms(u: Floats, v: Floats | None, target: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return ln A and ln B of target = A u + B v by weighted least squares, for each of u (p, n) with each of v (q, n).

    Both (p q,); a coefficient that would be negative becomes a thousandth part of the target.
    """
    uu, uy = u**2 @ weights, u @ (weights * target)
    if v is None:
        return np.log(uy / uu), np.zeros(len(u))
    vv, vy, uv = v**2 @ weights, v @ (weights * target), (u * weights) @ v.T
    determinant = np.maximum(np.outer(uu, vv) - uv**2, 1e-12 * np.outer(uu, vv))
    a = (uy[:, None] * vv - vy * uv) / determinant
    b = (vy * uu[:, None] - uy[:, None] * uv) / determinant
    alone_a, alone_b = np.broadcast_to((uy / uu)[:, None], uv.shape), np.broadcast_to(vy / vv, uv.shape)
    a, b = np.where(b <= 0, alone_a, a), np.where(a <= 0, alone_b, b)
    a, b = np.maximum(a, 1e-3 * alone_a), np.maximum(b, 1e-3 * alone_b)
    return np.log(a).ravel(), np.log(b).ravel()


def condition(surface: Surface, parameters: Floats) -> float:
    """Return the condition number at an optimum (1, k): of the squared residuals' Gauss-Newton Hessian.

    Each parameter is in a scale of its own. It says what the design can tell, whatever the noise; infinite when it is
    singular. An E that is held at 0 does not count.
    """
    exact = replace(
        surface, log_loss=surface.log_loss + surface.residual(parameters)[0]
    )  # no residual, no second order
    _, _, hessian = exact.derivatives(parameters, np.ones((1, len(surface))), np.inf)
    kept = slice(1 if surface.has_floor and parameters[0, 0] <= 0 else 0, None)
    hessian = hessian[0, kept, kept]
    diagonal = np.diagonal(hessian)
    if not np.isfinite(hessian).all() or diagonal.min() <= 0:
        return float("inf")
    scale = np.sqrt(diagonal)
    values = np.linalg.eigvalsh(hessian / np.outer(scale, scale))
    return float(values[-1] / values[0]) if values[0] > 0 else float("inf")

"""The global optimum of a fit: a grid, a small linear problem in every cell of it, then Newton from the best cells.

The objective is the weighted sum over points of Huber's loss of r = ln(predicted/measured). It must be the sum and not
the mean: a mean is so small that an optimiser's tolerances stop it at the start.

`solve` finds the optimum without a starting point. `descend` improves many problems at once, one for each row of
weights. The refits of a bootstrap are such problems; they start from the optimum for all points and from its rivals.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.absolute import least_absolute_deviations
from lmexp.analysis.scaling.surface import Surface

EXPONENTS = np.geomspace(0.02, 2.0, 16)
"""The grid's alpha and beta."""
GAMMAS = np.geomspace(0.05, 2.0, 8)
"""The grid's gamma if it is free; 1 is added."""
FLOORS = np.array([0.0, 0.25, 0.45, 0.6, 0.7, 0.8, 0.88, 0.95, 0.99])
"""The grid's E if it is free, as fractions of the smallest loss."""
GRID_POINTS = 1000
"""The grid uses at most this many points, which is enough to find starting points."""
STARTS = 48
"""Number of grid cells that Newton starts from."""
PATIENCE = 12
"""Failed steps in a row that end a descent: at Huber's kinks the best step is far shorter than the first one tried."""
STEPS = 200
"""Most steps of a descent; ten to fifty are usual."""
LAST_STEPS = 2000
"""Most steps of the last descents to an optimum: the valley of an exponent that hardly matters takes hundreds."""
LONGEST_STEP = 1.5
"""Limit of a step in each working parameter; all of them are logarithms or of that size."""
AT_ONCE = 40_000
"""Points times problems computed at once, so that the arrays stay in a processor's cache."""
HUBER = 1.345
"""Delta in standard deviations of the residuals. For normal noise Huber's loss is then 95 % as efficient as squares."""
MAD_TO_DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
MAX_ABSOLUTE_DELTA = 1e-6
"""A delta of this and less means least absolute deviations: losses are not known to a millionth."""
SMALL_DELTA = 1e-4
"""With a smaller delta than this, Newton is not tried from far away: it stops at a kink."""
STAGE = 3.0
"""Factor between the deltas of two stages: from the optimum of one, Newton finds that of the next in a few steps."""
MAX_LOCAL_OPTIMA = 3
"""Number of local optima that compete: for the last step of least absolute deviations, and for every refit."""
STARTS_IN_STAGES = 8
"""Number of local optima that follow delta down its stages."""
MIN_DELTA = 1e-6
"""Smallest delta: residuals below it are only rounding errors."""


class Solution(NamedTuple):
    """The end points of a batch of descents."""

    parameters: Floats
    """(batch, k), the working parameters of surface.py."""
    objective: Floats
    """(batch,)"""


def solve(surface: Surface, weights: Floats, delta: float | None = None) -> tuple[Solution, float]:
    """Return the distinct local optima of one problem with weights (n,), the best first, and Huber's delta.

    If `delta` is None, it is 1.345 robust standard deviations (1.4826 MAD) of the residuals at the optimum itself.
    Delta and optimum are then computed in alternation, starting from least squares.
    """
    if delta is not None:
        return _solve_at(surface, weights, delta), delta
    solution = _descend_alike(surface, weights, _best_of_grid(surface, weights, np.inf), np.inf)
    delta = np.inf
    for _ in range(20):
        previous, delta = delta, robust_delta(surface.residual(_best(solution).parameters)[0], weights)
        solution = _descend_alike(surface, weights, _distinct(solution).parameters, delta)
        if abs(delta - previous) <= 1e-6 * delta:
            break
    return _distinct(_descend_alike(surface, weights, solution.parameters, delta, LAST_STEPS)), delta


def _solve_at(surface: Surface, weights: Floats, delta: float) -> Solution:
    """Return the distinct local optima at a given delta.

    If delta is small against the residuals, the objective has a kink at every point, and Newton stops at one of them.
    So delta also falls in stages from that of the residuals. The last is that of least absolute deviations.
    """
    start = _best_of_grid(surface, weights, delta)
    solution = _descend_alike(surface, weights, start, max(delta, SMALL_DELTA))
    stages = _stages(robust_delta(surface.residual(_best(solution).parameters)[0], weights), delta)
    if len(stages) > 1:
        staged = _descend_alike(surface, weights, start, stages[0])
        for stage in stages[1:]:
            staged = _descend_alike(surface, weights, _distinct(staged).parameters[:STARTS_IN_STAGES], stage)
        solution = Solution(*(np.concatenate(parts) for parts in zip(solution, staged, strict=True)))
    rivals, steps = _distinct(solution).parameters, LAST_STEPS
    if delta < SMALL_DELTA:  # every kink is a rival, and Newton's last steps between kinks gain next to nothing
        rivals, steps = rivals[:STARTS_IN_STAGES], STEPS
    solution = _distinct(_descend_alike(surface, weights, rivals, float(stages[-1]), steps))
    if delta <= MAX_ABSOLUTE_DELTA:
        starts = solution.parameters[:MAX_LOCAL_OPTIMA]
        minima = np.stack([least_absolute_deviations(surface, weights, start) for start in starts])
        solution = _distinct(Solution(minima, surface.objective(minima, weights[None], delta)))
    return solution


def _stages(first: float, delta: float) -> Floats:
    """Return falling deltas from `first` to `delta`, each at most STAGE times smaller than the one before."""
    last = max(delta, MAX_ABSOLUTE_DELTA / 10)
    if last >= first:
        return np.array([delta])
    return np.geomspace(first, last, int(np.ceil(np.log(first / last) / np.log(STAGE))) + 1)


def robust_delta(residual: Floats, weights: Floats) -> float:
    """Return 1.345 x 1.4826 x the median absolute deviation of the residuals (n,) with weights above 0."""
    off = np.abs(residual - weighted_median(residual, weights))
    return max(HUBER * MAD_TO_DEVIATION * weighted_median(off, weights), MIN_DELTA)


def weighted_median(values: Floats, weights: Floats) -> float:
    """Return the median of values (n,) with weights (n,) of 0 or more; a weight of 2 is that of two equal values."""
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    half, rounding = below[-1] / 2, 1e-12 * below[-1]
    low, high = np.searchsorted(below, half - rounding), np.searchsorted(below, half + rounding, side="right")
    return float(values[order[low]] + values[order[high]]) / 2


def descend(surface: Surface, weights: Floats, start: Floats, delta: float, steps: int = STEPS) -> Solution:
    """Return the optimum of every problem, weights (batch, n), from its own start (batch, k); computed in pieces."""
    size = max(AT_ONCE // len(surface), 1)
    pieces = [
        _newton(surface, weights[at : at + size], start[at : at + size], delta, steps)
        for at in range(0, len(weights), size)
    ]
    return Solution(*(np.concatenate(parts) for parts in zip(*pieces, strict=True)))


def descend_from_each(surface: Surface, weights: Floats, starts: Floats, delta: float) -> Solution:
    """Return the best optimum of every problem, weights (batch, n), over all starts (s, k).

    A small delta is reached in stages.
    """
    stages = _stages(robust_delta(surface.residual(starts[:1])[0], np.ones(len(surface))), delta)
    best: Solution | None = None
    for start in starts:
        solution = descend(surface, weights, np.tile(start, (len(weights), 1)), stages[0])
        for stage in stages[1:]:
            solution = descend(surface, weights, solution.parameters, stage)
        if best is None:
            best = solution
            continue
        better = solution.objective < best.objective
        best = Solution(
            np.where(better[:, None], solution.parameters, best.parameters),
            np.where(better, solution.objective, best.objective),
        )
    assert best is not None
    return (
        best if delta == stages[-1] else Solution(best.parameters, surface.objective(best.parameters, weights, delta))
    )


def _descend_alike(surface: Surface, weights: Floats, starts: Floats, delta: float, steps: int = STEPS) -> Solution:
    """Return the end points of descents of one problem, weights (n,), from several starts (s, k)."""
    return descend(surface, np.tile(weights, (len(starts), 1)), starts, delta, steps)


def _best(solution: Solution) -> Solution:
    """Return the best of several end points, as a batch of one."""
    at = [int(np.argmin(solution.objective))]
    return Solution(solution.parameters[at], solution.objective[at])


def _distinct(solution: Solution) -> Solution:
    """Return the distinct end points, the best first."""
    order = np.argsort(solution.objective, kind="stable")
    kept: list[int] = []
    for i in order:
        if np.isfinite(solution.objective[i]) and not any(
            np.allclose(solution.parameters[i], solution.parameters[j], rtol=1e-3, atol=1e-3) for j in kept
        ):
            kept.append(int(i))
    return Solution(solution.parameters[kept], solution.objective[kept])


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # a step that is too long is rejected by its value
def _newton(surface: Surface, weights: Floats, start: Floats, delta: float, steps: int) -> Solution:
    """Return the end point of damped Newton for every problem of a batch.

    In directions of negative curvature, its absolute value is used. A step without gain is tried again with more
    damping. A problem is done if a full step would gain less than 1e-13 of the objective, or after PATIENCE failures.
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
        trial = np.clip(parameters[active] + step, *surface.bounds)
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
    """Return the damped step (batch, k), and the predicted gain of the undamped step (batch,).

    Parameters are first scaled by their own curvature. One stays at its bound if the step would take it beyond.
    """
    low, high = surface.bounds
    held = (low == high) | ((parameters <= low) & (gradient > 0)) | ((parameters >= high) & (gradient < 0))
    if held.any():
        gradient = np.where(held, 0.0, gradient)
        hessian = np.where(held[:, :, None] | held[:, None, :], np.eye(held.shape[1]), hessian)
    lost = ~(np.isfinite(hessian.sum(axis=(1, 2))) & np.isfinite(gradient.sum(axis=1)))  # not finite
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

    In each cell only A and B are unknown, and (L - E)^(1/gamma) = A N^-alpha + B D^-beta is linear in them. They follow
    from weighted least squares, to first order in the residual, and are kept above 0.
    """
    if (starts := surface.starts(weights, delta)) is not None:
        return starts
    if len(surface) > GRID_POINTS:  # an even sample of the points sorted by value, whatever the order of the rows
        rows = np.lexsort((*surface.log_inputs, surface.log_loss))
        rows = rows[np.linspace(0, len(rows) - 1, GRID_POINTS).astype(int)]
        surface, weights, whole = surface.at(rows), weights[rows], surface
        moved = [here - there for here, there in zip(surface.centres, whole.centres, strict=True)]
    else:
        moved = [0.0] * len(surface.centres)
    free = surface.law.free
    shifts = np.concatenate([np.zeros(0), *(effect.start for effect in surface.effects)])
    shifted = list(surface.centred)
    for effect in surface.effects:
        shifted[effect.input] = shifted[effect.input] + effect.shift(effect.start[None])[0]
    floors = _floors(surface, weights) if "E" in free else np.zeros(1)
    gammas = np.append(GAMMAS, 1.0) if "gamma" in free else np.ones(1)
    alike = surface.law.one_exponent
    betas = EXPONENTS if "beta" in free or alike else np.ones(1)
    alpha, beta = (grid.ravel() for grid in np.meshgrid(EXPONENTS, betas, indexing="ij"))
    pairs = np.flatnonzero(alpha == beta) if alike else np.arange(len(alpha))
    alpha, beta = alpha[pairs], beta[pairs]
    u = np.exp(-np.outer(EXPONENTS, shifted[0]))  # (exponents, n)
    v = np.exp(-np.outer(betas, shifted[1])) if "B" in free else None
    cells = []
    for floor in floors:
        for gamma in gammas:
            log_part = np.log(np.maximum(np.exp(surface.log_loss) - floor, 1e-3 * floor))
            target = np.exp(log_part / gamma)
            w = weights * (gamma * np.exp(log_part - surface.log_loss) / target) ** 2
            a, b = (each[pairs] for each in _two_terms(u, v, target, w))
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
    for name, exponent, shift in zip(("a", "b"), ("alpha", surface.exponent_of_tokens), moved, strict=False):
        if name in surface.names:  # shift back to the centres of all points
            slope = start[:, surface.names.index(exponent)] if exponent else 1.0
            start[:, surface.names.index(name)] += slope * shift
    return start


def _floors(surface: Surface, weights: Floats) -> Floats:
    """Return the grid's E (m,), within its bounds."""
    smallest, (low, high) = np.exp(surface.log_loss[weights > 0].min()), surface.law.irreducible
    if (low, high) == (0.0, np.inf):
        return FLOORS * smallest
    inside = np.linspace(low, max(min(high, FLOORS[-1] * smallest), low), len(FLOORS))
    return np.unique(inside)


def _two_terms(u: Floats, v: Floats | None, target: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return ln A and ln B of target = A u + B v by weighted least squares, for all pairs of u (p, n) and v (q, n).

    Both have shape (p q,). A coefficient that would be negative is set to a thousandth of what its term alone would
    have.
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


def condition(surface: Surface, parameters: Floats, weights: Floats | None = None) -> float:
    """Return the condition number of the Gauss-Newton Hessian of the squared residuals, at an optimum (1, k).

    Each parameter is scaled by its own curvature. The number says how well the design, with weights (n,) of its points
    [default: 1], identifies the parameters, whatever the noise; it is infinite if the Hessian is singular. A parameter
    at its bound is left out.
    """
    return _directions(surface, parameters, weights)[0]


def least_determined(surface: Surface, parameters: Floats, weights: Floats | None = None) -> list[str]:
    """Return the working parameters that can change together with the least effect on the residuals, at (1, k)."""
    return _directions(surface, parameters, weights)[1]


def _directions(surface: Surface, parameters: Floats, weights: Floats | None) -> tuple[float, list[str]]:
    """Return the condition number, and the parameters that the least determined direction is made of."""
    exact = replace(
        surface, log_loss=surface.log_loss + surface.residual(parameters)[0]
    )  # no residual, no second order
    weights = np.ones(len(surface)) if weights is None else weights
    _, _, hessian = exact.derivatives(parameters, weights[None], np.inf)
    kept = np.flatnonzero(~surface.is_at_bound(parameters[0]))
    hessian = hessian[0][np.ix_(kept, kept)]
    diagonal = np.diagonal(hessian)
    if not np.isfinite(hessian).all() or diagonal.min() <= 0:
        return float("inf"), [surface.names[i] for i, part in zip(kept, diagonal, strict=True) if not part > 0]
    scale = np.sqrt(diagonal)
    values, vectors = np.linalg.eigh(hessian / np.outer(scale, scale))
    part = np.abs(vectors[:, 0])
    names = [surface.names[i] for i in kept[part > part.max() / 3]]
    return (float(values[-1] / values[0]) if values[0] > 0 else float("inf")), names

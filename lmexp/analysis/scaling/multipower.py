"""The multi-power law: the loss curve of a run under any learning-rate schedule (Luo et al. 2025, arXiv 2503.12811).

    L(t) = L0 + A S(t)^-alpha - B sum_k (lr_{k-1} - lr_k) G(lr_k^-gamma S_k(t)),   G(x) = 1 - (C x + 1)^-beta

S(t) is the sum of the learning rates of all steps before t, the warm-up included, and S_k(t) of those from step k to t.
The first two terms are the loss at a constant rate; every drop of the rate lowers it further, the more the longer the
lower rate has worked. So one law describes cosine, wsd, constant and two-stage schedules of one model, and the curves
of two or three of them predict the others.

The objective is that of the other laws: Huber's loss of ln(predicted/measured), with delta 1e-3. All parameters are
fitted in logarithms, so none falls below 0, from several starts and within BOUNDS. For the intervals, a tenth of a
curve is left out at a time, because neighbouring points share their noise. These refits are not searched: near the
optimum, leaving out the rows b moves it by -(J'WJ)^-1 J_b' W_b (1 - H_bb)^-1 r_b, as in calibrate.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import least_squares

from lmexp.analysis.arrays import Floats
from lmexp.analysis.quantiles import student
from lmexp.analysis.scaling.bootstrap import around, margin
from lmexp.analysis.scaling.curves import Curve
from lmexp.analysis.scaling.fit import WORST_CONDITION
from lmexp.analysis.scaling.law_fit import Estimate
from lmexp.errors import UserError

NAME = "multipower"
FORMULA = "L(t) = L0 + A S(t)^-alpha - B sum_k (lr_(k-1) - lr_k) (1 - (C lr_k^-gamma S_k(t) + 1)^-beta)"
PARAMETERS = ("L0", "A", "alpha", "B", "C", "beta", "gamma")
STARTS = {"alpha": (0.5,), "C": (1.0, 10.0), "beta": (0.4, 1.0), "gamma": (0.4, 0.8)}
"""Starts of the search; L0, A and B follow from each curve's losses and rates."""
BOUNDS = {"alpha": (0.02, 2.0), "beta": (0.1, 2.0), "gamma": (0.05, 1.0)}
"""Bounds of the exponents.

With a smaller beta, G is a logarithm, and B and beta cannot be told apart. gamma lies between 0, which counts the sum
of the rates after a drop, and 1, which counts the steps.
"""
FREE = (1e-12, 1e12)
"""Bounds of the other parameters."""
DELTA = 1e-3
STEP = 1e-5
"""Step of numerical derivatives, in logarithms."""
BLOCKS = 10
"""Blocks of a curve that are left out in turn for the intervals."""


@dataclass(frozen=True)
class Tested:
    """How well the law predicts a curve that it was not fitted to; errors are relative."""

    name: str
    final: Estimate
    """The predicted loss at the last step, with the interval of a single run."""
    measured: float | None
    """The loss at the last step, and the errors below, are None for a schedule that has not run."""
    r_squared: float | None = None
    mean_absolute_error: float | None = None
    worst_error: float | None = None


@dataclass(frozen=True, eq=False)
class CurveFit:
    """The multi-power law, fitted to some curves."""

    curves: tuple[Curve, ...]
    theta: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    """95 % confidence interval of each parameter, symmetric in the logarithm; 0 to infinity for one at its bound."""
    left_one_out: Floats
    """(blocks, 7) the logarithms of the parameters without each block."""
    objective: float
    delta: float
    residual: float
    """Standard deviation of ln(predicted/measured), corrected for the number of parameters."""
    at_bound: tuple[str, ...] = ()
    """Parameters whose best value is the least or most that is allowed: these curves do not identify them."""
    warnings: tuple[str, ...] = ()

    def losses(self, curve: Curve) -> Floats:
        """Return the law's loss at each point of a schedule (n,)."""
        return multipower(np.log(list(self.theta.values())), curve)

    def final(self, curve: Curve) -> Estimate:
        """Return the predicted loss at the end of a schedule, with the interval of a single run."""
        value, best = float(self.losses(curve)[-1]), np.log(list(self.theta.values()))
        slope = [np.log(multipower(best + step, curve)[-1] / value) / STEP for step in STEP * np.eye(len(best))]
        moved = (self.left_one_out - best) @ np.array(slope)  # linear, as the refits are
        half = np.hypot(margin(np.zeros(()), moved, len(moved)), student(len(moved) - 1) * self.residual)
        return Estimate(np.array(value), *around(value, half))

    def test(self, curve: Curve) -> Tested:
        """Return how well the law predicts a curve, or its loss alone if the curve has no losses."""
        final, rows = self.final(curve), curve.fitted
        if not rows.any():
            return Tested(curve.name, final, None)
        measured, predicted = curve.loss[rows], self.losses(curve)[rows]
        off = np.abs(predicted / measured - 1)
        explained = 1 - ((predicted - measured) ** 2).sum() / ((measured - measured.mean()) ** 2).sum()
        return Tested(curve.name, final, float(measured[-1]), float(explained), float(off.mean()), float(off.max()))


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # far from the optimum
def multipower(log_theta: Floats, curve: Curve) -> Floats:
    """Return the law's loss at each point of a curve (n,), from the logarithms of the parameters (7,)."""
    L0, A, alpha, B, C, beta, gamma = np.exp(log_theta)
    loss = L0 + A * curve.lr_sum**-alpha
    drops = curve.drops
    if len(drops.size):
        since = np.maximum(curve.lr_sum[:, None] - drops.lr_sum, 0.0)  # (n, m); 0 before the drop, where G is 0
        loss = loss - B * (1 - (C * drops.lr**-gamma * since + 1) ** -beta) @ drops.size
    return np.asarray(loss)


def fit_curves(curves: Sequence[Curve], delta: float | None = None) -> CurveFit:
    """Fit the law to curves of one model under two or more schedules.

    `delta` is the threshold of Huber's loss [default: 1e-3]. Raises UserError if a curve has too few points, if no
    learning rate falls, or if the curves do not determine the law.
    """
    delta = DELTA if delta is None else delta
    curves = tuple(curve.check() for curve in curves)
    if not any((curve.drops.size > 0).any() for curve in curves):
        raise UserError("no learning rate falls after its warm-up: what a drop does to the loss cannot be told")

    def residuals(log_theta: Floats) -> Floats:
        off = [np.log(np.maximum(multipower(log_theta, curve), 1e-3) / curve.loss)[curve.fitted] for curve in curves]
        return np.nan_to_num(np.concatenate(off), nan=10.0)

    low, high = np.log([BOUNDS.get(name, FREE) for name in PARAMETERS]).T
    solutions = [
        least_squares(residuals, start, bounds=(low, high), loss="huber", f_scale=delta, max_nfev=300)
        for start in _starts(curves)
    ]
    best = min(solutions, key=lambda solution: solution.cost)
    off = residuals(best.x)
    weights = np.minimum(1.0, delta / np.maximum(np.abs(off), 1e-300))
    steps = STEP * np.eye(len(PARAMETERS))
    slopes = [(residuals(best.x + step) - residuals(best.x - step)) / (2 * STEP) for step in steps]
    jacobian = np.stack(slopes, axis=1) * np.sqrt(weights)[:, None]
    free = (best.x - low > 1e-3) & (high - best.x > 1e-3)
    jacobian = jacobian[:, free]
    norms = np.linalg.norm(jacobian, axis=0)
    condition = np.linalg.cond(jacobian / norms) ** 2 if (norms > 0).all() else np.inf
    if not condition < WORST_CONDITION:
        raise UserError(
            f"{NAME} is not determined by these curves: the condition number is {condition:.1e}. Add curves whose "
            "learning rate falls at another time, or to another value."
        )
    moved = _without_each_block(jacobian, off * np.sqrt(weights), curves)
    left = np.tile(best.x, (len(moved), 1))
    left[:, free] += moved
    half = np.where(free, margin(best.x, left, len(left)), np.inf)
    theta, at_bound = np.exp(best.x), tuple(name for name, known in zip(PARAMETERS, free, strict=True) if not known)
    return CurveFit(
        curves=curves,
        theta=dict(zip(PARAMETERS, theta.tolist(), strict=True)),
        intervals={
            name: (float(low), float(high)) for name, low, high in zip(PARAMETERS, *around(theta, half), strict=True)
        },
        left_one_out=left,
        objective=float(best.cost),
        delta=delta,
        residual=float(np.sqrt((off**2).sum() / max(len(off) - len(theta), 1))),
        at_bound=at_bound,
        warnings=_warnings(curves, at_bound),
    )


def _starts(curves: Sequence[Curve]) -> list[Floats]:
    """Return the starts of the search, as logarithms of the parameters (7,)."""
    low = min(float(curve.loss[curve.fitted].min()) for curve in curves)
    high = max(float(curve.loss[curve.fitted].max()) for curve in curves)
    total = float(np.median([curve.lr_sum[-1] for curve in curves]))
    rate = max(float(curve.lr.max()) for curve in curves)
    floor, gain = max(low - 0.5 * (high - low), 0.5 * low), 0.1 * (high - low)
    return [
        np.log([floor, (low - floor) * total**alpha, alpha, gain / rate, C * rate**gamma / total, beta, gamma])
        for alpha, C, beta, gamma in product(*STARTS.values())
    ]


def _without_each_block(jacobian: Floats, off: Floats, curves: Sequence[Curve]) -> Floats:
    """Return how the optimum moves if one block is left out (blocks, k), from weighted derivatives and residuals."""
    inverse = np.linalg.pinv(jacobian)  # (k, n)
    hat = jacobian @ inverse
    moved, first = [], 0
    for curve in curves:
        count = int(curve.fitted.sum())
        for rows in np.array_split(np.arange(first, first + count), BLOCKS):
            rest = np.linalg.solve(np.eye(len(rows)) - hat[np.ix_(rows, rows)], off[rows])
            moved.append(inverse[:, rows] @ rest)
        first += count
    return np.array(moved)


def _warnings(curves: Sequence[Curve], at_bound: Sequence[str]) -> tuple[str, ...]:
    """Return warnings about what weakens a fit to these curves."""
    sentences = [f"{name} is at its bound, and not identified by these curves." for name in at_bound]
    if len(curves) == 1:
        sentences.append("One curve: how the loss depends on the schedule rests on this schedule alone; add another.")
    if all(len(curve.drops.size) for curve in curves):
        sentences.append("No curve has a constant learning rate, which is what L0, A and alpha are known from.")
    return tuple(sentences)

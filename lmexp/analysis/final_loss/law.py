"""The multi-power law with one shape for the runs of a sweep, and levels of its own for each run.

The law of analysis/scaling/multipower.py (Luo et al. 2025, arXiv 2503.12811) has seven parameters, which the beginning
of one curve does not identify. So the runs of a sweep share its shape, and only what is linear differs between them:

    l_i(s) = L0_i + A_i S(s)^-alpha - B_i sum_k (f_(k-1) - f_k) (1 - (C f_k^-gamma (S(s) - S_k) + 1)^-beta) + e_i(s)

f is the learning rate as a multiple of the run's peak, and S the sum of f over the tokens up to the share s of the
budget, in the median length of the finished runs. If all runs have one peak learning rate, this is the law of the paper
with other units of B and C; otherwise the paper's B and C would change with the peak.

The levels (L0_i, A_i, B_i) of the runs are normally distributed; their mean and covariance are fitted to the finished
runs (Laird and Ware 1982; the EM algorithm). The errors e_i(s) of one curve are normal, and correlated: exp(-d/TAU) for
two points that are d apart in ln s. So a curve that lies above the law is expected to stay above it for a while. The
shape and TAU are those of a grid with the highest likelihood. The loss at the end is then the mean of a normal
distribution, given the points of the beginning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.analysis.final_loss.curves import SLACK, LossCurve
from lmexp.config.schedules import ScheduleConfig, factor

SHAPES = tuple(product((0.2, 0.4, 0.6, 0.9), (1.0, 4.0, 16.0, 64.0), (0.3, 1.0), (0.3, 0.7)))
"""alpha, C, beta and gamma."""
TAUS = (0.0, 0.15, 0.5, 1.5)
"""Distances in ln s over which errors are correlated; 0 means not at all."""
NUGGET = 0.1
"""The part of an error's variance that its neighbours do not share."""
CELLS = 200
"""Parts of the budget in which the learning rate is taken as constant."""
ROUNDS, FINAL_ROUNDS = 8, 30
"""Rounds of the EM algorithm, for each shape of the grid and for the best one."""
LEAST_SPREAD = 0.02
"""Least standard deviation of the runs' levels, as a share of their mean: a few runs may be alike by chance."""
LEAST_LEVEL = 0.05
"""In nats: for the least standard deviation, a mean level that is smaller counts as this."""
LEVELS = 3


@dataclass(frozen=True)
class Shape:
    """What the runs of a sweep share."""

    alpha: float
    C: float
    beta: float
    gamma: float
    tau: float


@dataclass(frozen=True, eq=False)
class Levels:
    """The distribution of the runs' levels."""

    mean: Floats
    """(3,)"""
    covariance: Floats
    """(3, 3)"""
    variance: float
    """Variance of the errors."""


@dataclass(frozen=True, eq=False)
class SharedLaw:
    """The law, fitted to finished runs."""

    curves: tuple[LossCurve, ...]
    shape: Shape
    unit: float
    """Tokens in which S is counted."""
    levels: Levels
    without_each: tuple[Levels, ...]
    """The levels' distribution without each of the runs, for testing the law on it."""

    def predict(self, beginning: LossCurve, levels: Levels | None = None) -> float:
        """Return the loss at the end of a run, from the points of its beginning."""
        levels = levels or self.levels
        share = np.append(beginning.share, 1.0)
        basis = _basis(self.shape, beginning.schedule, share, beginning.tokens / self.unit)
        covariance = basis @ levels.covariance @ basis.T + levels.variance * _correlation(share, self.shape.tau)
        expected = basis @ levels.mean
        weights = np.linalg.solve(covariance[:-1, :-1], beginning.loss - expected[:-1])
        # A loss is above 0, which the law does not know.
        return float(max(expected[-1] + covariance[-1, :-1] @ weights, 0.01 * beginning.loss[-1]))

    def tested(self, index: int, share: float) -> float | None:
        """Return ln(predicted/measured) of a finished run from its beginning, without it in the levels' distribution.

        None if it has no point up to the share.
        """
        curve = self.curves[index]
        beginning = curve.up_to(min(share, 1 - SLACK - 1e-6))
        if not len(beginning.share) or curve.final is None:
            return None
        return float(np.log(self.predict(beginning, self.without_each[index]) / curve.final))


def fit_law(curves: Sequence[LossCurve]) -> SharedLaw:
    """Fit the law to the curves of two or more finished runs."""
    unit = float(np.median([curve.tokens for curve in curves]))
    wholes = [curve.whole for curve in curves]
    best, best_sums, likelihood = Shape(*SHAPES[0], TAUS[0]), _Sums.of([]), -np.inf

    def consider(shape: Shape) -> None:
        nonlocal best, best_sums, likelihood
        sums = _Sums.of([_whitened(shape, curve, unit) for curve in wholes])
        value = sums.log_likelihood(sums.distribution(ROUNDS))
        if value > likelihood:
            best, best_sums, likelihood = shape, sums, value

    for numbers in SHAPES:
        consider(Shape(*numbers, tau=0.5))
    for tau in TAUS:
        consider(Shape(best.alpha, best.C, best.beta, best.gamma, tau))
    without = tuple(best_sums.without(index).distribution(FINAL_ROUNDS) for index in range(len(curves)))
    return SharedLaw(tuple(curves), best, unit, best_sums.distribution(FINAL_ROUNDS), without)


@dataclass(frozen=True, eq=False)
class _Sums:
    """What the likelihood of the levels' distribution needs of each curve, its errors made independent (whitened)."""

    xx: Floats
    """(runs, 3, 3) products of the basis functions."""
    xy: Floats
    """(runs, 3) products with the losses."""
    yy: Floats
    """(runs,) sums of squared losses."""
    points: Floats
    """(runs,) number of points."""
    log_scale: Floats
    """(runs,) what whitening adds to the log-likelihood."""

    @classmethod
    def of(cls, parts: Sequence[tuple[Floats, Floats, float]]) -> "_Sums":
        """Return the sums of whitened curves; see _whitened."""
        return cls(
            xx=np.array([x.T @ x for x, _, _ in parts]),
            xy=np.array([x.T @ y for x, y, _ in parts]),
            yy=np.array([y @ y for _, y, _ in parts]),
            points=np.array([float(len(y)) for _, y, _ in parts]),
            log_scale=np.array([scale for _, _, scale in parts]),
        )

    def without(self, index: int) -> "_Sums":
        """Return the sums without one of the runs."""
        keep = np.arange(len(self.yy)) != index
        return _Sums(self.xx[keep], self.xy[keep], self.yy[keep], self.points[keep], self.log_scale[keep])

    def distribution(self, rounds: int) -> Levels:
        """Return the levels' distribution after some rounds of the EM algorithm."""
        n = len(self.yy)
        mean = np.linalg.solve(self.xx.sum(0) + 1e-6 * np.eye(LEVELS), self.xy.sum(0))
        off = self.yy.sum() - 2 * mean @ self.xy.sum(0) + mean @ self.xx.sum(0) @ mean
        variance = max(float(off / self.points.sum()), 0.0) + 1e-8
        covariance = np.diag(np.maximum(np.abs(mean), 0.1) ** 2 / 4)
        least = np.diag((LEAST_SPREAD * np.maximum(np.abs(mean), LEAST_LEVEL)) ** 2)
        for _ in range(rounds):
            level, spread = self._posterior(Levels(mean, covariance, variance))
            mean = level.mean(0)
            apart = level - mean
            covariance = (apart.T @ apart + spread.sum(0) + LEVELS * least) / (n + LEVELS)
            squares = self.yy - 2 * (level * self.xy).sum(1) + np.einsum("ni,nij,nj->n", level, self.xx, level)
            squares = squares + np.einsum("nij,nji->n", self.xx, spread)
            variance = max(float(squares.sum() / self.points.sum()), 1e-10)
        return Levels(mean, covariance, variance)

    def log_likelihood(self, levels: Levels) -> float:
        """Return the log-likelihood of the curves, less a constant."""
        inverse = np.linalg.inv(levels.covariance)
        level, spread = self._posterior(levels)
        squares = (
            self.yy / levels.variance
            + levels.mean @ inverse @ levels.mean
            - np.einsum("ni,nij,nj->n", level, np.linalg.inv(spread), level)
        )
        determinants = (
            self.points * np.log(levels.variance)
            + np.linalg.slogdet(levels.covariance)[1]
            - np.linalg.slogdet(spread)[1]
        )
        return float(-(squares + determinants).sum() / 2 - self.log_scale.sum())

    def _posterior(self, levels: Levels) -> tuple[Floats, Floats]:
        """Return the mean (runs, 3) and the covariance (runs, 3, 3) of each run's levels, given its curve."""
        inverse = np.linalg.inv(levels.covariance)
        spread = np.linalg.inv(self.xx / levels.variance + inverse)
        return np.einsum("nij,nj->ni", spread, self.xy / levels.variance + inverse @ levels.mean), spread


def _whitened(shape: Shape, curve: LossCurve, unit: float) -> tuple[Floats, Floats, float]:
    """Return basis functions (n, 3) and losses (n,) with independent errors, and ln of the factor's determinant."""
    root = np.linalg.cholesky(_correlation(curve.share, shape.tau))
    basis = _basis(shape, curve.schedule, curve.share, curve.tokens / unit)
    both = np.linalg.solve(root, np.column_stack([basis, curve.loss]))
    return both[:, :LEVELS], both[:, LEVELS], float(np.log(np.diag(root)).sum())


def _correlation(share: Floats, tau: float) -> Floats:
    """Return the correlations (n, n) of the errors at some shares of the budget (n,)."""
    if not tau:
        return np.eye(len(share))
    apart = np.abs(np.log(share)[:, None] - np.log(share))
    return np.asarray((1 - NUGGET) * np.exp(-apart / tau) + NUGGET * np.eye(len(share)))


def _basis(shape: Shape, schedule: ScheduleConfig, share: Floats, length: float) -> Floats:
    """Return what L0, A and B are multiplied by (n, 3) at some shares of the budget (n,) of a run of this length."""
    return _cached_basis(shape, schedule.model_dump_json(), tuple(share.tolist()), length)


@lru_cache(maxsize=20_000)
def _cached_basis(shape: Shape, schedule: str, share: tuple[float, ...], length: float) -> Floats:
    sums, size, rate, at = _drops(schedule)
    s = np.interp(share, np.linspace(0, 1, CELLS + 1), sums)
    since = np.maximum(s[:, None] - at, 0.0) * length
    gain = (1 - (shape.C * rate**-shape.gamma * since + 1) ** -shape.beta) @ size
    return np.stack([np.ones(len(s)), (s * length) ** -shape.alpha, -gain], axis=1)


@lru_cache(maxsize=1_000)
def _drops(schedule: str) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the sums of the rates (CELLS + 1,), and the size, the new rate and the sum before each change (m,)."""
    section = ScheduleConfig.model_validate_json(schedule)
    rates = np.array([factor(section, (cell + 0.5) / CELLS) for cell in range(CELLS)])
    sums = np.concatenate([[0.0], np.cumsum(rates) / CELLS])
    peak, size = int(np.argmax(rates >= rates.max() * (1 - 1e-6))), rates[:-1] - rates[1:]
    at = np.flatnonzero((size != 0) & (np.arange(CELLS - 1) >= peak) & (rates[1:] > 0))
    return sums, size[at], rates[at + 1], sums[at + 1]

"""Approaches 1 and 2: the best size for a budget without a law of the loss (Hoffmann et al. 2022, sections 3.1, 3.2).

Approach 1 takes the lower envelope of the loss curves of all sizes over compute: the size with the lowest loss at each
C. Approach 2 fits a parabola of the loss in ln N to each group of runs with equal compute; its vertex is N*. Both then
fit a line through ln N* against ln C. Its slope is the exponent a of N* ~ C^a.

Both have a bias, which depends on the grid. The loss does not follow a parabola, and an envelope of few sizes jumps
from one to the next. `bias` measures it: it runs an approach on the losses that a given law predicts on the same grid,
where the right answer is known.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.quantiles import student
from lmexp.analysis.scaling.checks import price_of, size_of
from lmexp.analysis.scaling.law_fit import Estimate
from lmexp.analysis.scaling.laws import Law, Price
from lmexp.analysis.scaling.points import Points
from lmexp.units import counted

SAME_BUDGET = 1.12
"""Runs whose FLOPs lie within this factor belong to one budget."""
MIN_IN_PARABOLA = 5
"""Fewest sizes: a parabola has three unknowns, and two more sizes show whether it fits at all."""
MIN_SIZES = 3
"""Fewest sizes at equal compute that show whether the best one is inside: one of them has a neighbour on both sides."""
MIN_BUDGETS = 3
MIN_IN_ENVELOPE = 10
"""Fewest sizes that were run at several budgets. The published envelope has many more; about 17 make it smooth."""
ENVELOPE = 300
"""Number of budgets at which the envelope is evaluated."""
CHUNK = 256
"""Jackknife samples computed at once: those of 10,000 runs in one budget would not fit into memory together."""


@dataclass(frozen=True, eq=False)
class Parabola:
    """The runs of one budget, and the vertex of their parabola: L = c0 + c1 x + c2 x^2 with x = ln N - centre."""

    flops: float
    members: npt.NDArray[np.int64]
    """Indices of the points that it was fitted to."""
    centre: float
    coefficients: tuple[float, float, float]
    params: float
    """N*, at the vertex."""
    interval: tuple[float, float]
    """95 % confidence interval of N*."""
    smallest: float
    largest: float
    """The smallest and the largest size that it was fitted to."""

    def loss(self, params: Floats) -> Floats:
        """Return the parabola's loss at sizes (n,)."""
        x = np.log(params) - self.centre
        return np.asarray(np.polyval(self.coefficients[::-1], x))


@dataclass(frozen=True, eq=False)
class EqualCompute:
    """The runs of one budget, and their parabola if it has its lowest point inside the sizes."""

    flops: float
    """The geometric mean of their FLOPs."""
    members: npt.NDArray[np.int64]
    """Indices of the points."""
    parabola: Parabola | None


@dataclass(frozen=True, eq=False)
class Approach:
    """N* = exp(intercept) (C/C0)^exponent, and the evidence for it."""

    name: str
    reference: float
    """C0, in the middle of the budgets, which makes exponent and intercept nearly independent."""
    line: tuple[float, float]
    """Exponent and intercept."""
    covariance: Floats
    """Covariance (2, 2) of exponent and intercept; NaN without intervals."""
    freedom: int
    """Degrees of freedom of the intervals, which are Student's t times the standard error."""
    n_budgets: int
    price: Price
    parabolas: tuple[Parabola, ...] = ()
    """Only approach 2 has these."""
    envelope: tuple[Floats, Floats] | None = None
    """Only approach 1 has it: budgets (m,) and the size (m,) with the lowest loss at each."""
    holdout: float | None = None
    """Relative error of the N* that the other budgets predict for the largest budget."""
    warnings: tuple[str, ...] = ()

    @property
    def exponent(self) -> Estimate:
        """The exponent a in N* ~ C^a; D* has the exponent 1 - a."""
        return _interval(np.asarray(self.line[0]), np.asarray(self.covariance[0, 0]), self.freedom)

    def params(self, flops: npt.ArrayLike) -> Estimate:
        """Return N* for budgets (...)."""
        at = np.log(np.asarray(flops, dtype=np.float64) / self.reference)
        (slope, both), (_, level) = self.covariance
        logs = _interval(self.line[0] * at + self.line[1], slope * at**2 + 2 * both * at + level, self.freedom)
        return Estimate(*(np.exp(part) for part in logs))

    def tokens(self, flops: npt.ArrayLike) -> Estimate:
        """Return D* for budgets (...): the tokens that each budget pays for at N*."""
        budget = np.asarray(flops, dtype=np.float64)
        value, low, high = (budget / self.price.at(size) for size in self.params(flops))
        return Estimate(value, high, low)


@dataclass(frozen=True)
class Bias:
    """Relative error of an approach if a law were exactly right and without noise; 0.01 is 1 %."""

    params: float
    tokens: float


def approach_1(points: Points) -> Approach | str:
    """Return N*(C) from the envelope, without an interval, or the reason why there is none.

    The best of many noisy runs is a jump from one size to another, which neither a bootstrap nor a jackknife follows:
    their 95 % intervals held the truth 55 % of the time on 20 sizes at 12 budgets, and 20 % on 300 scattered runs. So
    there is none; `bias` says how far off the envelope would be without noise.

    Every point must be a finished run or an annealed milestone; the points along a training curve lie too high.
    Between two points of one size, ln L is interpolated linearly in ln C. Budgets at which the smallest or the largest
    size has the lowest loss are left out, because the optimum may lie outside the grid there.
    """
    sizes = size_of(points.params)
    curves = [np.flatnonzero(sizes == size) for size in range(int(sizes.max()) + 1)]
    several = sum(len(np.unique(np.round(np.log(points.flops[curve]), 2))) > 1 for curve in curves)
    if several < MIN_IN_ENVELOPE:
        return f"{several} sizes were trained to several budgets; an envelope needs {MIN_IN_ENVELOPE}, better 17."
    budgets = np.geomspace(points.flops.min(), points.flops.max(), ENVELOPE)
    lowest = _lowest(points, curves, budgets)
    known = np.isfinite(lowest)
    if len(np.unique(lowest[known])) < MIN_BUDGETS:
        return "The envelope has fewer than 3 sizes between the smallest and the largest."
    reference = float(np.exp(np.mean(np.log(budgets[known]))))
    return Approach(
        name="approach_1",
        reference=reference,
        line=_pair(_envelope_line(budgets, lowest, reference)),
        covariance=np.full((2, 2), np.nan),
        freedom=max(points.n_units - 2, 1),
        n_budgets=int(known.sum()),
        price=price_of(points),
        envelope=(budgets[known], lowest[known]),
        warnings=() if several >= 17 else (f"Approach 1 rests on {several} sizes; about 17 make its envelope smooth.",),
    )


def approach_2(points: Points) -> Approach | str:
    """Return N*(C) from the vertices of isoFLOP parabolas, or the reason why there is none.

    Intervals come from the jackknife over units. A parabola has few points, and each of them matters much: in
    simulations with 5 to 15 sizes per budget, 95 % intervals of a bootstrap covered the truth in 72 to 86 % of cases,
    and those of the jackknife in 96 to 100 %. A budget has no N* if its parabola opens downwards or its vertex lies
    outside the sizes run; a warning names such budgets.
    """
    groups = [group for group in budget_groups(points) if _n_sizes(points, group) >= MIN_IN_PARABOLA]
    if len(groups) < MIN_BUDGETS:
        return f"{_budgets(len(groups))} with {MIN_IN_PARABOLA} sizes at equal FLOPs; it takes {MIN_BUDGETS}."
    unit = np.unique(points.unit, return_inverse=True)[1]
    parabolas, at_edge, without = [], [], []
    for group in groups:
        budget = _budget(points, group)
        fitted = _fit_parabola(points, group, budget, unit)
        if fitted is None:
            at_edge.append(budget)
            continue
        parabola, units, left = fitted
        parabolas.append(parabola)
        without.append((units, left))
    if len(parabolas) < MIN_BUDGETS:
        return f"{_budgets(len(parabolas))} with the optimum inside its sizes; it takes {MIN_BUDGETS}."
    at, best = np.log([p.flops for p in parabolas]), np.log([p.params for p in parabolas])
    reference = float(np.exp(at.mean()))
    all_units = np.unique(np.concatenate([units for units, _ in without]))
    vertices = np.tile(best, (len(all_units), 1))  # (units, budgets): each row leaves out one unit
    for column, (units, left) in enumerate(without):
        vertices[np.searchsorted(all_units, units), column] = left
    line = _lines(at - np.log(reference), best[None])[0]
    predicted = np.polyval(np.polyfit(at[:-1], best[:-1], 1), at[-1])
    residuals = sum(len(units) - 3 for units, _ in without)
    return Approach(
        name="approach_2",
        reference=reference,
        line=_pair(line),
        covariance=_jackknife(_lines(at - np.log(reference), vertices)),
        freedom=max(min(residuals, len(all_units) - 1), 1),  # fewer than residuals if budgets share the units
        n_budgets=len(parabolas),
        price=price_of(points),
        parabolas=tuple(parabolas),
        holdout=float(np.exp(predicted - best[-1]) - 1) if len(parabolas) > MIN_BUDGETS else None,
        warnings=(_edges(at_edge),) if at_edge else (),
    )


def equal_compute(points: Points) -> tuple[EqualCompute, ...]:
    """Return the budgets at which at least MIN_SIZES sizes were run, in the order of rising compute.

    Their parabolas are those of approach 2. Unlike it, this returns a budget also if it has no parabola, because its
    sizes are fewer than MIN_IN_PARABOLA or the lowest loss lies at their edge.
    """
    unit = np.unique(points.unit, return_inverse=True)[1]
    budgets = []
    for group in budget_groups(points, MIN_SIZES):
        sizes, budget = _n_sizes(points, group), _budget(points, group)
        fitted = _fit_parabola(points, group, budget, unit) if sizes >= MIN_IN_PARABOLA else None
        if sizes >= MIN_SIZES:
            budgets.append(EqualCompute(budget, group, fitted[0] if fitted else None))
    return tuple(budgets)


def _budget(points: Points, group: npt.NDArray[np.int64]) -> float:
    return float(np.exp(np.mean(np.log(points.flops[group]))))


def _fit_parabola(
    points: Points, group: npt.NDArray[np.int64], budget: float, unit: npt.NDArray[np.int64]
) -> tuple[Parabola, npt.NDArray[np.int64], Floats] | None:
    """Fit the parabola of the runs of one budget, or return None if its vertex lies outside their sizes.

    `unit` (n,) is the unit of every point. Beside the parabola this returns the group's units (u,), and the vertices
    ln N* (u,) without each of them.
    """
    logs, losses = np.log(points.params[group]), points.loss[group]
    coefficients, vertex = _vertices(logs, losses, np.ones((1, len(group))))
    if not logs.min() < vertex[0] < logs.max():
        return None
    units = np.unique(unit[group])
    left = np.concatenate([_vertices(logs, losses, (unit[group] != some[:, None]) * 1.0)[1] for some in _chunks(units)])
    spread = np.asarray(_jackknife(left[:, None])[0, 0])
    low, high = np.exp(_interval(vertex[0], spread, max(len(units) - 3, 1))[1:])
    parabola = Parabola(
        flops=budget,
        members=group,
        centre=float(logs.mean()),
        coefficients=(float(coefficients[0]), float(coefficients[1]), float(coefficients[2])),
        params=float(np.exp(vertex[0])),
        interval=(float(low), float(high)),
        smallest=float(points.params[group].min()),
        largest=float(points.params[group].max()),
    )
    return parabola, units, left


def bias(
    points: Points,
    law: Law,
    theta: npt.ArrayLike,
    flops: float,
    approach: Callable[[Points], Approach | str] = approach_2,
) -> Bias | None:
    """Return the error of an approach at a budget, on this grid, if the law held exactly; None without an answer."""
    exact = Points(
        points.params, points.tokens, points.flops, law.loss(theta, points.params, points.tokens), points.unit
    )
    fitted = approach(exact)
    if isinstance(fitted, str):
        return None
    best = law.optimum(theta, flops, fitted.price)
    return Bias(
        float(fitted.params(flops).value / best.params) - 1, float(fitted.tokens(flops).value / best.tokens) - 1
    )


def budget_groups(points: Points, fewest: int = MIN_IN_PARABOLA) -> list[npt.NDArray[np.int64]]:
    """Return the indices of at least `fewest` runs with equal compute, one array per budget, in rising order of it.

    The window that holds the most runs becomes the first group, then the fullest window of the remaining runs, and so
    on.
    """
    order = np.argsort(points.flops, kind="stable")
    logs = np.log(points.flops[order])
    free = np.ones(len(order), dtype=bool)
    groups = []
    while free.any():
        rest = np.flatnonzero(free)
        ends = np.searchsorted(logs[rest], logs[rest] + np.log(SAME_BUDGET) + 1e-9)
        first = int(np.argmax(ends - np.arange(len(rest))))
        chosen = rest[first : ends[first]]
        if len(chosen) < fewest:
            break
        free[chosen] = False
        groups.append(order[chosen])
    return sorted(groups, key=lambda group: float(points.flops[group].mean()))


def _vertices(logs: Floats, losses: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Fit one weighted parabola for each row of weights (B, m).

    Returns the coefficients (3,) for the first row, and the vertices ln N* (B,); NaN if a parabola opens downwards.
    """
    powers = (logs - logs.mean())[:, None] ** np.arange(3)  # (m, 3)
    normal = np.einsum("bm,mi,mj->bij", weights, powers, powers)
    right = np.einsum("bm,mi,m->bi", weights, powers, losses)
    coefficients = np.linalg.solve(normal, right[..., None])[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = np.where(coefficients[:, 2] > 0, -coefficients[:, 1] / (2 * coefficients[:, 2]), np.nan)
    return coefficients[0], vertex + logs.mean()


def _lines(x: Floats, y: Floats) -> Floats:
    """Return slope and intercept (B, 2) of least-squares lines through x (m,) and y (B, m), ignoring NaN in y."""
    known = np.isfinite(y)
    count = known.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre_x = (known * x).sum(axis=1) / count
        centre_y = np.where(known, y, 0).sum(axis=1) / count
        off = np.where(known, x - centre_x[:, None], 0)
        slope = (off * np.where(known, y, 0)).sum(axis=1) / (off**2).sum(axis=1)
        lines = np.stack([slope, centre_y - slope * centre_x], axis=1)
    lines[count < 2] = np.nan
    return lines


def _lowest(points: Points, curves: list[npt.NDArray[np.int64]], budgets: Floats) -> Floats:
    """Return the size with the lowest loss at each budget (m,).

    NaN where that is the smallest or the largest size run, or fewer than three sizes were run.
    """
    losses = np.full((len(curves), len(budgets)), np.inf)
    for row, curve in enumerate(curves):
        at, inverse = np.unique(np.log(points.flops[curve]), return_inverse=True)
        if len(at) > 1:
            mean = np.bincount(inverse, np.log(points.loss[curve])) / np.bincount(inverse)
            losses[row] = np.interp(np.log(budgets), at, mean, left=np.inf, right=np.inf)
    best = np.argmin(losses, axis=0)
    enough = np.isfinite(losses).sum(axis=0) >= 3
    # If the best size is the smallest or largest at this budget, a size further out might have had a lower loss.
    run = np.isfinite(losses)
    inner = (best > np.argmax(run, axis=0)) & (best < len(curves) - 1 - np.argmax(run[::-1], axis=0))
    params = np.array([np.exp(np.mean(np.log(points.params[curve]))) for curve in curves])
    return np.where(enough & inner, params[best], np.nan)


def _envelope_line(budgets: Floats, lowest: Floats, reference: float) -> Floats:
    """Return slope and intercept (2,) of the line through the envelope's sizes; NaN if there are too few."""
    return np.asarray(_lines(np.log(budgets / reference), np.log(lowest)[None])[0])


def _interval(value: npt.ArrayLike, variance: npt.ArrayLike, freedom: int) -> Estimate:
    """Return values with their 95 % confidence intervals: Student's t times the standard error."""
    half = student(freedom) * np.sqrt(np.asarray(variance, dtype=np.float64))
    return Estimate(
        np.asarray(value, dtype=np.float64), np.asarray(np.subtract(value, half)), np.asarray(np.add(value, half))
    )


def _jackknife(without: Floats) -> Floats:
    """Return the covariance (k, k) of k numbers from their values (m, k) without each of m units (Efron 1982)."""
    known = _finite(without)
    off = known - known.mean(axis=0)
    return np.asarray((len(known) - 1) / len(known) * off.T @ off)


def _finite(rows: Floats) -> Floats:
    """Return the rows (m, k) in which all values are finite."""
    return rows[np.isfinite(rows).all(axis=1)]


def _chunks(units: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    return [units[first : first + CHUNK] for first in range(0, len(units), CHUNK)]


def _edges(budgets: list[float]) -> str:
    """Return a warning that names the budgets without an optimum inside their sizes."""
    said = (
        f"At {budgets[0]:.3g} FLOPs"
        if len(budgets) == 1
        else f"At {len(budgets)} budgets, {budgets[0]:.3g} FLOPs first,"
    )
    return f"{said} the lowest loss lies at the edge of the sizes: no optimum there."


def _pair(line: Floats) -> tuple[float, float]:
    return float(line[0]), float(line[1])


def _n_sizes(points: Points, group: npt.NDArray[np.int64]) -> int:
    return int(size_of(points.params[group]).max()) + 1


def _budgets(count: int) -> str:
    return "No budget" if not count else counted(count, "budget")

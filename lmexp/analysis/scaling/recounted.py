"""The exponent of approach 2 from weighted runs, and in another count of FLOPs.

A jackknife of the exponent leaves runs out. Which budgets have their optimum inside the sizes is then decided once, by
all runs, as approach 2 does for its own interval: a budget that disappears with one run would leave no interval.

Runs that cost the same in one count of FLOPs do not in another, and approach 2 compares sizes at equal FLOPs. So the
loss of each size is interpolated between its runs to budgets in the other count, as Porian et al. 2024 do along their
training curves: by a parabola in logarithms, ln L over ln C, or a line between two runs.
"""

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.approaches import MIN_BUDGETS, MIN_IN_PARABOLA, Approach, approach_2
from lmexp.analysis.scaling.checks import size_of
from lmexp.analysis.scaling.points import Points

SLACK = 1e-9
"""Budgets at the very ends of a size's range count as inside."""


def exponent_with(points: Points, weights: Floats, has_budgets: bool = True) -> float | str:
    """Return the exponent a of N* ~ C^a by approach 2 with a weight for each point (n,), or the reason for none.

    Without `has_budgets`, the FLOPs of the runs form no budgets, and losses are interpolated to some. NaN: the weighted
    points are too few.
    """
    if has_budgets:
        whole, sample = points, points
    else:
        interpolated = at_common_budgets(points, np.ones(len(points.loss)))
        if isinstance(interpolated, str):
            return interpolated
        again = at_common_budgets(points, weights)
        assert not isinstance(again, str), "the budgets and sizes are those of all points"
        whole, sample, weights = interpolated, again, np.isfinite(again.loss) * 1.0
    fitted = approach_2(whole)
    return fitted if isinstance(fitted, str) else _slope(fitted, sample, weights)


def _slope(fitted: Approach, sample: Points, weights: Floats) -> float:
    """Return the slope of the line through the vertices of the same parabolas, fitted to a weighted sample."""
    at, best = [], []
    for parabola in fitted.parabolas:
        members = parabola.members[weights[parabola.members] > 0]
        if len(np.unique(size_of(sample.params[members]))) < 3:
            continue
        x = np.log(sample.params[members]) - parabola.centre
        square, line, _ = np.polyfit(x, sample.loss[members], 2, w=np.sqrt(weights[members]))
        if square > 0:
            at.append(np.log(parabola.flops))
            best.append(parabola.centre - line / (2 * square))
    return float(np.polyfit(at, best, 1)[0]) if len(at) > 1 else np.nan


def at_common_budgets(points: Points, weights: Floats) -> Points | str:
    """Return the loss of each size at budgets that sizes share, or the reason why there are too few.

    Losses are interpolated between the runs with a weight (n,) above 0; NaN for a size that has fewer than two of
    them. The budgets are as many as a size has, evenly spaced in ln C over the range in which MIN_IN_PARABOLA sizes
    were run, and do not depend on the weights.
    """
    sizes = size_of(points.params)
    curves = [np.flatnonzero(sizes == size) for size in range(int(sizes.max()) + 1)]
    ranges = [(float(at.min()), float(at.max())) for at in (np.log(points.flops[curve]) for curve in curves)]
    kept = [row for row, (low, high) in enumerate(ranges) if high > low]
    if len(kept) < MIN_IN_PARABOLA:
        return f"{len(kept)} sizes were trained to several budgets; it takes {MIN_IN_PARABOLA}."
    low = sorted(ranges[row][0] for row in kept)[MIN_IN_PARABOLA - 1]
    high = sorted(ranges[row][1] for row in kept)[-MIN_IN_PARABOLA]
    if low >= high:
        return f"no {MIN_IN_PARABOLA} sizes were trained to equal FLOPs."
    several = [len(np.unique(np.round(np.log(points.flops[curves[row]]), 6))) for row in kept]
    budgets = np.linspace(low, high, max(int(np.median(several)), MIN_BUDGETS))
    parts = []
    for row in kept:
        curve, ends = curves[row], ranges[row]
        inside = budgets[(budgets >= ends[0] - SLACK) & (budgets <= ends[1] + SLACK)]
        losses, tokens = (_between(points, values, curve, weights, inside) for values in (points.loss, points.tokens))
        size = float(np.exp(np.log(points.params[curve]).mean()))
        parts.append(np.stack([np.full(len(inside), size), tokens, np.exp(inside), losses]))
    columns = np.concatenate(parts, axis=1)
    unit = np.array([f"point {number}" for number in range(columns.shape[1])])
    return Points(columns[0], columns[1], columns[2], columns[3], unit, source=points.source)


def _between(points: Points, values: Floats, curve: np.ndarray, weights: Floats, at: Floats) -> Floats:
    """Return the values of one size's runs, interpolated in logarithms to logarithms of budgets (m,)."""
    used = curve[weights[curve] > 0]
    x = np.log(points.flops[used])
    several = len(np.unique(np.round(x, 6)))
    if several < 2:
        return np.full(len(at), np.nan)
    middle = x.mean()
    line = np.polyfit(x - middle, np.log(values[used]), min(several - 1, 2), w=np.sqrt(weights[used]))
    return np.asarray(np.exp(np.polyval(line, at - middle)))

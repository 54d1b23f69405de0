"""The law of loss against cost through a baseline's points: what the baseline would have to spend for another loss.

The law is L = E + A C^-alpha with a free asymptote E. It is anchored at the measured points: at the mean loss of each
of them it gives exactly the cost that was measured there. Between two of them the correction, which is a difference of
ln C, is interpolated linearly in ln L, and beyond them it keeps the value of the last one. So the law only gives the
shape between and beyond the points.
"""

from dataclasses import dataclass

import numpy as np

from lmexp.analysis.arrays import Floats, Marks
from lmexp.analysis.quantiles import f_tail
from lmexp.analysis.scaling.bootstrap import FEW_UNITS
from lmexp.analysis.scaling.cost import on_frontier
from lmexp.analysis.scaling.fit import fit_law
from lmexp.analysis.scaling.law_fit import LawFit
from lmexp.analysis.scaling.laws import power
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.table import units_of
from lmexp.analysis.versus.rows import Key, Rows
from lmexp.errors import UserError
from lmexp.runs.columns import COSTS

LAW = power("flops")
"""It is fitted to any cost; the column of the points is called flops."""
MIN_COSTS = 3
"""Fewest different costs: the law has three numbers."""
POOR_FIT = 0.05
"""A test of the law against the scatter of seeds with a smaller p value than this means that it does not fit."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """A law and the points at which it is anchored."""

    fit: LawFit
    losses: Floats
    """(k,) geometric mean loss of the seeds at each point, rising."""
    costs: Floats
    """(k,) ln of the geometric mean cost of each."""
    seeds: Floats
    """(k,) runs at each point."""
    lack_of_fit: float | None
    """The p value of the law against the scatter of seeds.

    None if no point has two seeds, or if there are no more points than the law has parameters.
    """

    @property
    def _theta(self) -> Floats:
        return np.array(list(self.fit.theta.values()))

    def weights(self, losses: Floats) -> Floats:
        """Return how much the correction at each point counts at some losses (m,), as (m, k)."""
        at, knots = np.log(losses), np.log(self.losses)
        return np.stack([np.interp(at, knots, row) for row in np.eye(len(knots))], axis=-1)

    def cost_at(self, losses: Floats, theta: Floats | None = None) -> Floats:
        """Return ln of the baseline's cost (..., m) at losses (m,); NaN below the asymptote.

        `theta` (..., 3) are other parameters of the law than the fitted ones.
        """
        theta = self._theta if theta is None else theta
        weights = self.weights(losses)
        used = weights.any(axis=0)
        off = self.costs[used] - _ln_cost(theta, self.losses[used])
        return np.asarray(_ln_cost(theta, losses) + off @ weights[:, used].T)

    def margin_of_mean(self, losses: Floats, level: float, less: Floats | None = None) -> float:
        """Return half the interval of the mean of `cost_at` over losses (m,) that the law's uncertainty alone gives.

        With `less` (m,), it is that of the mean difference from the costs at these losses, without the anchors.
        """

        def mean(theta: Floats) -> Floats:
            shape = theta.reshape(-1, theta.shape[-1])
            costs = self.cost_at(losses, shape) if less is None else _ln_cost(shape, losses) - _ln_cost(shape, less)
            return np.asarray(np.exp(costs.mean(axis=-1)).reshape(theta.shape[:-1]))

        value, _, high = self.fit.estimate(mean, level=level)
        with np.errstate(divide="ignore", invalid="ignore"):
            half = float(np.log(high / value))
        return half if np.isfinite(half) else np.inf

    def change(self, losses: Floats, less: Floats) -> Floats:
        """Return ln of (cost at losses) / (cost at others) (m,) by the law alone; NaN below the asymptote."""
        return _ln_cost(self._theta, losses) - _ln_cost(self._theta, less)

    def slope(self, losses: Floats) -> Floats:
        """Return |d ln C / d ln L| (m,) of the law: by how many per cent a cost changes for a per cent of the loss."""
        floor, _, alpha = self._theta
        return np.asarray(losses / (alpha * (losses - floor)))


@np.errstate(invalid="ignore", divide="ignore")
def _ln_cost(theta: Floats, losses: Floats) -> Floats:
    """Return ln C (..., m) of the law with theta (..., 3) at losses (m,)."""
    floor, scale, alpha = (theta[..., i : i + 1] for i in range(3))
    above = np.where(losses > floor, losses - floor, np.nan)
    return np.asarray((np.log(scale) - np.log(above)) / alpha)


def baseline_law(rows: Rows, of_arm: Marks, cost: str, at_its_best: bool) -> Baseline | str:
    """Return the law through rows of an arm, or the reason why they give none, as a sentence.

    With `at_its_best`, and if the rows are of several groups, such as sizes, the law goes through the frontier: the
    rows that no other beats in both loss and cost.
    """
    if rows.higher_is_better:
        return "The law is one of a loss: of a quality of which more is better, it says nothing."
    at = np.flatnonzero(of_arm)
    if at_its_best and len({rows.groups[i] for i in at}) > 1:
        try:
            at = at[_best(rows, at, cost)]
        except UserError as error:
            return f"{str(error).removesuffix('.')}."
    knots: dict[tuple[Key, float], list[int]] = {}
    for i in at:
        knots.setdefault((rows.cells[i], rows.tokens[i]), []).append(int(i))
    if len(knots) < MIN_COSTS:
        return f"A law takes {MIN_COSTS} costs at least, and the baseline has {len(knots)}."
    unknown = np.full(len(at), np.nan)
    points = Points(
        unknown, unknown, rows.costs[at], rows.qualities[at], units_of(rows.table).to_numpy(dtype=np.str_)[at]
    )
    refits = 1000 if points.n_units >= FEW_UNITS else 100  # with fewer units, intervals come from the jackknife
    fit = fit_law(points, LAW, bootstraps=refits)
    if not isinstance(fit, LawFit):
        return in_own_words(fit[0], cost)
    logs = np.log(rows.qualities)
    losses = np.exp([logs[one].mean() for one in knots.values()])
    costs = np.array([np.log(rows.costs[one]).mean() for one in knots.values()])
    order = np.argsort(losses)
    counts = np.array([float(len(one)) for one in knots.values()])
    return Baseline(fit, losses[order], costs[order], counts[order], _lack_of_fit(rows, list(knots.values()), fit))


def in_own_words(sentence: str, cost: str) -> str:
    """Return a sentence of the fit about its law in FLOPs as one about the law of a cost."""
    said = sentence.replace(LAW.name, "the law").replace("flops", cost).removesuffix(".")
    return f"{said[0].upper()}{said[1:]}."


def _best(rows: Rows, at: np.ndarray, cost: str) -> Marks:
    """Return which rows lie on the frontier of loss against the cost. Raises UserError if they are too few."""
    table = rows.table.iloc[at]
    params, flops = (table[name].to_numpy(dtype=float, na_value=np.nan) for name in ("n_params", "train_flops"))
    names, units = np.array([str(i) for i in range(len(at))]), units_of(table).to_numpy(dtype=np.str_)
    costs = {name: table[name].to_numpy(dtype=float, na_value=np.nan) for name in COSTS if name in table}
    costs = {name: values for name, values in costs.items() if (values > 0).any()} | {cost: rows.costs[at]}
    points = Points(
        params,
        rows.tokens[at],
        flops,
        rows.qualities[at],
        units,
        costs=costs,
        names=names,
    )
    kept = on_frontier(points, cost).names
    assert kept is not None
    return np.isin(names, kept)


def _lack_of_fit(rows: Rows, knots: list[list[int]], fit: LawFit) -> float | None:
    """Return the p value of the F test of lack of fit: the means about the law against the seeds about their means."""
    logs = np.log(rows.qualities)
    floor, scale, alpha = fit.theta.values()
    spare, freedom = len(knots) - len(fit.theta), sum(len(one) - 1 for one in knots)
    if spare < 1 or freedom < 1:
        return None
    within = sum(float(((logs[one] - logs[one].mean()) ** 2).sum()) for one in knots)
    between = 0.0
    for one in knots:
        expected = np.log(floor + scale * np.exp(-alpha * np.log(rows.costs[one]).mean()))
        between += len(one) * float(logs[one].mean() - expected) ** 2
    if within == 0:
        return None
    return f_tail((between / spare) / (within / freedom), spare, freedom)

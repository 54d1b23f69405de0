"""The loss on one text as a function of that on another (Brandfonbrener et al. 2024, arXiv 2411.12925).

    L_1 = K (L_0 - E_0)^kappa + E_1

L_0 and L_1 are the losses of the same model on two texts, which the paper calls train-to-test. E_0 and E_1 are the
losses that no model can beat. They are those of two scaling laws in size and tokens, if the runs have sizes that
determine these; the refits of both laws and of this one are to the same resampled runs. Otherwise all four
numbers are fitted together. If kappa is then near 1, the curve is a line, and E_0 and E_1 only shift it: the losses
between the measured ones are known and these numbers are not. The fit is least squares of ln L_1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.analysis.quantiles import student
from lmexp.analysis.scaling import checks
from lmexp.analysis.scaling.bootstrap import FEW_UNITS
from lmexp.analysis.scaling.fit import fit_law
from lmexp.analysis.scaling.holdout import SHARE
from lmexp.analysis.scaling.law_fit import Estimate, LawFit
from lmexp.analysis.scaling.laws import chinchilla
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.relations.least_squares import Curve, Fitted, few_units, fit_curve, resampled
from lmexp.analysis.scaling.relations.relation import Formula, HeldOut, Picture, Prediction, Relation, once
from lmexp.analysis.scaling.relations.rows import Rows, known_only
from lmexp.analysis.scaling.words import estimate_text, loss_text, number
from lmexp.errors import UserError

NAME = "loss_to_loss"
FORMULA = "L_1 = K (L_0 - E_0)^kappa + E_1"
PARAMETERS = ("K", "kappa", "E_0", "E_1")
MIN_GAP = 1e-3
"""E_0 stays below the lowest L_0 by this share of the range of L_0: at it, the power has no slope."""
KAPPAS = (0.5, 0.8, 1.0, 1.25, 2.0)
MAX_KAPPA = 20.0
FLOORS = (0.0, 0.5, 0.9)
"""Starts of the search: exponents, and floors as shares of the lowest losses."""
STEPS = 60


@dataclass(frozen=True, eq=False)
class LossToLoss:
    """The law, fitted."""

    rows: Rows
    x: Floats
    """(n,) the losses L_0."""
    y: Floats
    """(n,) the losses L_1."""
    names: tuple[str, str]
    """The columns of L_0 and L_1."""
    fitted: Fitted
    """Its theta is ln K, kappa, E_0 and E_1."""
    of_laws: bool
    """Whether E_0 and E_1 are those of scaling laws."""

    def loss(self, x: float, single: bool = True) -> Estimate:
        """Return L_1 at a loss L_0: that of one run, or with `single` false the mean of many.

        Raises UserError for a loss that is not above E_0.
        """
        floor = float(self.fitted.theta[2])
        if not np.isfinite(x) or x <= floor:
            raise UserError(
                f"a {self.names[0]} of {x:g} is not above E_0, {floor:.4g}, which no model of this fit beats"
            )
        return self._losses(np.array([x]), single, one=True)

    def _losses(self, x: Floats, single: bool = True, one: bool = False) -> Estimate:
        value = _log_loss(x, self.fitted.theta[None])[0]
        with np.errstate(invalid="ignore"):
            half = self.fitted.half(value, _log_loss(x, self.fitted.refits))
        if single:
            half = np.hypot(half, student(self.fitted.freedom) * self.fitted.residual)
        estimate = Estimate(np.exp(value), np.exp(value - half), np.exp(value + half))
        return Estimate(*(part[0] for part in estimate)) if one else estimate


def _log_loss(x: Floats, theta: Floats) -> Floats:
    """Return ln L_1 (batch, n) at L_0 (n,); NaN at or below E_0."""
    ln_k, kappa, floor, other = (theta[:, i, None] for i in range(4))
    above = x - floor
    gap = np.log(np.where(above > 0, above, np.nan))
    return np.asarray(np.log(np.exp(ln_k + kappa * gap) + other))


def _gradient(x: Floats, theta: Floats) -> Floats:
    ln_k, kappa, floor, other = (theta[:, i, None] for i in range(4))
    gap = x - floor
    power = np.exp(ln_k + kappa * np.log(gap))
    parts = [power, power * np.log(gap), -kappa * power / gap, np.ones_like(power)]
    return np.stack([part / (power + other) for part in parts], axis=-1)


def fit_loss_to_loss(
    rows: Rows, source: str, target: str, bootstraps: int = 1000, seed: int = 0, hold_out: bool = True
) -> tuple[LossToLoss, HeldOut | None]:
    """Fit the law to the rows that have both losses, and return it with its error on the lowest fifth of L_0.

    `source` and `target` are the columns of L_0 and L_1. Raises UserError if a loss is not above 0, if the losses do
    not vary, or if there are too few runs.
    """
    rows, y = known_only(rows, target)
    x = rows.points.loss
    _check(x, y, rows.points, source, target)
    law = LossToLoss(rows, x, y, (source, target), *_fit(x, y, rows, bootstraps, seed))
    return law, _held_out(law, bootstraps, seed) if hold_out else None


def _fit(x: Floats, y: Floats, rows: Rows, bootstraps: int, seed: int) -> tuple[Fitted, bool]:
    """Return the fit, and whether E_0 and E_1 are those of scaling laws."""
    points = rows.points
    draws = resampled(points.unit, bootstraps, seed)
    gaps = np.array([MIN_GAP * float(np.ptp(x)), MIN_GAP * float(np.ptp(y))])
    highest = np.maximum(np.array([x.min(), y.min()]) - gaps, 0.0)
    low, high = np.array([-50.0, 1e-3, 0.0, 0.0]), np.array([50.0, MAX_KAPPA, *highest])
    floors = [_floors_of_law(rows, loss, bootstraps, seed) for loss in (x, y)]
    of_refits = None
    known = [each for each in floors if each is not None]
    if of_laws := len(known) == 2:
        refits = np.minimum(np.stack([each[1] for each in known], axis=1), highest)
        drawn = np.isfinite(refits).all(axis=1)
        draws, refits = draws[drawn], refits[drawn]
        tried = [tuple(np.minimum([each[0] for each in known], highest))]
        low[2:] = high[2:] = tried[0]
        bounds = [np.concatenate([np.tile(end[:2], (len(refits), 1)), refits], axis=1) for end in (low, high)]
        of_refits = Curve(_log_loss, _gradient, *bounds)
    else:
        tried = [(at_x * highest[0], at_y * highest[1]) for at_x in FLOORS for at_y in FLOORS]
    starts = []
    for kappa in KAPPAS:
        for floor, other in tried:
            ln_k = float(np.mean(np.log(y - other) - kappa * np.log(x - floor)))
            starts.append((ln_k, kappa, floor, other))
    curve = Curve(_log_loss, _gradient, low, high)
    fitted = fit_curve(curve, x, np.log(y), points.unit, np.array(starts), NAME, draws, 0, of_refits)
    return fitted, of_laws


def _floors_of_law(rows: Rows, loss: Floats, bootstraps: int, seed: int) -> tuple[float, Floats] | None:
    """Return E of Chinchilla's law of a loss (n,), and of its refits (r,); None if the runs do not determine it."""
    if not rows.has_sizes or not rows.points.has_sizes:
        return None
    points = replace(rows.points, loss=loss, precision=None, optimizer=None, bits={}, unique_tokens=None)
    if checks.refusals(points):
        return None
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        fitted = fit_law(points, chinchilla, None, bootstraps, seed)
    if not isinstance(fitted, LawFit) or fitted.floor_is_at_bound:
        return None
    if fitted.n_units < FEW_UNITS:
        return fitted.theta["E"], fitted.left_one_out[:, 0]
    floors = np.full(bootstraps, np.nan)  # a draw whose refit ran away has none
    floors[fitted.drawn] = fitted.samples[:, 0]
    return fitted.theta["E"], floors


def _check(x: Floats, y: Floats, points: Points, source: str, target: str) -> None:
    if source == target:
        raise UserError(f"--from and --to name one column, '{source}': name the losses on two texts")
    if (y <= 0).any():
        raise UserError(f"{points.name_of(int(np.argmin(y)))}: {target} is {y.min():g}; a loss must be above 0")
    for name, values in ((source, x), (target, y)):
        if np.ptp(values) <= 1e-12 * values.max():
            raise UserError(f"all rows have one {name}, {values[0]:.4g}: there is nothing to fit")
    if np.corrcoef(x, y)[0, 1] <= 0:
        raise UserError(f"{target} does not rise with {source} in these rows: {NAME} says nothing about them")


def _held_out(law: LossToLoss, bootstraps: int, seed: int) -> HeldOut | None:
    """Return the error on the runs with the lowest fifth of L_0, fitted to the others; None if these are too few."""
    held = law.x <= np.sort(law.x)[max(round(SHARE * len(law.x)), 1) - 1]
    shared = np.isin(law.rows.points.unit, law.rows.points.unit[held])
    if shared.all():
        return None
    rest = law.rows.where(~shared)
    try:
        refitted = _fit(law.x[~shared], law.y[~shared], rest, bootstraps, seed)
    except UserError:
        return None
    smaller = LossToLoss(rest, law.x[~shared], law.y[~shared], law.names, *refitted)
    above = law.x[held] > smaller.fitted.theta[2]
    if not above.any():
        return None
    predicted = smaller._losses(law.x[held][above])
    return HeldOut.of(f"{law.names[1]}, lowest fifth of {law.names[0]}", law.y[held][above], predicted, True)


def relation(law: LossToLoss, held: HeldOut | None, losses: Sequence[float] = (), seed: int = 0) -> Relation:
    """Return what a fit says; `losses` are those on the first text for which the second is predicted."""
    fitted, (source, target) = law.fitted, law.names
    theta = np.array([np.exp(fitted.theta[0]), *fitted.theta[1:]])
    half = fitted.half(fitted.theta, fitted.refits)
    low, high = fitted.theta - half, fitted.theta + half
    low[0], high[0] = np.exp(low[0]), np.exp(high[0])
    low[1:] = np.maximum(low[1:], 0.0)
    intervals = {name: (float(low[i]), float(high[i])) for i, name in enumerate(PARAMETERS)}
    at_bound = tuple(name for name, bound in zip(PARAMETERS, fitted.at_bound, strict=True) if bound)
    predictions = tuple(Prediction(f"{source} {x:g}", NAME, target, law.loss(x)) for x in losses)
    x = np.linspace(law.x.min(), law.x.max(), STEPS)
    kappa = Estimate(np.asarray(theta[1]), np.asarray(low[1]), np.asarray(high[1]))
    headline = [
        f"{target} follows from {source} {fitted.residual:.2%} off, root mean square.",
        f"kappa is {estimate_text(kappa, number)}: "
        + (
            "one loss falls in proportion to the other within the interval."
            if kappa.low <= 1 <= kappa.high
            else "near its floor, "
            + (
                f"{target} falls faster than {source}."
                if theta[1] < 1
                else f"{target} falls more slowly than {source}."
            )
        ),
        *(f"{one.run}: {target} {estimate_text(one.estimate, loss_text)}." for one in predictions),
    ]
    return Relation(
        law=NAME,
        points=law.rows.points,
        source=f"{law.rows.points.source.split(':')[0]}: L_0 = {source}, L_1 = {target}",
        method="jackknife over units" if fitted.n_units < FEW_UNITS else "bootstrap over units",
        seed=seed,
        formulas=(
            Formula(
                NAME,
                FORMULA,
                dict(zip(PARAMETERS, theta.tolist(), strict=True)),
                intervals,
                fitted.residual,
                f"ln {target}",
                at_bound,
            ),
        ),
        headline=tuple(headline),
        errors=(held,) if held else (),
        predictions=predictions,
        pictures={
            NAME: Picture(
                f"{target} against {source}: measured (points) and by the law (line)",
                source,
                target,
                tuple((float(a), float(b), "measured") for a, b in zip(law.x, law.y, strict=True)),
                tuple((float(a), float(b), "measured") for a, b in zip(x, law._losses(x).value, strict=True)),
            )
        },
        warnings=once(_warnings(law, at_bound, losses)),
        has_sizes=law.rows.has_sizes,
    )


def _warnings(law: LossToLoss, at_bound: Sequence[str], losses: Sequence[float]) -> list[str]:
    said = [*few_units(law.fitted, NAME)]
    said.append(
        "E_0 and E_1 are those of Chinchilla's law of each loss."
        if law.of_laws
        else "E_0 and E_1 are fitted with the other numbers, because the sizes of the runs give them by no law. In "
        "simulations, the intervals of these four numbers are then too narrow, and that of a predicted loss is less so."
    )
    if at_bound:
        said.append(
            f"{' and '.join(at_bound)} ended at the limit of what it may be, so these losses do not identify it. The "
            "intervals of the other numbers assume this value."
        )
    low, high = float(law.x.min()), float(law.x.max())
    said += [
        f"A {law.names[0]} of {x:g} lies outside the measured ones, {low:.4g} to {high:.4g}: the interval assumes that "
        "the law holds there."
        for x in losses
        if not low <= x <= high
    ]
    return said

"""A fit: each law with its intervals, its error on runs held out, and what must be known before it is believed.

The road: checks.py judges the design, solver.py finds each law's optimum on its surface.py, bootstrap.py moves the
units, holdout.py judges what is predicted. `LawFit` then answers questions, each with an interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling import checks, solver
from lmexp.analysis.scaling.bootstrap import FEW_UNITS, bootstrap, leave_one_out, margin, student, unit_indices
from lmexp.analysis.scaling.holdout import Holdout, judge, largest
from lmexp.analysis.scaling.laws import DEFAULT_LAWS, FLOPS_PER_TOKEN, Law, Optimal, law_named
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.precision import Precisions
from lmexp.analysis.scaling.surface import Surface
from lmexp.errors import UserError
from lmexp.units import si

MAX_POINTS = 100_000
"""A thousand refits of so many take minutes."""
HOLDOUT_BOOTSTRAPS = 200
RIVALS = 3
"""Optima of the whole, the best first, that every refit of the bootstrap begins at."""
WORST_CONDITION = 1e9
"""Of the scaled Hessian: beyond it a change of the losses in their ninth digit moves a parameter by its own size."""


class Estimate(NamedTuple):
    """A number and its 95 % interval; each of the three has the shape of what was asked."""

    value: Floats
    low: Floats
    high: Floats


class Optimum(NamedTuple):
    """The best use of a budget, each with its interval."""

    params: Estimate
    tokens: Estimate
    loss: Estimate


@dataclass(frozen=True, eq=False)
class LawFit:
    """One law, fitted."""

    law: Law
    theta: dict[str, float]
    """The law's parameters, and after them those of the precisions."""
    intervals: dict[str, tuple[float, float]]
    """95 % interval of each parameter."""
    samples: Floats
    """(B, k) parameters of the bootstrap's refits, in the order of `theta`."""
    left_one_out: Floats
    """(units, k) parameters of the refits that lack one unit, with fewer than 100 units; otherwise (0, k)."""
    objective: float
    """Sum over points of Huber's loss of ln(predicted/measured)."""
    delta: float
    """Where Huber's loss turns from a square into a line."""
    n_points: int
    n_units: int
    condition: float
    """Condition number of the scaled Hessian at the optimum."""
    residual: float
    """Standard deviation of ln(predicted/measured), corrected for the number of parameters."""
    holdout: Holdout | None
    """None where too few runs are left to fit without the largest."""
    precisions: Precisions | None = None
    warnings: tuple[str, ...] = ()

    def loss(self, *inputs: npt.ArrayLike, precision: str | None = None) -> Estimate:
        """Return the law's loss at N and D, or at the one variable of the law: the mean of many such runs.

        Raises UserError when the law takes another number of inputs, or no point has the precision.
        """
        values = [np.asarray(value, dtype=np.float64) for value in inputs]

        def lost(theta: Floats) -> Floats:
            effective = [values[0] * self._factor(theta, precision), *values[1:]] if values else []
            return self.law.loss(self._of_law(theta), *effective)

        return self.estimate(lost, *values)

    def prediction(self, *inputs: npt.ArrayLike, precision: str | None = None) -> Estimate:
        """Return the loss of one new run: the law's loss, with a single run's noise around it in the interval."""
        value, _, high = self.loss(*inputs, precision=precision)
        half = np.hypot(np.log(high / value), student(max(self.n_points - self.samples.shape[1], 1)) * self.residual)
        return Estimate(value, value * np.exp(-half), value * np.exp(half))

    def optimum(
        self, flops: npt.ArrayLike, flops_per_token: float = FLOPS_PER_TOKEN, precision: str | None = None
    ) -> Optimum:
        """Return N*, D* and L* of a budget under C = flops_per_token N D.

        Raises UserError when the law has one input only, or no point has the precision.
        """
        budget = np.asarray(flops, dtype=np.float64)

        def best(theta: Floats) -> Optimal:  # what N f and D give at C f, N and D give at C
            factor = self._factor(theta, precision)
            found = self.law.optimum(self._of_law(theta), budget * factor, flops_per_token)
            return Optimal(found.params / factor, found.tokens, found.loss)

        return self._three(best, budget)

    def for_serving(self, loss: npt.ArrayLike, served: npt.ArrayLike, precision: str | None = None) -> Optimum:
        """Return the N and D of least 6ND + 2NT that reach `loss`, with T = `served` tokens to serve.

        NaN where the law never reaches the loss; a bound is 0 or infinite where some refits do not reach it.
        """
        wanted, amount = np.asarray(loss, dtype=np.float64), np.asarray(served, dtype=np.float64)

        def best(theta: Floats) -> Optimal:
            found = self.law.for_serving(self._of_law(theta), wanted, amount)
            return Optimal(found.params / self._factor(theta, precision), found.tokens, found.loss)

        return self._three(best, wanted, amount)

    def _three(self, best: Callable[[Floats], Optimal], *inputs: Floats) -> Optimum:
        """Return the estimates of params, tokens and loss."""
        return Optimum(
            self.estimate(lambda theta: best(theta).params, *inputs),
            self.estimate(lambda theta: best(theta).tokens, *inputs),
            self.estimate(lambda theta: best(theta).loss, *inputs),
        )

    def estimate(self, quantity: Callable[[Floats], Floats], *inputs: Floats) -> Estimate:
        """Return a positive quantity of a theta with its interval, which is symmetric in its logarithm.

        The quantity takes a theta whose axes before the last broadcast with the inputs.
        """
        refits = self.left_one_out if self.n_units < FEW_UNITS else self.samples
        axes = (1,) * np.broadcast(*inputs).ndim if inputs else ()
        value = np.log(quantity(self._theta))
        moved = np.log(quantity(refits.reshape(len(refits), *axes, -1)))
        moved = np.where(np.isnan(moved), np.inf, moved)
        half = margin(value, moved, self.n_units)
        return Estimate(np.exp(value), np.exp(value - half), np.exp(value + half))

    @property
    def _theta(self) -> Floats:
        return np.array(list(self.theta.values()))

    def _of_law(self, theta: Floats) -> Floats:
        return theta[..., : len(self.law.parameters)]

    def _factor(self, theta: Floats, precision: str | None) -> Floats:
        """Return N_eff/N (...) of a precision, by default of the reference."""
        if self.precisions is None:
            if precision is not None:
                raise UserError(f"precision is not an axis of this fit of {self.law.name}: leave out '{precision}'")
            return np.ones(())
        return np.exp(self.precisions.log_factor(theta[..., len(self.law.parameters) :], precision))


@dataclass(frozen=True, eq=False)
class Fit:
    """All laws fitted to one set of points."""

    points: Points
    laws: dict[str, LawFit]
    """Name to fit, of those laws that the points can tell."""
    warnings: tuple[str, ...] = ()
    """What weakens all of them."""
    refusals: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Name of a law that is not fitted, and why."""

    def spread(self, flops: float, flops_per_token: float = FLOPS_PER_TOKEN) -> dict[str, float]:
        """Return highest over lowest of the laws' params, tokens and loss at the optimum of a budget.

        1 is agreement. What the forms differ by is an error that no interval of one of them holds.
        """
        found = [
            fitted.law.optimum(
                np.array(list(fitted.theta.values()))[: len(fitted.law.parameters)], flops, flops_per_token
            )
            for fitted in self.laws.values()
            if fitted.law.has_optimum
        ]
        if not found:
            return {}
        return {
            name: float(max(values) / min(values))
            for name, values in zip(("params", "tokens", "loss"), zip(*found, strict=True), strict=True)
        }


@np.errstate(over="ignore")  # a refit that runs away is infinite, and is told by that
def fit(
    points: Points,
    laws: Sequence[Law | str] = DEFAULT_LAWS,
    delta: float | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fit laws to points; beside Chinchilla's law always the one with an extra exponent.

    `delta` of Huber's loss is that of the residuals unless given (1e-3 is Chinchilla's). A law that the points cannot
    tell is not among the fitted; `refusals` says why. Raises UserError for too many points, and for names of no law.
    """
    if len(points) > MAX_POINTS:
        raise UserError(
            f"{len(points):,} points are more than the {MAX_POINTS:,} that a fit takes: keep the end of each run, "
            "or one milestone in ten"
        )
    if delta is not None and not (np.isfinite(delta) and delta > 0):
        raise UserError(f"delta is {delta:g}; it must be finite and above 0")
    if bootstraps < 100:
        raise UserError(f"{bootstraps} bootstraps are too few for an interval: take 100 or more")
    wanted = {law.name: law for law in (law_named(law) if isinstance(law, str) else law for law in laws)}
    if "chinchilla" in wanted:
        wanted.setdefault("extra", law_named("extra"))
    fitted: dict[str, LawFit] = {}
    refused: dict[str, tuple[str, ...]] = {}
    of_design = checks.refusals(points) if len(points) else ("There are no points.",)
    for name, law in wanted.items():
        known = np.all([np.isfinite(points.column(column)) for column in law.inputs], axis=0)
        here = points.where(known)
        reasons = of_design if law.has_optimum or not len(points) else ()
        result = reasons or fit_law(here, law, delta, bootstraps, seed)
        if isinstance(result, LawFit):
            fitted[name] = replace(result, holdout=_hold_out(here, law, result.delta, seed))
        else:
            refused[name] = result
    warnings = (*points.warnings, *(checks.warnings(points) if len(points) else ()))
    return Fit(points, fitted, warnings, refused)


def fit_law(
    points: Points, law: Law, delta: float | None = None, bootstraps: int = 1000, seed: int = 0
) -> LawFit | tuple[str, ...]:
    """Return one law's fit, without a hold-out, or why these points cannot tell it; the design is not judged."""
    precisions = Precisions.of(points.precision) if law.inputs[0] == "params" else None
    surface = Surface.of(law, points, precisions)
    k, n_units = len(surface.names), points.n_units
    if n_units < k + 1:
        return (
            f"{law.name} has {k} numbers to find, and {si(n_units)} independent units are too few: it takes {k + 1}.",
        )
    found, delta = solver.solve(surface, np.ones(len(points)), delta)
    best = found.parameters[:1]
    condition = solver.condition(surface, best)
    form = surface.form(best)
    if not condition < WORST_CONDITION:
        return (
            f"{law.name} is not determined by these points: the condition number is {condition:.1e}. "
            "Vary what the law depends on more widely, and independently.",
        )
    if form.alpha[0] <= 0 or form.beta[0] <= 0:
        return (f"The loss does not fall with {law.inputs[int(form.alpha[0] > 0)]}: {law.name} says nothing here.",)
    of_unit = unit_indices(points.unit)
    samples = surface.theta(bootstrap(surface, of_unit, found.parameters[:RIVALS], delta, bootstraps, seed))
    samples = samples[np.isfinite(samples).all(axis=1)]
    if len(samples) < bootstraps / 2:
        return (f"Most refits of {law.name} to resampled runs run away: these points do not determine it.",)
    left = leave_one_out(surface, of_unit, best, delta) if n_units < FEW_UNITS else np.empty((0, k))
    left = surface.theta(left)
    residual = surface.residual(best)[0]
    names = (*law.parameters, *(precisions.parameters if precisions else ()))
    theta = dict(zip(names, surface.theta(best)[0].tolist(), strict=True))
    return LawFit(
        law=law,
        theta=theta,
        intervals=_intervals(theta, left if n_units < FEW_UNITS else samples, n_units),
        samples=samples,
        left_one_out=left,
        objective=float(found.objective[0]),
        delta=delta,
        n_points=len(points),
        n_units=n_units,
        condition=condition,
        residual=float(np.sqrt((residual**2).sum() / max(len(points) - k, 1))),
        holdout=None,
        precisions=precisions,
        warnings=_warnings(law, theta, precisions),
    )


def _intervals(theta: dict[str, float], refits: Floats, n_units: int) -> dict[str, tuple[float, float]]:
    """Return the interval of each parameter: of coefficients in their logarithm, of E and exponents as they are."""
    found = {}
    for i, (name, value) in enumerate(theta.items()):
        in_logs = name in ("A", "B", "Nc", "Dc", "gamma")
        center = np.log(value) if in_logs else value
        half = float(margin(np.asarray(center), np.log(refits[:, i]) if in_logs else refits[:, i], n_units))
        low, high = center - half, center + half
        found[name] = (float(np.exp(low)), float(np.exp(high))) if in_logs else (float(low), float(high))
        if name == "E":
            found[name] = (max(found[name][0], 0.0), found[name][1])
    return found


def _warnings(law: Law, theta: dict[str, float], precisions: Precisions | None) -> tuple[str, ...]:
    """Return what to know of one law's fit."""
    found = []
    if theta.get("E") == 0:
        found.append("E is 0, the least that it may be: these runs do not show a loss that no model could beat.")
    if precisions:
        found.append(f"Precision: {precisions.said}.")
    return tuple(found)


def _hold_out(points: Points, law: Law, delta: float, seed: int) -> Holdout | None:
    """Return how the law, fitted without the largest runs, predicts them."""
    held = largest(points)
    if held.all():
        return None
    rest, test = points.where(~held), points.where(held)
    fitted = fit_law(rest, law, delta, HOLDOUT_BOOTSTRAPS, seed)
    if not isinstance(fitted, LawFit):
        return None
    inputs = [test.column(column) for column in law.inputs]
    if fitted.precisions is None:
        return judge(test, *fitted.prediction(*inputs))
    assert test.precision is not None
    bounds = np.empty((3, len(test)))
    for name in np.unique(test.precision):
        here = test.precision == name
        if name not in fitted.precisions.names:
            return None
        bounds[:, here] = fitted.prediction(*(values[here] for values in inputs), precision=str(name))
    return judge(test, *bounds)

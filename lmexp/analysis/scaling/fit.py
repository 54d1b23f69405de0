"""A fit: each law with its confidence intervals, its held-out error, and the warnings to read before using it.

The steps: checks.py judges the design, solver.py finds each law's optimum (surface.py has the derivatives),
bootstrap.py refits to resampled units, holdout.py measures the held-out error, and lack_of_fit.py says what this error
means beyond the runs. `LawFit` then answers questions, each with an interval.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats, Marks
from lmexp.analysis.scaling import checks, solver
from lmexp.analysis.scaling.bootstrap import (
    FEW_UNITS,
    LEVEL,
    Ints,
    bootstrap,
    leave_one_out,
    margin,
    student,
    unit_indices,
)
from lmexp.analysis.scaling.calibrate import FEW_SPARE, MIN_SPARE, calibrate
from lmexp.analysis.scaling.effective import MIN_EPOCHS, Effective, Factors, Repeated, Run
from lmexp.analysis.scaling.holdout import Holdout, judge, largest
from lmexp.analysis.scaling.lack_of_fit import LackOfFit, distance, rate_of, reach_of
from lmexp.analysis.scaling.laws import DEFAULT_LAWS, IN_LOGS, LAWS, SIX_ND, Law, Optimal, Price, law_named
from lmexp.analysis.scaling.own_law import OwnLaw, bounds_of, is_expression, own_law, surface_of
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.precision import Precisions
from lmexp.analysis.scaling.surface import Surface
from lmexp.errors import UserError, nearest

MAX_POINTS = 100_000
"""A thousand refits to this many points take minutes."""
HOLDOUT_BOOTSTRAPS = 200
MAX_WIDENED = 5.0
"""If simulations ask for intervals wider by more than this factor, there are too few runs for an interval."""
EXACT = 1e-6
"""Residuals this small are of losses without noise, whose intervals need no simulation."""
WORST_OWN_CONDITION = 1e14
"""The same limit for a law of the user's, whose columns are not centred: above it, rounding decides."""
WORST_CONDITION = 1e9
"""Limit of the scaled Hessian's condition number: above it, losses that change in their ninth digit move a parameter by
its own size."""


class Estimate(NamedTuple):
    """A number and its 95 % confidence interval; all three have the shape of the inputs."""

    value: Floats
    low: Floats
    high: Floats


def times_as_wide(estimate: Estimate, other: Estimate) -> float:
    """Return how many times as wide the interval of one number is as another of the same number, in the logarithm."""
    return float(np.log(estimate.high / estimate.low) / np.log(other.high / other.low))


class Optimum(NamedTuple):
    """The best use of a budget, each number with its interval."""

    params: Estimate
    tokens: Estimate
    loss: Estimate


@dataclass(frozen=True, eq=False)
class LawFit:
    """One law, fitted."""

    law: Law
    theta: dict[str, float]
    """The law's parameters, followed by those of the effects."""
    intervals: dict[str, tuple[float, float]]
    """95 % confidence interval of each parameter; from bound to bound for an E that is at one of them."""
    samples: Floats
    """(B, k) parameters of the bootstrap's refits, in the order of `theta`."""
    left_one_out: Floats
    """(units, k) parameters of the jackknife's refits if there are fewer than 100 units; otherwise (0, k)."""
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
    """None if too few runs remain to fit the law without the largest ones."""
    effects: tuple[Effective, ...] = ()
    """What N or D is worth: the precisions, optimizers or repetition of the points."""
    warnings: tuple[str, ...] = ()
    widened: float = 1.0
    """Factor by which all intervals are wider because there are few units (calibrate.py); in logs where they are."""
    drawn: Marks | None = None
    """(bootstraps,) which draws of the bootstrap have a refit in `samples`; the others ran away."""
    coverage: float | None = None
    """How often intervals that are not widened hold the truth in simulations of this design; None if it has enough."""
    lack_of_fit: LackOfFit | None = None
    """What widens intervals of the loss beyond the runs; None if held-out runs show none, or none could be held out."""

    @property
    def floor_is_at_bound(self) -> bool:
        """Whether the best E is at a bound, usually 0: these points do not identify it."""
        return "E" in self.at_bound

    @property
    def floor_is_fixed(self) -> bool:
        """Whether E was given, not fitted."""
        return "E" in self.fixed

    @property
    def fixed(self) -> tuple[str, ...]:
        """The parameters that were given, not fitted."""
        limits = {name: self.law.limits(name) for name in self.law.parameters}
        return tuple(name for name, (low, high) in limits.items() if low == high)

    @property
    def at_bound(self) -> tuple[str, ...]:
        """The fitted parameters that are at a bound."""
        names = (name for name in self.law.parameters if name not in self.fixed)
        return tuple(name for name in names if _is_at(self.theta[name], self.law.limits(name)))

    def loss(self, *inputs: npt.ArrayLike, **run: float | str) -> Estimate:
        """Return the law's loss at N and D, or at its one variable: the mean loss of many such runs.

        Beyond the fitted runs, its interval is at least as wide as the lack of fit asks for (lack_of_fit.py).
        `run` holds what else is known of it: `precision`, `weight_bits`, `optimizer`, `unique_tokens`. Raises UserError
        if the law takes another number of inputs, or none of `run`, or if no point has the precision or optimizer.
        """
        values = [np.asarray(value, dtype=np.float64) for value in inputs]
        self._check(run)

        def lost(theta: Floats) -> Floats:
            return self.law.loss(self._of_law(theta), *self._effective(theta, values, run))

        return self._beyond_the_runs(self.estimate(lost, *values), values)

    def effective(self, *inputs: float, **run: float | str) -> tuple[float, ...]:
        """Return the inputs as the law takes them: N and D times what the precision, ... of a run makes of them.

        Raises UserError as `loss` does.
        """
        self._check(run)
        return tuple(float(value) for value in self._effective(self._theta, [np.asarray(x) for x in inputs], run))

    def _effective(self, theta: Floats, values: Sequence[Floats], run: Run) -> list[Floats]:
        effective = list(values)
        for effect, shifts in self._shifts(theta):
            effective[effect.input] = effective[effect.input] * np.exp(effect.log_factor_of(shifts, run, values))
        return effective

    def prediction(self, *inputs: npt.ArrayLike, **run: float | str) -> Estimate:
        """Return the predicted loss of one new run: its interval includes the noise of a single run."""
        return self._of_single_run(self.loss(*inputs, **run))

    def prediction_of(self, points: Points) -> Estimate:
        """Return the predicted loss of each point (n,) as that of one new run, in its own precision, optimizer, ...

        Raises UserError if no fitted point has the precision or optimizer of one.
        """
        effects = [effect.on(points) for effect in self.effects]
        columns = [points.column(name) for name in self.law.inputs]
        mean = self.estimate(lambda theta: self._losses(theta, columns, effects), *columns)
        return self._of_single_run(self._beyond_the_runs(mean, columns))

    @property
    def as_fitted(self) -> "LawFit":
        """The same fit with the intervals of its bootstrap or jackknife, without any lack of fit."""
        return replace(self, lack_of_fit=None)

    def _beyond_the_runs(self, mean: Estimate, inputs: Sequence[Floats]) -> Estimate:
        """Widen the interval of a mean loss (...) at inputs (...) to what the lack of fit asks for."""
        if self.lack_of_fit is None:
            return mean
        sizes = [value for name, value in zip(self.law.inputs, inputs, strict=True) if name in self.law.sizes]
        half = self.lack_of_fit.half(sizes)
        low, high = mean.value * np.exp(-half), mean.value * np.exp(half)
        return Estimate(mean.value, np.minimum(mean.low, low), np.maximum(mean.high, high))

    def mean_error(self, points: Points) -> Estimate:
        """Return the mean of |predicted/measured - 1| over points, each in its own precision, with its optimizer, ...

        Raises UserError as `prediction_of` does.
        """
        effects = [effect.on(points) for effect in self.effects]
        columns = [points.column(name) for name in self.law.inputs]

        def off(theta: Floats) -> Floats:
            predicted = self._losses(theta.reshape(-1, 1, theta.shape[-1]), columns, effects)
            return np.asarray(np.abs(predicted / points.loss - 1).mean(axis=-1).reshape(theta.shape[:-1]))

        return self.estimate(off)

    def _of_single_run(self, mean: Estimate) -> Estimate:
        """Widen the interval of a mean loss by the noise of a single run."""
        value, _, high = mean
        half = np.hypot(
            np.log(high / value),
            student(max(self.n_points - self.samples.shape[1] + len(self.fixed), 1)) * self.residual,
        )
        return Estimate(value, value * np.exp(-half), value * np.exp(half))

    def optimum(self, flops: npt.ArrayLike, price: Price = SIX_ND, precision: str | None = None) -> Optimum:
        """Return N*, D* and L* for a budget at a price of a token.

        Raises UserError if the law has only one input, or if no point has the precision.
        """
        budget = np.asarray(flops, dtype=np.float64)
        run = self._of_precision(precision)

        def best(theta: Floats) -> Optimal:  # N and D at budget C give the loss of N f and D at budget C f^s
            factor = self._factor(theta, run)
            optimal = self.law.optimum(self._of_law(theta), budget * factor**price.power, price)
            return Optimal(optimal.params / factor, optimal.tokens, optimal.loss)

        params, tokens, loss = self._three(best, budget)
        return Optimum(params, tokens, self._beyond_the_runs(loss, (params.value, tokens.value)))

    def for_serving(
        self, loss: npt.ArrayLike, served: npt.ArrayLike, price: Price = SIX_ND, precision: str | None = None
    ) -> Optimum:
        """Return the N and D that reach `loss` at the fewest FLOPs, with T = `served` tokens to serve.

        They are NaN if the law never reaches the loss. A bound is 0 or infinite if some refits do not reach it.
        """
        wanted, amount = np.asarray(loss, dtype=np.float64), np.asarray(served, dtype=np.float64)
        run = self._of_precision(precision)

        def best(theta: Floats) -> Optimal:
            optimal = self.law.for_serving(self._of_law(theta), wanted, amount, price)
            return Optimal(optimal.params / self._factor(theta, run), optimal.tokens, optimal.loss)

        return self._three(best, wanted, amount)

    def fitted(self, points: Points) -> Floats:
        """Return the law's loss at every point (n,), in the precision of that point, with its optimizer, ..."""
        effects = [effect.on(points) for effect in self.effects]
        return self._losses(self._theta, [points.column(name) for name in self.law.inputs], effects)

    def _losses(self, theta: Floats, columns: Sequence[Floats], effects: Sequence[Effective]) -> Floats:
        """Return the losses (..., n) of points with the columns (n,) and effects, at a theta (k,) or (batch, 1, k)."""
        values = list(columns)
        for effect, (_, shifts) in zip(effects, self._shifts(theta), strict=True):
            factor = np.exp(effect.shift(shifts.reshape(-1, shifts.shape[-1])))
            values[effect.input] = values[effect.input] * (factor if theta.ndim > 1 else factor[0])
        return self.law.loss(self._of_law(theta), *values)

    @property
    def covariance(self) -> Floats:
        """Covariance (k, k) of theta: that of the jackknife with fewer than 100 units, else that of the bootstrap."""
        if self.n_units >= FEW_UNITS:
            return np.cov(self.samples.T).reshape(len(self.theta), -1)
        off = self.left_one_out - self._theta
        return np.asarray((len(off) - 1) / len(off) * off.T @ off)

    @property
    def standard_errors(self) -> dict[str, float]:
        """Standard error of each parameter, from the covariance; intervals are not symmetric multiples of it."""
        return dict(zip(self.theta, np.sqrt(np.diag(self.covariance)).tolist(), strict=True))

    def exponents(self, price: Price = SIX_ND) -> dict[str, Estimate]:
        """Return a, b and G of N* = G (C/k)^a and D* ~ C^b at a price C = k N^s D."""

        def power_of_size(theta: Floats) -> Floats:
            return self.law.exponent(self._of_law(theta), price)

        def scale(theta: Floats) -> Floats:
            return self.law.optimum(self._of_law(theta), price.factor, price).params

        return {
            "a": self.estimate(power_of_size),
            "b": self.estimate(lambda theta: 1 - price.power * power_of_size(theta)),
            "G": self.estimate(scale),
        }

    def _three(self, best: Callable[[Floats], Optimal], *inputs: Floats) -> Optimum:
        """Return the estimates of params, tokens and loss of a function of theta."""
        return Optimum(
            self.estimate(lambda theta: best(theta).params, *inputs),
            self.estimate(lambda theta: best(theta).tokens, *inputs),
            self.estimate(lambda theta: best(theta).loss, *inputs),
        )

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")
    def estimate(self, quantity: Callable[[Floats], Floats], *inputs: Floats, level: float = LEVEL) -> Estimate:
        """Return a positive function of theta with its interval, which is symmetric in the logarithm.

        `quantity` receives a theta (..., k) whose leading axes broadcast with the inputs. `level` is the confidence.
        """
        refits = self.left_one_out if self.n_units < FEW_UNITS else self.samples
        axes = (1,) * np.broadcast(*inputs).ndim if inputs else ()
        value = np.log(quantity(self._theta))
        moved = np.log(quantity(refits.reshape(len(refits), *axes, -1)))
        moved = np.where(np.isnan(moved), np.inf, moved)
        half = self.widened * margin(value, moved, self.n_units, level)
        return Estimate(np.exp(value), np.exp(value - half), np.exp(value + half))

    @property
    def _theta(self) -> Floats:
        return np.array(list(self.theta.values()))

    def _of_law(self, theta: Floats) -> Floats:
        return theta[..., : len(self.law.parameters)]

    def _shifts(self, theta: Floats) -> list[tuple[Effective, Floats]]:
        """Return each effect with its parameters (..., m) of a theta (..., k)."""
        pairs, first = [], len(self.law.parameters)
        for effect in self.effects:
            last = first + len(effect.parameters)
            pairs.append((effect, theta[..., first:last]))
            first = last
        return pairs

    def _factor(self, theta: Floats, run: Run) -> Floats:
        """Return N_eff/N (...) in the precision of a run [default: the reference], without any repetition."""
        precisions = [pair for pair in self._shifts(theta) if isinstance(pair[0], Precisions)]
        return np.exp(sum((effect.log_factor_of(shifts, run, ()) for effect, shifts in precisions), np.zeros(())))

    def _of_precision(self, precision: str | None) -> Run:
        run: Run = {} if precision is None else {"precision": precision}
        self._check(run)
        return run

    def _check(self, run: Run) -> None:
        """Raise UserError if the fit knows nothing of a quantity of a run."""
        known = {"optimizer": Factors, "unique_tokens": Repeated}
        kinds = {effect.kind or "precision" for effect in self.effects if isinstance(effect, Precisions)}
        for name, value in run.items():
            if name not in kinds and not any(isinstance(effect, known.get(name, ())) for effect in self.effects):
                raise UserError(f"{name} is not an axis of this fit of {self.law.name}: leave out '{value}'")


@dataclass(frozen=True, eq=False)
class Fit:
    """All laws fitted to one set of points."""

    points: Points
    laws: dict[str, LawFit]
    """Name -> fit, for every law that the points can identify."""
    warnings: tuple[str, ...] = ()
    """Warnings that concern all laws."""
    refusals: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Name of each law that could not be fitted -> the reasons."""

    @property
    def trusted(self) -> LawFit:
        """The law that predicted the held-out runs best; if none were held out, the one with fewest parameters."""
        return self._best_of(self.laws.values())

    @property
    def trusted_for_size(self) -> LawFit | None:
        """The same among the laws that give a best size for a budget; None if there is none."""
        laws = [law for law in self.laws.values() if law.law.has_optimum]
        return self._best_of(laws) if laws else None

    @staticmethod
    def _best_of(laws: Iterable[LawFit]) -> LawFit:
        return min(
            laws,
            key=lambda law: (law.holdout.mean_absolute_error if law.holdout else np.inf, len(law.law.parameters)),
        )

    def spread(self, flops: float, price: Price = SIX_ND) -> dict[str, float]:
        """Return the ratio of the highest to the lowest params, tokens and loss among the laws' optima for a budget.

        A ratio of 1 means that all laws agree. The interval of a single law does not include this spread.
        """
        optima = [
            fitted.law.optimum(np.array(list(fitted.theta.values()))[: len(fitted.law.parameters)], flops, price)
            for fitted in self.laws.values()
            if fitted.law.has_optimum
        ]
        if not optima:
            return {}
        return {
            name: float(max(values) / min(values))
            for name, values in zip(("params", "tokens", "loss"), zip(*optima, strict=True), strict=True)
        }


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # a refit that diverges is recognised by its values
def fit(
    points: Points,
    laws: Sequence[Law | str] = DEFAULT_LAWS,
    delta: float | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
    irreducible: str | float | tuple[float, float] | None = None,
    parameters: Sequence[str] = (),
) -> Fit:
    """Fit laws to points; Chinchilla's law is always accompanied by the one with an extra exponent.

    `delta` is the threshold of Huber's loss [default: estimated from the residuals; Chinchilla's authors used 1e-3].
    `irreducible` fixes E of every law that has one (1.69), bounds it (a pair, or `1.5:1.8`), or takes the known floor
    of the text for it (`floor`). A law may be an expression, `loss = E + A*params^-alpha` (own_law.py), and
    `parameters` are bounds of such laws' parameters, `gamma=0.1:10`. A law that the points cannot identify is not in
    `laws`, and `refusals` says why.
    Raises UserError for too many points, for the name of an unknown law, and for an E that is not below every loss.
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
    wanted = _laws_of(laws, points, parameters)
    if "chinchilla" in wanted:
        wanted.setdefault("extra", law_named("extra"))
    if irreducible is not None and len(points):
        bounds = checks.irreducible_bounds(irreducible, points)
        wanted = {name: law.with_irreducible(bounds) for name, law in wanted.items()}
    fitted: dict[str, LawFit] = {}
    refused: dict[str, tuple[str, ...]] = {}
    of_design = checks.refusals(points) if len(points) else ("There are no points.",)
    for name, law in wanted.items():
        known = np.all([np.isfinite(points.column(column)) for column in law.inputs], axis=0)
        here = points.where(known)
        reasons = of_design if law.has_optimum or not len(points) else ()
        result = reasons or fit_law(here, law, delta, bootstraps, seed)
        if isinstance(result, LawFit) and len(here) < len(points):
            missing = f"{name}: {len(points) - len(here)} of {len(points)} rows lack a number in one of its columns."
            result = replace(result, warnings=(*result.warnings, missing))
        if isinstance(result, LawFit):
            fitted[name] = held_out(result, here, seed)
        else:
            refused[name] = result
    warnings = (*points.warnings, *(checks.warnings(points) if len(points) else ()))
    return Fit(points, fitted, warnings, refused)


def _laws_of(laws: Sequence[Law | str], points: Points, parameters: Sequence[str]) -> dict[str, Law]:
    """Return the laws by name. Raises UserError for a wrong one, and for bounds of a parameter that no law has."""
    declared = dict(bounds_of(text) for text in parameters)
    wanted: dict[str, Law] = {}
    for law in laws:
        n_own = sum(isinstance(other, OwnLaw) for other in wanted.values())
        if isinstance(law, str):
            default = f"own_{n_own + 1}" if n_own else "own"
            law = own_law(law, points, default, declared) if is_expression(law) else law_named(law)
        if isinstance(law, OwnLaw) and law.name in (*LAWS, *wanted):
            raise UserError(f"two laws are called {law.name}: give each a name of its own, as in 'mine: loss = ...'")
        wanted[law.name] = law
    known = [name for law in wanted.values() if isinstance(law, OwnLaw) for name in law.parameters]
    if strange := [name for name in declared if name not in known]:
        there = f"There are {', '.join(known)}" if known else "Bounds are of parameters of a law that is an expression"
        raise UserError(f"no law has a parameter '{strange[0]}'.{nearest(strange[0], known)} {there}")
    return wanted


def _is_at(value: float, limits: tuple[float, float]) -> bool:
    """Whether a value is at one of its limits, to rounding."""
    return any(bool(np.isclose(value, limit, rtol=1e-12, atol=0)) for limit in limits if np.isfinite(limit))


def effects_of(law: Law, points: Points) -> tuple[Effective, ...] | str:
    """Return what shifts N or D under a law at these points, or the reason why they do not identify it."""
    if law.inputs[0] != "params" or isinstance(law, OwnLaw):
        return ()
    effects: list[Effective] = [*Precisions.all_of(points)]
    if "optimizer" in law.effects:
        if points.optimizer is None or len(np.unique(points.optimizer)) < 2:
            return f"{law.name} compares optimizers: it takes a column 'optimizer' with two at least."
        effects.append(Factors.of(points.optimizer))
    if "repetition" in law.effects:
        if points.unique_tokens is None:
            return f"{law.name} takes a column 'unique_tokens' or 'epochs'."
        if (points.tokens / points.unique_tokens).max() < MIN_EPOCHS:
            return f"{law.name}: no run has {MIN_EPOCHS:g} passes over its data, so repetition cannot be judged."
        effects += [each for each in (Repeated.of(points, 1), Repeated.of(points, 0)) if (each.excess > 0).any()]
    return tuple(effects)


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def fit_law(
    points: Points, law: Law, delta: float | None = None, bootstraps: int = 1000, seed: int = 0
) -> LawFit | tuple[str, ...]:
    """Return the fit of one law, or the reasons why these points cannot identify it.

    This does not check the design; `fit` does. The fit has no held-out error yet; see `held_out`.
    """
    effects = effects_of(law, points)
    if isinstance(effects, str):
        return (effects,)
    surface = surface_of(law, points, effects)
    k, n_units, weights = surface.n_free, points.n_units, points.relative_weights
    if n_units < k + MIN_SPARE:
        least = k + MIN_SPARE
        return (
            f"{law.name} has {k} numbers to find, and {n_units:,.0f} independent units are too few: it takes {least}.",
        )
    if delta is None and n_units <= k + FEW_SPARE:  # so few residuals have no robust scale: least squares
        delta = np.inf
    solution, delta = solver.solve(surface, weights, delta)
    best = solution.parameters[:1]
    condition = solver.condition(surface, best, weights)
    if not condition < (WORST_OWN_CONDITION if isinstance(law, OwnLaw) else WORST_CONDITION):
        return (
            f"{law.name} is not determined by these points: the condition number is {condition:.1e}. "
            + _undetermined(law, surface, best, weights),
        )
    form = None if isinstance(law, OwnLaw) else surface.form(best)
    if form is not None and (form.alpha[0] <= 0 or form.beta[0] <= 0):
        return (f"The loss does not fall with {law.inputs[int(form.alpha[0] > 0)]}: {law.name} says nothing here.",)
    of_unit = unit_indices(points.unit)
    starts = solution.parameters[: solver.MAX_LOCAL_OPTIMA]
    samples = surface.theta(bootstrap(surface, of_unit, starts, delta, bootstraps, seed, weights))
    drawn = np.asarray(np.isfinite(samples).all(axis=1))
    samples = samples[drawn]
    if len(samples) < bootstraps / 2:
        return (f"Most refits of {law.name} to resampled runs run away: these points do not determine it.",)
    left = np.empty((0, len(surface.names)))
    if n_units < FEW_UNITS:
        left = leave_one_out(surface, of_unit, best, delta, weights)
    left = surface.theta(left)
    residual = surface.residual(best)[0]
    names = (*law.parameters, *(name for effect in effects for name in effect.parameters))
    theta = dict(zip(names, surface.theta(best)[0].tolist(), strict=True))
    fitted = LawFit(
        law=law,
        theta=theta,
        intervals=_intervals(law, theta, left if n_units < FEW_UNITS else samples, n_units),
        samples=samples,
        drawn=drawn,
        left_one_out=left,
        objective=float(solution.objective[0]),
        delta=delta,
        n_points=len(points),
        n_units=n_units,
        condition=condition,
        residual=float(np.sqrt((weights * residual**2).sum() / max(len(points) - k, 1))),
        holdout=None,
        effects=effects,
        warnings=(
            *_warnings(law, theta, effects),
            *(
                [f"{law.name}: the condition number is {condition:.1e}. {_undetermined(law, surface, best, weights)}"]
                if not condition < WORST_CONDITION
                else []
            ),
        ),
    )
    return _calibrated(fitted, surface, best[0], of_unit, weights)


def _undetermined(law: Law, surface: Surface, best: Floats, weights: Floats) -> str:
    """Return which parameters the points hardly tell apart, and the remedy."""
    remedy = "Vary what the law depends on more widely, and independently."
    if not isinstance(law, OwnLaw):
        return remedy
    names = solver.least_determined(surface, best, weights)
    if len(names) == 1:
        return f"{names[0]} hardly changes the law at these rows. {remedy}"
    return f"{', '.join(names[:-1])} and {names[-1]} can change together without changing the loss. {remedy}"


def fit_by_squares(points: Points, law: Law) -> Floats:
    """Return the parameters (k,) of a law by least squares of the loss itself, as several papers fit theirs.

    They are squares of ln(predicted/measured) weighted by the squared loss, which is the same for small errors. Raises
    UserError for a law with effects, and for too few points.
    """
    if law.effects or len(points) < len(law.parameters):
        raise UserError(f"{law.name} cannot be fitted to {len(points)} points by least squares of the loss")
    surface = Surface.of(law, points)
    solution, _ = solver.solve(surface, points.relative_weights * points.loss**2, np.inf)
    return np.asarray(surface.theta(solution.parameters[:1])[0])


def _calibrated(
    law: LawFit, surface: Surface, optimum: Floats, of_unit: Ints, weights: Floats
) -> LawFit | tuple[str, ...]:
    """Return a fit with intervals as wide as simulations of its design ask for, or the reason why it has none.

    `optimum` (k,) holds the working parameters.
    """
    k = surface.n_free
    if law.n_units > k + FEW_SPARE or law.residual < EXACT:
        return law
    coverage, widened = calibrate(surface, optimum, of_unit, 0, weights)
    runs = f"{law.n_units} units for the {k} numbers of {law.law.name}"
    if not widened < MAX_WIDENED:
        return (f"{runs} are too few: in simulations of this design no interval holds the truth often enough.",)
    intervals = _intervals(law.law, law.theta, law.left_one_out, law.n_units, widened)
    remedy = f"; they are widened by a factor of {widened:.2g}" if widened > 1 else ""
    said = (
        f"{runs}: in simulations of this design, 95 % intervals hold the truth {coverage:.0%} of the time{remedy}. The "
        "fit uses least squares, because with so few residuals an outlier cannot be recognised."
    )
    return replace(law, widened=widened, coverage=coverage, intervals=intervals, warnings=(*law.warnings, said))


def _intervals(
    law: Law, theta: dict[str, float], refits: Floats, n_units: int, widened: float = 1.0
) -> dict[str, tuple[float, float]]:
    """Return the interval of each parameter, symmetric in the logarithm for coefficients and gamma.

    It stays within the bounds of the parameter.
    """
    intervals = {}
    for i, (name, value) in enumerate(theta.items()):
        in_logs = law.is_in_logs(name) if name in law.parameters else name in IN_LOGS
        center = np.log(value) if in_logs else value
        half = widened * float(margin(np.asarray(center), np.log(refits[:, i]) if in_logs else refits[:, i], n_units))
        low, high = center - half, center + half
        intervals[name] = (float(np.exp(low)), float(np.exp(high))) if in_logs else (float(low), float(high))
        if name in law.parameters:  # at its bound no refit moves it, which does not mean that it is known
            least, greatest = law.limits(name)
            low, high = (least, greatest) if _is_at(value, (least, greatest)) else intervals[name]
            intervals[name] = (max(low, least), min(high, greatest))
    return intervals


def _warnings(law: Law, theta: dict[str, float], effects: Sequence[Effective]) -> tuple[str, ...]:
    """Return the warnings about the fit of one law."""
    sentences = []
    for name in law.parameters:
        low, high = law.limits(name)
        if low == high or not _is_at(theta[name], (low, high)) or (name, theta[name]) == ("E", 0):
            continue
        side = "least" if _is_at(theta[name], (low, -np.inf)) else "greatest"
        sentences.append(
            f"{name} of {law.name} is at its bound, {theta[name]:g}, the {side} that was allowed: these runs ask for "
            f"{'less' if side == 'least' else 'more'}. The intervals of its other numbers assume this {name}."
        )
    if theta.get("E") == 0 and law.irreducible[0] < law.irreducible[1]:
        sentences.append(
            f"E of {law.name} is at its bound, 0, and not identified: these runs do not show a loss that no model "
            "could beat. The intervals of its other numbers assume that E is 0, and are too narrow if it is not."
        )
    titles = {Precisions: "Precision", Factors: "Optimizer", Repeated: "Repetition"}
    sentences += [f"{titles[type(effect)]}: {effect.said}." for effect in effects]
    return tuple(sentences)


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def held_out(fitted: LawFit, points: Points, seed: int = 0) -> LawFit:
    """Return a fit to `points` with its error on the largest runs, and with the lack of fit that this error shows.

    The law is fitted again without the fifth of the runs with the most compute. Whether the intervals of this fit hold
    these runs is judged with a lack of fit from still smaller runs: those of its own largest fifth.
    """
    smaller = _without_largest(points, fitted, seed)
    if smaller is None:
        return fitted
    before, rest, test = smaller
    nested = _without_largest(rest, fitted, seed)
    judged = before if nested is None else replace(before, lack_of_fit=_lack_of_fit(*nested, of=rest))
    holdout = judge(test, *judged.prediction_of(test))
    return replace(fitted, holdout=holdout, lack_of_fit=_lack_of_fit(*smaller, of=points))


def _without_largest(points: Points, fitted: LawFit, seed: int) -> tuple[LawFit, Points, Points] | None:
    """Return the law fitted without the largest runs, the points of that fit, and the largest; None if it cannot be.

    It has no held-out error of its own.
    """
    held = largest(points)
    if held.all():
        return None
    shared = np.isin(points.unit, points.unit[held])  # the noise of a trunk is in all of its branches
    rest, test = points.where(~shared), points.where(held)
    if not len(rest):
        return None
    smaller = fit_law(rest, fitted.law, fitted.delta, HOLDOUT_BOOTSTRAPS, seed)
    if not isinstance(smaller, LawFit):
        return None
    try:
        smaller.prediction_of(test)
    except UserError:  # a precision or an optimizer that only the largest runs have
        return None
    return smaller, rest, test


def _lack_of_fit(smaller: LawFit, rest: Points, test: Points, of: Points) -> LackOfFit | None:
    """Return the lack of fit of a law at points `of`, from its fit to the `rest` of them and its errors on the `test`.

    None if the intervals allow for the errors.
    """
    columns = [[points.column(name) for name in smaller.law.sizes] for points in (rest, test, of)]
    if not columns[0]:
        return None
    value, _, high = smaller.prediction_of(test)
    away = distance(columns[1], reach_of(columns[0]))
    rate = rate_of(np.log(value / test.loss), np.log(high / value), away)
    freedom = len(smaller.theta) - len(smaller.fixed)
    return LackOfFit(rate, reach_of(columns[2]), freedom) if rate > 0 else None

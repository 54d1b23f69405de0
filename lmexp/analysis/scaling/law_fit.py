"""One law, fitted: it answers questions about losses, best sizes and exponents, each with an interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats, Marks
from lmexp.analysis.quantiles import LEVEL, student
from lmexp.analysis.scaling.bootstrap import FEW_UNITS, around, margin
from lmexp.analysis.scaling.effective import Effective, Factors, Repeated, Run
from lmexp.analysis.scaling.holdout import Holdout
from lmexp.analysis.scaling.lack_of_fit import LackOfFit
from lmexp.analysis.scaling.laws import SIX_ND, Law, Optimal, Price
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.precision import Precisions
from lmexp.errors import UserError


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
        return tuple(name for name in names if is_at(self.theta[name], self.law.limits(name)))

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
        low, high = around(mean.value, half)
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
        return Estimate(value, *around(value, half))

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


def is_at(value: float, limits: tuple[float, float]) -> bool:
    """Whether a value is at one of its limits, to rounding."""
    return any(bool(np.isclose(value, limit, rtol=1e-12, atol=0)) for limit in limits if np.isfinite(limit))

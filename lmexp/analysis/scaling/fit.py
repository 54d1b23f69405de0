"""A fit: each law with its confidence intervals, its held-out error, and the warnings to read before using it.

The steps: checks.py judges the design, solver.py finds each law's optimum (surface.py has the derivatives),
bootstrap.py refits to resampled units, holdout.py measures the held-out error, and lack_of_fit.py says what this error
means beyond the runs. `LawFit` (law_fit.py) then answers questions, each with an interval.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling import checks, solver
from lmexp.analysis.scaling.bootstrap import (
    FEW_UNITS,
    Ints,
    bootstrap,
    leave_one_out,
    margin,
    unit_indices,
)
from lmexp.analysis.scaling.calibrate import FEW_SPARE, MIN_SPARE, calibrate
from lmexp.analysis.scaling.effective import MIN_EPOCHS, Effective, Factors, Repeated
from lmexp.analysis.scaling.holdout import judge, largest
from lmexp.analysis.scaling.lack_of_fit import LackOfFit, distance, rate_of, reach_of
from lmexp.analysis.scaling.law_fit import LawFit, is_at
from lmexp.analysis.scaling.laws import DEFAULT_LAWS, IN_LOGS, LAWS, SIX_ND, Law, Price, law_named
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
            low, high = (least, greatest) if is_at(value, (least, greatest)) else intervals[name]
            intervals[name] = (max(low, least), min(high, greatest))
    return intervals


def _warnings(law: Law, theta: dict[str, float], effects: Sequence[Effective]) -> tuple[str, ...]:
    """Return the warnings about the fit of one law."""
    sentences = []
    for name in law.parameters:
        low, high = law.limits(name)
        if low == high or not is_at(theta[name], (low, high)) or (name, theta[name]) == ("E", 0):
            continue
        side = "least" if is_at(theta[name], (low, -np.inf)) else "greatest"
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

"""A downstream score from the loss, and the loss from size and tokens (Bhagia et al. 2024, arXiv 2412.04403).

    step 1:  L = E + A N^-alpha + B D^-beta            (laws.py)
    step 2:  score = a / (1 + exp(-k (L - L0))) + b

The loss may be that of validation or, as in the paper, that of the task's right answers. a is below 0: at a low loss
the score is b, at a high one a + b, which is that of guessing. k is above 0. Step 2 is least squares of the score, with
a + b and b between 0 and the highest score that there is. Both steps are refitted to the same resampled runs, so the
interval of the score for a size has the errors of both and what they have in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmexp.analysis.arrays import Floats, Marks
from lmexp.analysis.quantiles import student
from lmexp.analysis.scaling import checks
from lmexp.analysis.scaling.bootstrap import FEW_UNITS
from lmexp.analysis.scaling.fit import fit_law
from lmexp.analysis.scaling.holdout import largest
from lmexp.analysis.scaling.law_fit import Estimate, LawFit
from lmexp.analysis.scaling.laws import Law
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.relations.least_squares import Curve, Fitted, few_units, fit_curve, resampled
from lmexp.analysis.scaling.relations.relation import Formula, HeldOut, Picture, Prediction, Relation, once
from lmexp.analysis.scaling.relations.rows import Rows
from lmexp.analysis.scaling.words import estimate_text
from lmexp.errors import UserError
from lmexp.runs.columns import column, higher_is_better
from lmexp.units import flops_text, si

NAME = "downstream"
FORMULA = "score = a / (1 + exp(-k (L - L0))) + b"
PARAMETERS = ("a", "k", "L0", "b")
SLOPES = (1.0, 3.0, 10.0, 30.0)
"""Starts of the search: k times the range of the losses; L0 starts below, in and above this range."""
MAX_SLOPE = 200.0
REACH = 2.0
"""How far L0 may lie outside the measured losses, in ranges of them."""
STEPS = 60
NO_HELD_OUT = "No held-out error: without the largest fifth of compute, the runs do not determine both steps."


@dataclass(frozen=True)
class Chained:
    """The predicted score of one new run, with what each step contributes to its interval."""

    loss: Estimate
    """Of step 1, with the noise of a single run."""
    score: Estimate
    """Of both steps, with the noise of a single run in each."""
    by_step_1: Estimate
    """If step 2 were exact, and scores without noise."""
    by_step_2: Estimate
    """If the loss were known."""


@dataclass(frozen=True, eq=False)
class Downstream:
    """Both steps, fitted."""

    rows: Rows
    score: Floats
    """(n,) NaN where a row has none."""
    name: str
    """The column of the score."""
    top: float
    """The highest score that there is: 1, or 100 for percent."""
    fitted: Fitted
    """Its theta is the score at a high loss, k, L0 and the score at a low loss."""
    step_1: LawFit | None
    """None if the points have no sizes, or do not determine the law."""
    refused: str
    """Why there is no step 1; empty if there is one."""

    def at_loss(self, loss: float) -> Estimate:
        """Return the score of one run whose loss is known."""
        return _one(self._at_losses(np.array([loss])))

    def _at_losses(self, losses: Floats) -> Estimate:
        value = _sigmoid(losses, self.fitted.theta[None])[0]
        half = self.fitted.half(value, _sigmoid(losses, self.fitted.refits))
        return self._within(value, np.hypot(half, self._noise))

    def of_run(self, params: float, tokens: float) -> Chained:
        """Return the score of a run of N parameters and D tokens. Raises UserError if there is no step 1."""
        mean, losses = self._losses(np.array([params]), np.array([tokens]))
        assert self.step_1 is not None
        return self._chain(mean, losses, self.step_1.prediction(np.array([params]), np.array([tokens])))

    def of_budget(self, flops: float) -> tuple[float, float, Chained]:
        """Return N* and D* of a budget in FLOPs, and the score of a run of that size.

        Raises UserError if there is no step 1.
        """
        law, points = self._law(), self.rows.points
        best = law.optimum(flops, checks.price_of(points))
        return (
            float(best.params.value),
            float(best.tokens.value),
            self.of_run(float(best.params.value), float(best.tokens.value)),
        )

    def _of_points(self, points: Points) -> Chained:
        """Return the scores of points (n,), each as that of one new run."""
        mean, losses = self._losses(points.params, points.tokens)
        return self._chain(mean, losses, self._law().prediction(points.params, points.tokens))

    def _law(self) -> LawFit:
        if self.step_1 is None:
            raise UserError(f"no score for a size, because there is no law of the loss: {self.refused}")
        return self.step_1

    def _losses(self, params: Floats, tokens: Floats) -> tuple[Floats, Floats]:
        """Return the losses (n,) of step 1, and those of its refits (r, n), in the order of those of step 2."""
        fitted = self._law()
        theta = np.array(list(fitted.theta.values()))
        refits = fitted.left_one_out if fitted.n_units < FEW_UNITS else fitted.samples
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return fitted.law.loss(theta, params, tokens), fitted.law.loss(refits[:, None, :], params, tokens)

    def _chain(self, mean: Floats, losses: Floats, loss: Estimate) -> Chained:
        theta, refits, one = self.fitted.theta[None], self.fitted.refits, len(mean) == 1
        value = _sigmoid(mean, theta)[0]
        wider = max(self.fitted.widened, self._law().widened) / self.fitted.widened
        both, first = (wider * self.fitted.half(value, _sigmoid(losses, by)) for by in (refits, theta))
        second = self.fitted.half(value, _sigmoid(mean, refits))
        law = self._law()
        slope = np.abs(_slope(mean, self.fitted.theta))
        run = student(max(law.n_points - law.samples.shape[1], 1)) * law.residual * mean * slope
        chained = Chained(
            loss=loss,
            score=self._within(value, np.sqrt(both**2 + run**2 + self._noise**2)),
            by_step_1=self._within(value, np.hypot(first, run)),
            by_step_2=self._within(value, np.hypot(second, self._noise)),
        )
        return Chained(*(_one(part) for part in vars(chained).values())) if one else chained

    @property
    def _noise(self) -> float:
        """Half the interval of a single score around the curve."""
        return float(student(self.fitted.freedom)) * self.fitted.residual

    def _within(self, value: Floats, half: Floats) -> Estimate:
        return Estimate(value, np.clip(value - half, 0, self.top), np.clip(value + half, 0, self.top))


def _one(estimate: Estimate) -> Estimate:
    return Estimate(*(part[0] for part in estimate))


def _sigmoid(losses: Floats, theta: Floats) -> Floats:
    """Return the scores (batch, n) at losses (n,) or (batch, n)."""
    from scipy.special import expit

    floor, k, middle, top = (theta[:, i, None] for i in range(4))
    return np.asarray(top + (floor - top) * expit(k * (losses - middle)))


def _gradient(losses: Floats, theta: Floats) -> Floats:
    from scipy.special import expit

    floor, k, middle, top = (theta[:, i, None] for i in range(4))
    part = expit(k * (losses - middle))
    steep = (floor - top) * part * (1 - part)
    return np.stack([part, steep * (losses - middle), -steep * k, 1 - part], axis=-1)


def _slope(losses: Floats, theta: Floats) -> Floats:
    """Return the derivative (n,) of the score by the loss."""
    from scipy.special import expit

    part = expit(theta[1] * (losses - theta[2]))
    return np.asarray((theta[0] - theta[3]) * part * (1 - part) * theta[1])


def fit_downstream(
    rows: Rows,
    score: str,
    law: Law,
    delta: float | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
) -> tuple[Downstream, tuple[HeldOut, ...]]:
    """Fit both steps, and return them with their errors on the fifth of the runs with the most compute.

    The loss is that of the points; all of them are fitted in step 1, those with a score in step 2. Raises UserError if
    the scores are no shares or percent, if they do not vary or do not rise as the loss falls, or if they are too few.
    """
    values = rows.column(score)
    points = replace(rows.points, precision=None, optimizer=None, bits={}, unique_tokens=None)
    rows = replace(rows, points=points)
    top = _check(rows, values, score)
    fitted = _fit(rows, values, score, top, law, delta, bootstraps, seed)
    return fitted, _held_out(fitted, law, delta, bootstraps, seed)


def _fit(
    rows: Rows, values: Floats, score: str, top: float, law: Law, delta: float | None, bootstraps: int, seed: int
) -> Downstream:
    points = rows.points
    step_1, refused = _step_1(rows, law, delta, bootstraps, seed)
    draws = resampled(points.unit, bootstraps, seed)
    if step_1 is not None and step_1.drawn is not None and points.n_units >= FEW_UNITS:
        draws = draws[step_1.drawn]  # the same draws as those of step 1
    known = np.isfinite(values)
    x, y = points.loss[known], values[known]
    span = float(np.ptp(x))
    curve = Curve(
        _sigmoid,
        _gradient,
        np.array([0.0, 1e-3 / span, x.min() - REACH * span, 0.0]),
        np.array([top, MAX_SLOPE / span, x.max() + REACH * span, top]),
    )
    middles = x.min() + span * np.array([-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5])
    starts = [(y.min(), k / span, m, end) for k in SLOPES for m in middles for end in (y.max(), top)]
    fitted = fit_curve(
        curve, x, y, points.unit[known], np.array(starts), f"{NAME}, step 2,", draws[:, known], points.n_units
    )
    return Downstream(rows, values, score, top, fitted, step_1, refused)


def _step_1(rows: Rows, law: Law, delta: float | None, bootstraps: int, seed: int) -> tuple[LawFit | None, str]:
    """Return the law of the loss, or the reason why there is none."""
    if not rows.has_sizes or not rows.points.has_sizes:
        return None, "the table has no parameters and tokens."
    if reasons := checks.refusals(rows.points):
        return None, " ".join(reasons)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        fitted = fit_law(rows.points, law, delta, bootstraps, seed)
    return (fitted, "") if isinstance(fitted, LawFit) else (None, " ".join(fitted))


def _check(rows: Rows, values: Floats, score: str) -> float:
    """Return the highest score that there is. Raises UserError for scores that the curve cannot describe."""
    points, known = rows.points, np.isfinite(values)
    where = points.source.split(":")[0]
    if not known.any():
        raise UserError(f"no finished row of {where} has a number in '{score}'")
    if not higher_is_better(score) and column(score).better == "lower":
        raise UserError(
            f"lower {score} is better: {NAME} takes a score that rises as the loss falls; --law loss_to_loss"
        )
    low, high = float(values[known].min()), float(values[known].max())
    if low < 0 or high > 100:
        bad = int(np.flatnonzero(known)[np.argmin(values[known]) if low < 0 else np.argmax(values[known])])
        raise UserError(
            f"{points.name_of(bad)}: {score} is {values[bad]:g}; a score lies between 0 and 1, or 0 and 100 in percent"
        )
    if high - low <= 1e-12 * max(high, 1e-300):
        raise UserError(f"all rows have one {score}, {high:.4g}: there is nothing to fit")
    loss = points.loss[known]
    if np.ptp(loss) <= 1e-12 * loss.max():
        raise UserError(f"all rows with a {score} have one loss, {loss[0]:.4g}: there is nothing to fit")
    if np.corrcoef(loss, values[known])[0, 1] >= 0:
        raise UserError(f"{score} does not rise as the loss falls in these rows: {NAME} says nothing about them")
    return 1.0 if high <= 1 else 100.0


def _held_out(fit: Downstream, law: Law, delta: float | None, bootstraps: int, seed: int) -> tuple[HeldOut, ...]:
    """Return the error of each step and of both on the runs with the most compute, fitted to the others."""
    points = fit.rows.points
    if fit.step_1 is None:
        return ()
    known: Marks = np.isfinite(fit.score)
    held = largest(points)
    shared = np.isin(points.unit, points.unit[held])
    if shared.all() or not (held & known).any():
        return ()
    try:
        rest = _fit(fit.rows.where(~shared), fit.score[~shared], fit.name, fit.top, law, delta, bootstraps, seed)
    except UserError:
        return ()
    if rest.step_1 is None:
        return ()
    test = points.where(held & known)
    score = fit.score[held & known]
    chained = rest._of_points(test)
    chained = chained if len(test) > 1 else Chained(*(Estimate(*map(np.atleast_1d, e)) for e in vars(chained).values()))
    return (
        HeldOut.of("step 1: loss from size", test.loss, chained.loss, True),
        HeldOut.of("step 2: score from loss", score, rest._at_losses(test.loss), False),
        HeldOut.of("both: score from size", score, chained.score, False),
    )


def relation(
    fit: Downstream,
    errors: Sequence[HeldOut] = (),
    runs: Sequence[dict[str, float]] = (),
    budgets: Sequence[float] = (),
    seed: int = 0,
) -> Relation:
    """Return what a fit says, with the scores of `runs` (params and tokens, or loss) and of the best runs of budgets.

    Raises UserError for a run without these, and for a size if there is no step 1.
    """
    fitted = fit.fitted
    floor, k, middle, top = fitted.theta
    theta = {"a": float(floor - top), "k": float(k), "L0": float(middle), "b": float(top), "a + b": float(floor)}
    moved = {
        "a": fitted.refits[:, 0] - fitted.refits[:, 3],
        **{name: fitted.refits[:, i] for i, name in ((1, "k"), (2, "L0"), (3, "b"), (0, "a + b"))},
    }
    halves = {name: float(fitted.half(np.asarray(theta[name]), moved[name])) for name in theta}
    intervals = {name: (value - halves[name], value + halves[name]) for name, value in theta.items()}
    names = ("a + b", "k", "L0", "b")
    at_bound = tuple(name for name, bound in zip(names, fitted.at_bound, strict=True) if bound)
    formulas = [Formula(NAME, FORMULA, theta, intervals, fitted.residual, fit.name, at_bound)]
    if fit.step_1 is not None:
        law = fit.step_1
        formulas.insert(0, Formula(law.law.name, law.law.formula, law.theta, law.intervals, law.residual, "ln loss"))
    predictions = [one for run in runs for one in _predict(fit, run)]
    predictions += [one for flops in budgets for one in _predict_budget(fit, flops)]
    headline = [f"{fit.name} follows from the loss {_score(fitted.residual, fit)} off, root mean square."]
    headline += [
        f"Fitted to the smaller runs, the two steps predict the score of the {one.n_points} largest "
        f"{_score(one.mean_absolute_error, fit)} off on average."
        for one in errors[-1:]
    ]
    headline += [
        f"{one.run}: {fit.name} {_estimate(one.estimate, fit)}." for one in predictions if one.quantity == fit.name
    ]
    known = np.isfinite(fit.score)
    x = np.linspace(fit.rows.points.loss[known].min(), fit.rows.points.loss[known].max(), STEPS)
    measured = zip(fit.rows.points.loss[known], fit.score[known], strict=True)
    line = zip(x, _sigmoid(x, fitted.theta[None])[0], strict=True)
    return Relation(
        law=NAME,
        points=fit.rows.points,
        source=f"{fit.rows.points.source}; score = {fit.name}",
        method=f"{'jackknife' if fitted.n_units < FEW_UNITS else 'bootstrap'} over units, the same for both steps",
        seed=seed,
        formulas=tuple(formulas),
        headline=tuple(headline),
        errors=tuple(errors),
        predictions=tuple(predictions),
        pictures={
            NAME: Picture(
                f"{fit.name} against loss: measured (points) and by step 2 (line)",
                "loss",
                fit.name,
                tuple((float(a), float(b), "measured") for a, b in measured),
                tuple((float(a), float(b), "measured") for a, b in line),
            )
        },
        warnings=once(fit.rows.points.warnings, _warnings(fit, at_bound), () if errors else (NO_HELD_OUT,)),
        has_sizes=fit.rows.has_sizes,
    )


def _predict(fit: Downstream, run: dict[str, float]) -> list[Prediction]:
    words = ", ".join(f"{name}={value:g}" for name, value in run.items())
    if "loss" in run:
        return [Prediction(words, NAME, fit.name, fit.at_loss(run["loss"]))]
    if missing := [name for name in ("params", "tokens") if name not in run]:
        raise UserError(
            f"--predict {words}: the law {NAME} takes params= and tokens=, or loss=; {missing[0]}= is missing"
        )
    return _told(fit, words, fit.of_run(run["params"], run["tokens"]))


def _predict_budget(fit: Downstream, flops: float) -> list[Prediction]:
    params, tokens, chained = fit.of_budget(flops)
    return _told(fit, f"{flops_text(flops)} FLOPs: {si(params)} parameters, {si(tokens)} tokens", chained)


def _told(fit: Downstream, run: str, chained: Chained) -> list[Prediction]:
    law = fit._law().law.name
    return [
        Prediction(run, law, "loss", chained.loss),
        Prediction(run, f"{law}, {NAME}", fit.name, chained.score),
        Prediction(run, law, f"{fit.name}, error of step 1 alone", chained.by_step_1),
        Prediction(run, NAME, f"{fit.name}, error of step 2 alone", chained.by_step_2),
    ]


def _score(value: float, fit: Downstream) -> str:
    return f"{value:.4f}" if fit.top == 1 else f"{value:.2f}"


def _estimate(estimate: Estimate, fit: Downstream) -> str:
    return estimate_text(estimate, lambda value: _score(value, fit))


def _warnings(fit: Downstream, at_bound: Sequence[str]) -> list[str]:
    known = np.isfinite(fit.score)
    scores, theta = fit.score[known], fit.fitted.theta
    said = [*(fit.step_1.warnings if fit.step_1 else ()), *few_units(fit.fitted, f"{NAME}, step 2,")]
    if fit.refused:
        said.append(f"No law of the loss, so no score for a size: {fit.refused}")
    if not known.all():
        said.append(f"{int((~known).sum())} rows have no {fit.name}: they count in step 1 alone.")
    if fit.top == 100 and (scores <= 1).any():
        said.append(
            f"{fit.name} reaches {scores.max():g}, so all of it is read as percent; {int((scores <= 1).sum())} rows "
            "have 1 or less. If these are shares, the column mixes both."
        )
    if at_bound:
        said.append(
            f"{' and '.join(at_bound)} ended at the limit of what it may be, so these scores do not identify it. The "
            "intervals of the other numbers assume this value."
        )
    span = theta[3] - theta[0]
    part = float(np.ptp(scores) / span) if span > 0 else 1.0
    if part < 0.5:
        said.append(
            f"The scores cover {part:.0%} of the fitted curve, from {_score(scores.min(), fit)} to "
            f"{_score(scores.max(), fit)}: its ends are hardly known, and scores far from these are a guess."
        )
    return said

"""The functions that a claim's expression may call, a closed set: each makes one number of columns of rows.

A function gets its arguments as arrays, for the rows of its `where` alone. It returns NaN if no row is left, or too
few to say. Functions of a fitted law return an estimate that has its own interval.
"""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from lmexp.analysis.arrays import Floats, Marks
from lmexp.analysis.frontier import numbers
from lmexp.analysis.parabola import vertex
from lmexp.analysis.scaling.approaches import approach_1, approach_2, budget_groups
from lmexp.analysis.scaling.fit import fit_by_squares, fit_law, held_out
from lmexp.analysis.scaling.law_fit import LawFit
from lmexp.analysis.scaling.laws import CURVE_LAWS, Law
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.readers import points_of_frame
from lmexp.analysis.scaling.recounted import exponent_with
from lmexp.analysis.table import units_of
from lmexp.errors import UserError
from lmexp.papers import of_law
from lmexp.papers.evidence import Estimated, Evidence, Ints
from lmexp.papers.held_out import HeldOut, check, curves_held_out
from lmexp.papers.of_law import law_to_fit
from lmexp.papers.speedup import speedup

Kind = Literal["number", "column", "value", "condition", "word"]
"""What an argument is: one number, a column of numbers (n,), a column of anything as the numbers of its values (n,), a
truth for each row (n,), or a text in quotes."""
HUBER, SQUARES = "huber", "squares"
"""Objectives of a law's fit: Huber's loss of ln(predicted/measured), or squares of the loss itself."""
_FIT: Mapping[str, Kind] = {"delta": "number"}
_HELD_OUT: Mapping[str, Kind] = {"delta": "number", "objective": "word"}
_SERVING: Mapping[str, Kind] = {"loss": "number", "size": "number", "served": "number"}


@dataclass(frozen=True)
class Function:
    """One function of the grammar of claims."""

    signature: str
    """How it is written, as `mean(x)`."""
    meaning: str
    arguments: tuple[Kind, ...]
    compute: Callable[..., float | Estimated]
    of_rows: bool = False
    """Whether it takes the evidence, reduced to its rows, before its arguments."""
    jumps: bool = False
    """Whether a small change of the rows can change the result by a step, so that a jackknife does not apply."""
    options: Mapping[str, Kind] = field(default_factory=dict)
    """What it also takes, by name."""
    pairs: bool = False
    """Whether its last two arguments are the conditions of arms that it compares in pairs."""
    has_interval: bool = False
    """Whether it returns its own interval: it cannot then be part of a larger expression."""
    of_constants: Callable[..., Floats] | None = None
    """The same number of a law with published constants: of the law, a theta, the further arguments and options but
    `delta`. Numbers among them may be columns, and the result then has an entry for each row."""


def _mean(x: Floats) -> float:
    return float(np.nanmean(x)) if np.isfinite(x).any() else np.nan


def _sum(x: Floats) -> float:
    return float(np.nansum(x)) if np.isfinite(x).any() else np.nan


def _min(x: Floats) -> float:
    return float(np.nanmin(x)) if np.isfinite(x).any() else np.nan


def _max(x: Floats) -> float:
    return float(np.nanmax(x)) if np.isfinite(x).any() else np.nan


def _count(condition: Marks) -> float:
    return float(condition.sum())


def _slope(y: Floats, x: Floats) -> float:
    known = np.isfinite(x) & np.isfinite(y)
    if len(np.unique(x[known])) < 2:
        return np.nan
    off = x[known] - x[known].mean()
    return float((off * y[known]).sum() / (off**2).sum())


def _spearman(x: Floats, y: Floats) -> float:
    from scipy.stats import spearmanr

    at, means = _means(x, y)
    if len(at) < 3:
        return np.nan
    if np.ptp(means) == 0:
        raise UserError("all means of y are equal, so they have no order")
    return float(spearmanr(at, means).statistic)


def _spread(x: Floats, by: Ints) -> float:
    _, means = _means(by, x)
    return float((means.max() - means.min()) / means.min()) if len(means) > 1 else np.nan


def _argmin(x: Floats, y: Floats) -> float:
    at, means = _means(x, y)
    return float(at[means.argmin()]) if len(at) else np.nan


def _vertex(x: Floats, y: Floats) -> float:
    """Return the x at the vertex of a parabola of the means of y in log x; NaN with fewer than three values of x.

    Raises UserError without a minimum inside (analysis/parabola.py).
    """
    return vertex(*_means(np.where(x > 0, x, np.nan), y))


def paired(x: Floats, arm: Marks, base: Marks, setting: Ints) -> float:
    """Return the mean over pairs of the relative change of x: under `arm` against under `base`.

    A pair agrees in `setting`, the number of a row's values of the other axes. Several rows of an arm within one
    setting, such as milestones, count by their mean.
    """
    at_arm, of_arm = _means(setting[arm], x[arm])
    at_base, of_base = _means(setting[base], x[base])
    _, first, second = np.intersect1d(at_arm, at_base, assume_unique=True, return_indices=True)
    return float(np.mean(of_arm[first] / of_base[second] - 1)) if len(first) else np.nan


def _speedup(
    evidence: Evidence, arm: Marks, base: Marks, setting: Ints, cell: Ints, best: Floats | None = None
) -> float:
    tokens, loss = (numbers(evidence.table, name) for name in ("tokens", "loss"))
    return speedup(tokens, loss, arm, base, setting, cell, best)


def exponent(
    evidence: Evidence, approach: float, rows: Ints, params: Floats | None = None, flops: Floats | None = None
) -> float:
    """Return the exponent a of N* ~ C^a by approach 1 or 2 of Hoffmann et al. 2022, from rows at some positions.

    `params` and `flops` (n,), of all rows of the evidence, count size and compute otherwise.
    """
    if approach not in (1, 2):
        raise UserError(f"exponent({approach:g}): approach 1 is the envelope, 2 the parabolas; laws have exponent_of")
    if approach == 1:
        chosen = (None if each is None else each[rows] for each in (params, flops))
        envelope = approach_1(_points(evidence.at(rows), *chosen))
        result = envelope if isinstance(envelope, str) else envelope.line[0]
    else:
        points = _points(evidence, params, flops)
        result = exponent_with(points, _weights(evidence, points, rows), has_budgets=flops is None)
    if isinstance(result, str):
        raise UserError(f"approach {approach:g}: {result}")
    return result


def _weights(evidence: Evidence, points: Points, rows: Ints) -> Floats:
    """Return how often the unit of each point (n,) is among the rows at some positions, relative to all rows."""
    units = units_of(evidence.table).to_numpy(dtype=np.str_)
    names, number = np.unique(units, return_inverse=True)
    share = np.bincount(number[rows], minlength=len(names)) / np.bincount(number)
    place = np.searchsorted(names, points.unit)
    return np.asarray(share[np.minimum(place, len(names) - 1)])


def _vertices(evidence: Evidence) -> Estimated:
    """Return at how many budgets the parabola of the loss in ln N has its vertex among the sizes that were run.

    The interval counts the budgets at which the whole interval of the vertex lies among them, and all budgets.
    """
    points = _points(evidence)
    result = approach_2(points)
    if isinstance(result, str):
        raise UserError(f"approach 2: {result}")
    certain = sum(one.smallest < one.interval[0] and one.interval[1] < one.largest for one in result.parabolas)
    return Estimated(len(result.parabolas), certain, len(budget_groups(points)))


def _exponent_of(evidence: Evidence, law: str, delta: float | None = None) -> Estimated:
    return Estimated(*(float(part) for part in _fitted(evidence, law, delta).exponents()["a"]))


def _of_fit(number: Callable[..., Floats]) -> Callable[..., Estimated]:
    """Return the function of evidence that fits a law and estimates one of its numbers (of_law.py)."""

    def estimated(
        evidence: Evidence, law: str, *arguments: Any, delta: float | None = None, **options: Any
    ) -> Estimated:
        fitted = _fitted(evidence, law, delta)
        n = len(fitted.law.parameters)
        found = fitted.estimate(lambda theta: number(fitted.law, theta[..., :n], *arguments, **options))
        return Estimated(*(float(part) for part in found))

    return estimated


def _parameter(evidence: Evidence, law: str, name: str, delta: float | None = None) -> Estimated:
    fitted = _fitted(evidence, law, delta)
    if name not in fitted.theta:
        raise UserError(f"the law {law} has no parameter '{name}'; it has {', '.join(fitted.theta)}")
    return Estimated(fitted.theta[name], *fitted.intervals[name])


def _predict(evidence: Evidence, law: str, *inputs: float, delta: float | None = None) -> Estimated:
    """Return the law's loss, whose interval has the law's lack of fit beyond the rows."""
    points = _points(evidence, flops_alone=_is_of_flops(law_to_fit(law)))
    return Estimated(*(float(part) for part in held_out(_fitted(evidence, law, delta), points).loss(*inputs)))


def _holdout_error(
    evidence: Evidence, law: str, held: Marks, delta: float | None = None, objective: str = HUBER
) -> Estimated:
    """Return the mean relative error on held-out rows of the law that was fitted to the others."""
    if law in CURVE_LAWS or objective != HUBER:
        return _without_interval(
            np.mean([one.errors.mean() for one in _held_out(evidence, law, held, delta, objective)])
        )
    check("holdout_error", held)
    fitted = _fitted(evidence.at(np.flatnonzero(~held)), law, delta)
    off = fitted.mean_error(_points(evidence.at(np.flatnonzero(held)), flops_alone=_is_of_flops(fitted.law)))
    return Estimated(*(float(part) for part in off))


def _worst_error(
    evidence: Evidence, law: str, held: Marks, delta: float | None = None, objective: str = HUBER
) -> Estimated:
    return _without_interval(max(one.errors.max() for one in _held_out(evidence, law, held, delta, objective)))


def _r_squared(
    evidence: Evidence, law: str, held: Marks, delta: float | None = None, objective: str = HUBER
) -> Estimated:
    return _without_interval(np.mean([one.r_squared for one in _held_out(evidence, law, held, delta, objective)]))


def _held_out(evidence: Evidence, law: str, held: Marks, delta: float | None, objective: str) -> list[HeldOut]:
    """Return predicted and measured losses of held-out rows, or of each held-out curve."""
    check("the held-out rows", held)
    if law in CURVE_LAWS:
        return curves_held_out(evidence, held, delta)
    wanted = law_to_fit(law)
    rest, test = (evidence.at(np.flatnonzero(rows)) for rows in (~held, held))
    points = _points(test, flops_alone=_is_of_flops(wanted))
    if objective == HUBER:
        return [HeldOut(_fitted(rest, law, delta).fitted(points), points.loss)]
    if objective != SQUARES:
        raise UserError(f"objective='{objective}': choose '{HUBER}' or '{SQUARES}'")
    theta = fit_by_squares(_points(rest, flops_alone=_is_of_flops(wanted)), wanted)
    return [HeldOut(wanted.loss(theta, *map(points.column, wanted.inputs)), points.loss)]


def _without_interval(value: float | np.floating[Any]) -> Estimated:
    return Estimated(float(value), -np.inf, np.inf)


def _fitted(evidence: Evidence, law: str, delta: float | None = None) -> LawFit:
    """Return the fit of a law; `delta` is the threshold of Huber's loss [default: estimated from the residuals]."""
    points = _points(evidence, flops_alone=_is_of_flops(law_to_fit(law)))
    result = _fit_once(_Problem(law, delta, pickle.dumps(points), points))
    if isinstance(result, tuple):
        raise UserError(" ".join(result))
    return result


@dataclass(frozen=True)
class _Problem:
    """A law and the points that it is fitted to. Problems of equal content are equal."""

    law: str
    delta: float | None
    content: bytes
    points: Points = field(compare=False)


@lru_cache(maxsize=4)
def _fit_once(problem: _Problem) -> LawFit | tuple[str, ...]:
    """Return the fit of a law, which several claims of a paper are about."""
    return fit_law(problem.points, law_to_fit(problem.law), problem.delta)


def _is_of_flops(law: Law) -> bool:
    """Whether a law needs no parameters and no tokens."""
    return law.inputs == ("flops",)


def _points(
    evidence: Evidence, params: Floats | None = None, flops: Floats | None = None, *, flops_alone: bool = False
) -> Points:
    counts = {"params": params, "flops": flops}
    given = {f"{name} in other counts": values for name, values in counts.items() if values is not None}
    columns = {name.split()[0]: name for name in given} | {"unit": _UNIT}
    table = evidence.table.assign(**given, **{_UNIT: units_of(evidence.table).to_numpy()})
    plain = dict.fromkeys(("params", "tokens", "flops", "loss"), 1.0)  # their units are known
    return points_of_frame(table, columns, plain, evidence.source, flops_alone=flops_alone)


_UNIT = "unit that is resampled"


def _means(by: Floats | Ints, values: Floats) -> tuple[Floats, Floats]:
    """Return the distinct keys (k,), in rising order, and the mean of the known values (k,) of each."""
    known = np.isfinite(values) & np.isfinite(by)
    at, group = np.unique(np.asarray(by[known], dtype=np.float64), return_inverse=True)
    return at, np.bincount(group, values[known], len(at)) / np.bincount(group, minlength=len(at))


FUNCTIONS = {
    "mean": Function("mean(x)", "mean of a column", ("column",), _mean),
    "sum": Function("sum(x)", "sum of a column", ("column",), _sum),
    "min": Function("min(x)", "smallest value of a column", ("column",), _min, jumps=True),
    "max": Function("max(x)", "largest value of a column", ("column",), _max, jumps=True),
    "count": Function("count(condition)", "number of rows for which it is true", ("condition",), _count, jumps=True),
    "slope": Function("slope(y, x)", "slope of the least-squares line of y over x", ("column", "column"), _slope),
    "spearman": Function(
        "spearman(x, y)",
        "rank correlation of x with the mean of y at each x",
        ("column", "column"),
        _spearman,
        jumps=True,
    ),
    "spread": Function(
        "spread(x, by)",
        "difference between the largest and the smallest mean of x over the values of `by`, relative to the smallest",
        ("column", "value"),
        _spread,
    ),
    "argmin": Function(
        "argmin(x, y)", "the x at which the mean of y is lowest", ("column", "column"), _argmin, jumps=True
    ),
    "vertex": Function(
        "vertex(x, y)",
        "the x at the vertex of a parabola of the means of y in log x, near the lowest",
        ("column", "column"),
        _vertex,
    ),
    "paired": Function(
        "paired(x, arm, base)",
        "mean relative change of x, 0.01 for 1 %, from the rows of `base` to those of `arm` that agree in all axes but "
        "those that the two conditions name",
        ("column", "condition", "condition"),
        paired,
        pairs=True,
    ),
    "speedup": Function(
        "speedup(arm, base)",
        "how many times fewer tokens `arm` needs than `base` to reach the same loss, in pairs as in `paired`; "
        "`best=column` takes the value with the lowest loss for each arm, such as its best learning rate",
        ("condition", "condition"),
        _speedup,
        of_rows=True,
        options={"best": "column"},
        pairs=True,
    ),
    "exponent": Function(
        "exponent(approach)",
        "exponent a of the best size N* ~ C^a by approach 1 or 2; `params=` and `flops=` take columns that count "
        "size and compute otherwise",
        ("number",),
        exponent,
        of_rows=True,
        options={"params": "column", "flops": "column"},
    ),
    "vertices": Function(
        "vertices()",
        "number of budgets whose best size, by approach 2, lies among the sizes that were run",
        (),
        _vertices,
        of_rows=True,
        has_interval=True,
    ),
    "exponent_of": Function(
        "exponent_of('law')",
        "exponent a of a fitted law",
        ("word",),
        _exponent_of,
        of_rows=True,
        options=_FIT,
        has_interval=True,
        of_constants=of_law.exponent,
    ),
    "best_ratio": Function(
        "best_ratio('law', flops)",
        "tokens per parameter of the best size for a budget, by a fitted law",
        ("word", "number"),
        _of_fit(of_law.best_ratio),
        of_rows=True,
        options=_FIT,
        has_interval=True,
        of_constants=of_law.best_ratio,
    ),
    "parameter": Function(
        "parameter('law', 'name')",
        "a parameter of a fitted law",
        ("word", "word"),
        _parameter,
        of_rows=True,
        options=_FIT,
        has_interval=True,
        of_constants=of_law.parameter,
    ),
    "predict": Function(
        "predict('law', inputs...)",
        "loss that a fitted law gives for its inputs, as in predict('chinchilla', 1e9, 2e10)",
        ("word", "number"),
        _predict,
        of_rows=True,
        options=_FIT,
        has_interval=True,
        of_constants=of_law.loss,
    ),
    "cheapest": Function(
        "cheapest('law', 'what')",
        "`'params'`, `'tokens'` or `'flops'` of the model that reaches a loss at the fewest FLOPs, 6ND + 2NT; `loss=` "
        "is the loss, or `size=` stands for that of the best training of a size; `served=` is T, the tokens served",
        ("word", "word"),
        _of_fit(of_law.cheapest),
        of_rows=True,
        options={**_FIT, **_SERVING},
        has_interval=True,
        of_constants=of_law.cheapest,
    ),
    "cheapest_ratio": Function(
        "cheapest_ratio('law', 'what')",
        "the same, over that of the model of this loss that is cheapest to train; the FLOPs of both include serving",
        ("word", "word"),
        _of_fit(of_law.cheapest_ratio),
        of_rows=True,
        options={**_FIT, **_SERVING},
        has_interval=True,
        of_constants=of_law.cheapest_ratio,
    ),
    "holdout_error": Function(
        "holdout_error('law', condition)",
        "mean relative error of a law on the rows for which the condition is true, fitted to the others",
        ("word", "condition"),
        _holdout_error,
        of_rows=True,
        options=_HELD_OUT,
        has_interval=True,
    ),
    "worst_error": Function(
        "worst_error('law', condition)",
        "largest relative error on the same rows, without an interval",
        ("word", "condition"),
        _worst_error,
        of_rows=True,
        options=_HELD_OUT,
        has_interval=True,
    ),
    "r_squared": Function(
        "r_squared('law', condition)",
        "share of the variance of the losses on the same rows that is predicted, the mean over loss curves; without an "
        "interval",
        ("word", "condition"),
        _r_squared,
        of_rows=True,
        options=_HELD_OUT,
        has_interval=True,
    ),
}
"""By name. Each also takes `where=condition`, which keeps only the rows for which the condition is true."""
ELEMENTWISE: dict[str, Callable[[Any], Any]] = {
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "exp": np.exp,
    "abs": np.abs,
}
"""Functions of a number or of each number of a column."""

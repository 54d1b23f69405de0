"""How well a design would identify a law, before anything is spent, if the law and the noise were as assumed.

The answer is computed twice, by two independent methods:

- From the information: ln L = ln f(theta; N, D) + noise, so the covariance of theta is sd^2 (J'J)^-1 with the analytic
  Jacobian J of ln f, and the variance of any answer follows from its gradient. This takes milliseconds, and designs are
  compared by it.
- From rehearsals: losses are drawn from the law, and the real fit with its real bootstrap runs on them.

If the two differ, the design is so weak that the linear approximation of the first method fails, and the rehearsal is
right. The drawn losses never leave this file and never become records.

Rows of one unit share half of the variance of their noise, as milestones of one trunk share their data and seed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.checks import price_of, refusals, warnings
from lmexp.analysis.scaling.fit import fit_law
from lmexp.analysis.scaling.law_fit import LawFit
from lmexp.analysis.scaling.laws import DEFAULT_LAWS, PUBLISHED_LAWS, Form, Law, Price
from lmexp.analysis.scaling.points import Points
from lmexp.errors import UserError, nearest
from lmexp.runs.record import Row

Z = 1.959964
"""Half a 95 % interval in standard errors."""
SHARED = 0.5
"""Share of the noise's variance that rows of one unit have in common."""
STEP = 1e-5
"""Step of the central differences, in logs and exponents."""
MAX_LOG = 700.0
"""exp of a larger number overflows."""
REHEARSALS = 8
BOOTSTRAPS = 200
SPREAD = 10.0
"""The default target budget, as a multiple of the largest run."""
OPTIMA = ("params", "tokens", "loss")
"""The answers at the target budget: N*, D*, L*."""


@dataclass(frozen=True)
class Assumed:
    """The law and the noise that are assumed to be true."""

    law: Law
    theta: Floats
    noise: float
    """Standard deviation of ln L: the relative error of a loss."""
    source: str


class Width(NamedTuple):
    """How well one number would be known."""

    value: float
    """The assumed value."""
    low: float
    high: float
    """Ends of the 95 % interval, from the information."""
    rehearsed: float | None
    """Median width of the rehearsals' intervals, relative to this interval; None if no rehearsal was run or fitted."""
    covered: int | None
    """Number of rehearsals whose interval covered the assumed value."""


def assumed_law(text: str, noise: float) -> Assumed:
    """Read a law: the name of a published one, its constants, or a JSON file with a law's name and its theta.

    Raises UserError if the text is none of these, no law has these constants, or the noise is not between 0 and 1.
    """
    if not (np.isfinite(noise) and 0 < noise < 1):
        raise UserError(
            f"--noise {noise:g}: the relative standard deviation of a loss, above 0 and below 1, as in 0.01"
        )
    two = {name: known for name, known in PUBLISHED_LAWS.items() if known.law.has_optimum}
    if text in two:
        return Assumed(two[text].law, two[text].theta, noise, two[text].source)
    if "=" in text:
        return _of_constants(_pairs(text), noise, "as you say")
    if text.endswith(".json"):
        return _of_constants(_constants_in(Path(text)), noise, text)
    raise UserError(
        f"--law {text}: {', '.join(two)}, constants as in E=1.7,A=400,B=410,alpha=0.34,beta=0.28, or a .json of "
        f"`lmexp fit --json`.{nearest(text, two)}"
    )


def _pairs(text: str) -> dict[str, float]:
    constants = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            constants[name.strip()] = float(value)
        except ValueError:
            raise UserError(f"--law: '{part.strip()}' is no number under a name, as in alpha=0.34") from None
    return constants


def _constants_in(file: Path) -> dict[str, float]:
    """Return the constants in a JSON file: at its top level, under `theta`, or under `theta` in one of its `laws`."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--law {file}: not readable as JSON ({type(error).__name__})") from None
    laws = content.get("laws") if isinstance(content, dict) else None
    if isinstance(laws, dict):
        content = next((laws[law.name] for law in DEFAULT_LAWS if law.name in laws), {})
    elif isinstance(laws, list):
        content = next((one for one in laws if isinstance(one, dict) and "theta" in one), {})
    theta = content.get("theta", content) if isinstance(content, dict) else {}
    return {name: value for name, value in theta.items() if isinstance(value, int | float)}


def _of_constants(given: dict[str, float], noise: float, source: str) -> Assumed:
    for law in DEFAULT_LAWS:
        if set(law.parameters) == set(given):
            theta = np.array([float(given[name]) for name in law.parameters])
            form = law.form(theta)
            ok = np.isfinite(theta).all() and float(np.asarray(form.E)) >= 0
            if not ok or min(float(np.asarray(value)) for value in form[1:]) <= 0:
                raise UserError(f"--law: the constants of {law.name} must be above 0 (E may be 0)")
            return Assumed(law, theta, noise, source)
    known = "; ".join(f"{law.name} has {', '.join(law.parameters)}" for law in DEFAULT_LAWS)
    raise UserError(f"--law: no law has exactly {', '.join(given) or 'no constants'}: {known}")


def points_of_plan(rows: Sequence[Row], assumed: Assumed, name: str) -> Points:
    """Return the points that planned runs would give under the law, without noise; FLOPs are counted as in records.

    Each run is its own unit, and each of its milestones a point. Raises UserError if the length of a run is not known.
    """
    unknown = sum(row["train_flops"] is None for row in rows)
    if unknown:
        raise UserError(
            f"the tokens of {unknown} of {len(rows)} runs are not known: `lmexp plan {name} --measure` finds out how "
            "many fit into their time"
        )
    ends = [(unit, row, tokens) for unit, row in enumerate(rows) for tokens in row.get("milestones") or [row["tokens"]]]
    params = np.array([float(row["n_params"]) for _, row, _ in ends])
    tokens = np.array([float(tokens) for _, _, tokens in ends])
    # The FLOPs of a run with milestones are spent on all of its rows; each token of any run costs the same.
    flops = np.array([float(row["train_flops"]) * (tokens / row["tokens"]) for _, row, tokens in ends])
    return Points(
        params=params,
        tokens=tokens,
        flops=flops,
        loss=assumed.law.loss(assumed.theta, params, tokens),
        unit=np.array([unit for unit, _, _ in ends]).astype(str),
        source=name,
    )


def worse_than_uniform(points: Points, uniform: float) -> str | None:
    """Return a warning if the law predicts more than `uniform`, the loss of a uniform guess, for a run; else None."""
    worse = points.loss > uniform
    if not worse.any():
        return None
    runs = "all" if worse.all() else f"{int(worse.sum())} of {len(points)}"
    return (
        f"for {runs} planned runs the law predicts a loss worse than a uniform guess over the vocabulary (up to "
        f"{points.loss.max():.3g} nats, against {uniform:.3g}), because it was fitted to another text and tokenizer, "
        "or to larger runs: give the constants of a fit to runs like these, as in --law fit.json"
    )


def design_problems(points: Points) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the reasons why `fit` would refuse a law in N and D on these points, and the warnings it would give."""
    return refusals(points), warnings(points)


def jacobian(assumed: Assumed, points: Points) -> Floats:
    """Return d ln L / d coordinates (n, k), for the coordinates of `_coordinates`.

    With q = A N^-alpha, w = B D^-beta, R = q + w:  dL/dE = 1, dL/dlnA = gamma R^(gamma-1) q, dL/dalpha = -lnN of that,
    likewise B and beta with w and lnD, dL/dgamma = R^gamma ln R.
    """
    f = Form(*(np.asarray(value, dtype=np.float64) for value in assumed.law.form(assumed.theta)))
    q, w = f.A * points.params**-f.alpha, f.B * points.tokens**-f.beta
    r = q + w
    outer = f.gamma * r ** (f.gamma - 1)
    columns = {
        "E": np.ones(len(points)),
        "A": outer * q,
        "alpha": -outer * q * np.log(points.params),
        "B": outer * w,
        "beta": -outer * w * np.log(points.tokens),
        "gamma": r**f.gamma * np.log(r),
    }
    loss = f.E + r**f.gamma
    return np.stack([columns[name] / loss for name in assumed.law.free], axis=1)


def _coordinates(assumed: Assumed) -> Floats:
    """Return the law's free numbers (k,), with A and B as logarithms."""
    form = assumed.law.form(assumed.theta)._asdict()
    return np.array([float(np.log(form[n]) if n in "AB" else form[n]) for n in assumed.law.free])


def _at(assumed: Assumed, coordinates: Floats) -> Floats:
    """Return the theta (..., k) of coordinates (..., k)."""
    form = {name: np.asarray(value) for name, value in assumed.law.form(assumed.theta)._asdict().items()}
    for i, name in enumerate(assumed.law.free):
        form[name] = np.exp(coordinates[..., i]) if name in "AB" else coordinates[..., i]
    return assumed.law.theta(Form(**form))


def _answers(assumed: Assumed, coordinates: Floats, target: float, price: Price) -> Floats:
    """Return the logarithms of the law's parameters and of N*, D* and L* (..., k + 3); E is not in logs."""
    theta = _at(assumed, coordinates)
    best = assumed.law.optimum(theta, target, price)
    is_floor = np.array([name == "E" for name in assumed.law.parameters])
    with np.errstate(divide="ignore"):
        own = np.where(is_floor, theta, np.log(theta))
    return np.concatenate([own, np.log(np.stack(best, axis=-1))], axis=-1)


def gradients(assumed: Assumed, target: float, price: Price) -> Floats:
    """Return the gradients of the answers by the coordinates (answers, k), from central differences."""
    at = _coordinates(assumed)
    steps = STEP * np.eye(len(at))
    up, down = (_answers(assumed, at + sign * steps, target, price) for sign in (1, -1))
    return np.asarray((up - down).T / (2 * STEP))


def information(jac: Floats, unit: npt.NDArray[np.str_], noise: float) -> Floats:
    """Return the information matrix J' V^-1 J (k, k) of rows whose noise is shared within a unit, block by block."""
    total = np.zeros((jac.shape[1], jac.shape[1]))
    for name in np.unique(unit):
        rows = jac[unit == name]
        share = SHARED if len(rows) > 1 else 0.0
        noise_of_unit = (1 - share) * np.eye(len(rows)) + share
        total += rows.T @ np.linalg.solve(noise_of_unit, rows)
    return np.asarray(total / noise**2)


def standard_errors(info: Floats, grads: Floats) -> Floats:
    """Return the standard error of each answer (answers,); infinite if the design does not identify the law."""
    scale = np.sqrt(np.diag(info))
    if not (scale > 0).all() or np.linalg.cond(scaled := info / np.outer(scale, scale)) > 1e12:
        return np.full(len(grads), np.inf)
    solved = np.linalg.solve(scaled, (grads / scale).T)
    return np.sqrt(np.maximum(np.einsum("ak,ka->a", grads / scale, solved), 0.0))


def names_of(assumed: Assumed) -> list[str]:
    """Return the names of the answers, in the order of `gradients`."""
    return [*assumed.law.parameters, *OPTIMA]


def predict(points: Points, assumed: Assumed, target: float) -> dict[str, Width]:
    """Return how well each number would be known, from the information."""
    price = price_of(points)
    info = information(jacobian(assumed, points), points.unit, assumed.noise)
    errors = standard_errors(info, gradients(assumed, target, price))
    values = _answers(assumed, _coordinates(assumed), target, price)
    widths = {}
    for name, value, error in zip(names_of(assumed), values, errors, strict=True):
        low, middle, high = (
            float(end) if name == "E" else float(np.exp(min(end, MAX_LOG)))
            for end in (value - Z * error, value, value + Z * error)
        )
        low = max(low, 0.0)
        widths[name] = Width(middle, low, high, None, None)
    return widths


def rehearse(
    points: Points, assumed: Assumed, target: float, expected: dict[str, Width], seed: int = 0
) -> tuple[dict[str, Width], int]:
    """Run the real fit on drawn losses; return the widths with the results, and the number of rehearsals fitted.

    A rehearsal that the fit refuses is not counted.
    """
    random = np.random.default_rng(seed)
    truth = assumed.law.loss(assumed.theta, points.params, points.tokens)
    price = price_of(points)
    _, of_unit = np.unique(points.unit, return_inverse=True)
    alone = np.bincount(of_unit)[of_unit] == 1
    ratios: dict[str, list[float]] = {name: [] for name in expected}
    covered = dict.fromkeys(expected, 0)
    fitted = 0
    for _ in range(REHEARSALS):
        own, shared = random.normal(size=len(points)), random.normal(size=of_unit.max() + 1)[of_unit]
        error = np.where(alone, own, np.sqrt(1 - SHARED) * own + np.sqrt(SHARED) * shared)
        drawn = replace(points, loss=truth * np.exp(assumed.noise * error))
        law = fit_law(drawn, assumed.law, None, BOOTSTRAPS, seed)
        if not isinstance(law, LawFit):
            continue
        fitted += 1
        best = law.optimum(target, price)
        ends = dict(law.intervals) | {
            name: (float(np.asarray(estimate.low)), float(np.asarray(estimate.high)))
            for name, estimate in zip(OPTIMA, best, strict=True)
        }
        for name, width in expected.items():
            low, high = ends[name]
            covered[name] += low <= width.value <= high
            ratios[name].append((high - low) / (width.high - width.low))
    widths = {
        name: width._replace(rehearsed=float(np.median(ratios[name])), covered=covered[name]) if fitted else width
        for name, width in expected.items()
    }
    return widths, fitted

"""What rounding a model's weights after training does to its loss (Kumar et al. 2024, arXiv 2411.04330, section 3).

    delta = C_T D^gamma_D N^-gamma_N exp(-P/gamma_post)

delta is the rise of the loss in nats when the weights of a model of N parameters, trained on D tokens, are rounded to P
bits. Its logarithm is linear in ln D, ln N and P, so the fit is a linear regression with Huber's loss, by iteratively
reweighted least squares. A rise of 0 or below has no logarithm: such points are left out and counted, and as they are
the smallest ones, the exponents are too flat if they are many. Intervals come from refits to resampled runs, as those
of the other laws do (bootstrap.py).

The published constants are gamma_D = 0.5068, gamma_N = 0.3439 and gamma_post = 0.5907. Nobody has compared them with
the paper itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Floats
from lmexp.analysis.filters import matching
from lmexp.analysis.frontier import is_done
from lmexp.analysis.scaling.bootstrap import FEW_UNITS, Ints, drawn_units, margin, unit_indices, units_but_one
from lmexp.analysis.scaling.calibrate import FEW_SPARE, MIN_SPARE
from lmexp.analysis.scaling.effective import Run
from lmexp.analysis.scaling.law_fit import Estimate
from lmexp.analysis.scaling.laws import DAMAGE
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.precision import bits_of
from lmexp.analysis.scaling.readers import headings_of, points_of_frame, rows_of_table
from lmexp.analysis.table import Study
from lmexp.config.scoring import FLOATS, INTEGERS
from lmexp.errors import UserError, nearest

NAME = DAMAGE
FORMULA = "delta = C_T D^gamma_D N^-gamma_N exp(-P/gamma_post)"
PARAMETERS = ("gamma_D", "gamma_N", "gamma_post")
"""Those beside C_T, in the order of the columns of the regression."""
WHAT = {"gamma_D": "number of tokens", "gamma_N": "number of parameters", "gamma_post": "number of bits"}
DAMAGES = ("damage", "delta", "delta_loss", "degradation")
"""Usual names of the column with the rise of the loss."""
WIDTHS = ("bits", "precision", "post_bits", "post_precision")
"""Usual names of the column with the bits that the weights are rounded to."""
ROBUST = 1.345 * 1.4826
"""Threshold of Huber's loss over the median absolute residual, as for the other laws."""
MAX_CONDITION = 1e6
"""Limit of the condition number of the regression's scaled columns."""
ITERATIONS = 100


@dataclass(frozen=True, eq=False)
class DamageFit:
    """The law of damage, fitted."""

    points: Points
    """Their `loss` is the damage."""
    bits: Floats
    """(n,) the bits of each point."""
    theta: dict[str, float]
    """C_T and the constants that the points identify; without one, C_T includes what that one would do."""
    intervals: dict[str, tuple[float, float]]
    """95 % confidence interval of each."""
    delta: float
    """Where Huber's loss of ln(predicted/measured) turns from a square into a line."""
    residual: float
    """Standard deviation of ln(predicted/measured), corrected for the number of parameters."""
    solution: Floats
    """(k,) the regression's own numbers: the logarithm of the damage at the centre, then the slopes."""
    refits: Floats
    """(r, k) the same of the refits to resampled runs."""
    warnings: tuple[str, ...] = ()

    def damage(self, params: float, tokens: float, bits: float | None = None) -> Estimate:
        """Return the mean damage at N, D and P [default: that of the points, if they have one].

        Raises UserError if the points have several numbers of bits and none is given, or for another one than theirs
        if gamma_post is not among the parameters.
        """
        known = np.unique(self.bits)
        if bits is None and len(known) > 1:
            raise UserError("the damage depends on the bits: add precision=int4, or another type")
        if bits is not None and len(known) == 1 and bits != known[0]:
            raise UserError(f"all points have {known[0]:g} bits, so they say nothing about {bits:g}")
        at = {
            "gamma_D": np.log(tokens),
            "gamma_N": -np.log(params),
            "gamma_post": -(known[0] if bits is None else bits),
        }
        row = _row(at, _columns(self.points, self.bits), [name for name in PARAMETERS if name in self.theta])
        value = float(row @ self.solution)
        half = float(margin(np.asarray(value), self.refits @ row, self.points.n_units))
        return Estimate(np.exp(value), np.exp(value - half), np.exp(value + half))

    def of_run(self, run: Run) -> Estimate:
        """Return the mean damage of a run of which `params`, `tokens` and maybe `precision` are known.

        Raises UserError if another quantity is given, or one of these is missing.
        """
        if strange := next((name for name in run if name not in ("params", "tokens", "precision")), None):
            raise UserError(f"--predict {strange}=: the law {NAME} takes params, tokens and precision")
        if missing := next((name for name in ("params", "tokens") if name not in run), None):
            raise UserError(f"--predict: the law {NAME} takes params= and tokens=, and {missing}= is missing")
        bits = float(_bits_of_names([str(run["precision"])], "--predict")[0]) if "precision" in run else None
        return self.damage(float(run["params"]), float(run["tokens"]), bits)


def damage_of_csv(file: Path, columns: Mapping[str, str] | None = None, where: str | None = None) -> Points:
    """Return the points of a file as damage_of_frame does; `where` keeps the rows for which it is true (filters.py).

    Raises UserError if it cannot be read as one, or if no row is kept.
    """
    frame, lines = rows_of_table(file, where)
    if frame.empty:
        raise UserError(f"{file} has no rows")
    return damage_of_frame(frame, columns, str(file), lines)


def damage_of_frame(
    frame: pd.DataFrame,
    columns: Mapping[str, str] | None = None,
    source: str = "the table",
    lines: Ints | None = None,
) -> Points:
    """Return the points of a table with parameters, tokens, bits and damage; the points' `loss` is the damage.

    `columns` maps params, tokens, loss (the damage) and unit to column names. Bits are numbers or names of types, as in
    int4. Rows whose damage is not above 0 are left out and counted. Raises UserError as points_of_frame does.
    """
    columns, headings = dict(columns or {}), headings_of(frame)
    lines = np.arange(len(frame)) + 1 if lines is None else lines
    damage = columns.pop("loss", None) or next((headings[name] for name in DAMAGES if name in headings), None)
    width = next((headings[name] for name in WIDTHS if name in headings), None)
    if damage is None or damage not in frame:
        near = nearest(damage or DAMAGES[0], map(str, frame.columns))
        raise UserError(f"{source} has no column '{damage or DAMAGES[0]}' with the rise of the loss.{near}")
    if width is None:
        raise UserError(f"{source} has no column 'bits' with the bits that the weights are rounded to")
    rises = pd.to_numeric(frame[damage], errors="coerce")
    # Rows without a number are kept: the reader of points leaves them out, or refuses them with their line.
    above = ~(rises <= 0).to_numpy(dtype=bool, na_value=False)
    if not above.any():
        raise UserError(f"{source}: no damage is above 0, so there is nothing to fit")
    renamed = frame[above].drop(columns=[width]).assign(precision=frame[width][above])
    plain = dict.fromkeys(("params", "tokens", "flops", "loss"), 1.0)  # the usual questions are about losses
    points = points_of_frame(renamed, columns | {"loss": str(damage)}, plain, source, lines[above])
    if points.precision is None:
        points = replace(points, precision=np.full(len(points), str(renamed["precision"].iloc[0])))
    left = int((~above).sum())
    return replace(points, left_out=points.left_out | ({"damage of 0 or below": left} if left else {}))


def damage_of_study(study: Study, columns: Mapping[str, str] | None = None, where: str | None = None) -> Points:
    """Return a point for each finished run and each precision that `lmexp eval --precision` scored it in.

    `where` keeps the points for which it is true (filters.py); `precision` is there what the weights were rounded to.
    Raises UserError if no run has such a score, or if no loss has risen.
    """
    table = study.table[is_done(study.table)]
    parts = []
    for precision in (*FLOATS, *INTEGERS):
        for task in table["task"].dropna().unique():
            score = f"score/{task}-{precision}/loss"
            if score in table:
                scored = table[(table["task"] == task) & table[score].notna()]
                parts.append(scored.assign(precision=precision, damage=scored[score] - scored["loss"]))
    if not parts:
        raise UserError(f"{study.name}: no run has a score in another precision: lmexp eval RUN --precision int4")
    frame = pd.concat(parts, ignore_index=True)
    if where is not None:
        frame = frame[matching(frame, where)].reset_index(drop=True)
    if frame.empty:
        raise UserError(f"no score of {study.name} meets --where {where}")
    return damage_of_frame(frame, dict(columns or {}) | {"loss": "damage"}, study.name)


def fit_damage(points: Points, delta: float | None = None, bootstraps: int = 1000, seed: int = 0) -> DamageFit:
    """Fit the law to points whose `loss` is the damage.

    A constant whose column does not vary is left out, with a warning. `delta` is the threshold of Huber's loss
    [default: 1.345 robust standard deviations of the residuals; least squares for few runs]. Raises UserError if the
    points are too few, if they do not determine the law, or if the damage does not fall with more bits.
    """
    assert points.precision is not None
    bits = _widths(points)
    columns = _columns(points, bits)
    free = [name for name in PARAMETERS if np.ptp(columns[name]) > 0]
    k, n_units = 1 + len(free), points.n_units
    if n_units < k + MIN_SPARE:
        raise UserError(f"{NAME} has {k} numbers to find, and {n_units} runs are too few: it takes {k + MIN_SPARE}")
    design = np.stack([np.ones(len(points)), *(columns[name] - columns[name].mean() for name in free)], axis=1)
    if not np.linalg.cond(design / np.linalg.norm(design, axis=0)) < MAX_CONDITION:
        raise UserError(f"{NAME} is not determined by these points: vary parameters, tokens and bits independently")
    target, even = np.log(points.loss), np.ones((1, len(points)))
    if delta is None:
        off = target - design @ _regress(design, target, even, np.inf)[0]
        spread = float(np.median(np.abs(off - np.median(off))))
        delta = ROBUST * spread if n_units > k + FEW_SPARE and spread > 1e-12 else np.inf
    solution = _regress(design, target, even, delta)[0]
    if "gamma_post" in free and solution[-1] <= 0:
        raise UserError(f"the damage does not fall with more bits: {NAME} says nothing about these points")
    refits = _regress(design, target, _resampled(points, bootstraps, seed), delta)
    off = target - design @ solution
    at_one = _row(dict.fromkeys(PARAMETERS, 0.0), columns, free)  # with D = N = 1 and P = 0, the damage is C_T
    level = float(at_one @ solution)
    half = float(margin(np.asarray(level), refits @ at_one, n_units))
    theta = {"C_T": float(np.exp(level))}
    intervals = {"C_T": (float(np.exp(level - half)), float(np.exp(level + half)))}
    for name, slope, wide in zip(free, solution[1:], margin(solution, refits, n_units)[1:], strict=True):
        low, high = float(slope - wide), float(slope + wide)
        theta[name] = float(1 / slope if name == "gamma_post" else slope)
        intervals[name] = (1 / high, 1 / low if low > 0 else np.inf) if name == "gamma_post" else (low, high)
    return DamageFit(
        points=points,
        bits=bits,
        theta=theta,
        intervals=intervals,
        delta=delta,
        residual=float(np.sqrt((off**2).sum() / max(len(points) - k, 1))),
        solution=solution,
        refits=refits,
        warnings=(*points.warnings, *_warnings(points, bits, free)),
    )


def _columns(points: Points, bits: Floats) -> dict[str, Floats]:
    """Return the column (n,) of each constant: ln delta rises by the constant times it, and by 1/gamma_post."""
    return {"gamma_D": np.log(points.tokens), "gamma_N": -np.log(points.params), "gamma_post": -bits}


def _row(at: Mapping[str, float], columns: Mapping[str, Floats], free: Sequence[str]) -> Floats:
    """Return the regression's row (k,) at some values of the columns, which are centred as those of the points."""
    return np.array([1.0, *(at[name] - columns[name].mean() for name in free)])


def _widths(points: Points) -> Floats:
    """Return the bits of each point (n,). Raises UserError for a precision that is neither a number nor a type."""
    assert points.precision is not None
    names, place = np.unique(points.precision, return_inverse=True)
    return _bits_of_names([str(name) for name in names], points.source)[place.reshape(-1)]


def _bits_of_names(names: Sequence[str], source: str) -> Floats:
    """Return the bits of precisions that are written as a number or as a type. Raises UserError for others."""
    widths = []
    for name, of_type in zip(names, bits_of(names), strict=True):
        try:
            widths.append(float(name) if of_type is None else float(of_type))
        except ValueError:
            raise UserError(f"{source}: '{name}' is no number of bits and no type such as int4") from None
    return np.array(widths)


def _regress(design: Floats, target: Floats, weights: Floats, delta: float) -> Floats:
    """Return the regressions (batch, k) that minimise Huber's loss of the residuals, weights (batch, n).

    Reweighted least squares: beyond delta, a residual counts with the weight delta/|r| (Huber 1981, section 7.8).
    """
    scale = np.ones_like(weights)
    solution = np.zeros((len(weights), design.shape[1]))
    for _ in range(ITERATIONS):
        weighted = weights * scale
        gram = np.einsum("bn,nk,nl->bkl", weighted, design, design)
        moment = np.einsum("bn,nk,n->bk", weighted, design, target)
        last, solution = solution, np.einsum("bkl,bl->bk", np.linalg.pinv(gram, hermitian=True), moment)
        if np.isinf(delta) or np.abs(solution - last).max() < 1e-12 * (1 + np.abs(solution).max()):
            break
        off = np.abs(target - solution @ design.T)
        scale = np.minimum(1.0, delta / np.maximum(off, 1e-300))
    return solution


def _resampled(points: Points, bootstraps: int, seed: int) -> Floats:
    """Return the weights (r, n) of the refits: without each run in turn or, with 100 runs or more, drawn runs."""
    of_unit = unit_indices(points.unit)
    if points.n_units < FEW_UNITS:
        return units_but_one(of_unit)
    return np.concatenate(list(drawn_units(of_unit, bootstraps, seed)))


def _warnings(points: Points, bits: Floats, free: list[str]) -> tuple[str, ...]:
    """Return warnings about what these points do not identify."""
    said = [
        f"All points have one {WHAT[name]}, so {name} is not identified: C_T includes what it would do."
        for name in PARAMETERS
        if name not in free
    ]
    if len(np.unique(bits)) == 2:
        said.append("Two numbers of bits give a gamma_post, but no test of whether the damage falls exponentially.")
    if left := points.left_out.get("damage of 0 or below"):
        said.append(
            f"Left out because a damage of 0 or below has no logarithm: {left}. If such points are many, the damage of "
            "others with as many bits is overestimated: fit those with fewer bits alone."
        )
    return tuple(said)

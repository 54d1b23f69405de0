"""How the best learning rate or batch size changes with size and tokens: a power law through the best of each group.

    x* = c N^a D^b      (Step Law, Li et al. 2025, arXiv 2503.04715)
    x* = c C^a          (DeepSeek LLM, Bi et al. 2024, arXiv 2401.02954, section 3.1)

A group is the runs of one size and one number of tokens. Its best value is the vertex of a parabola of the mean losses
in ln x (analysis/parabola.py). The laws are least squares of ln x* over the groups, each with the same weight.

Intervals have two parts. The noise of runs moves every vertex: its standard deviation is that of repeated seeds if
there are any, else that of the losses around the parabolas, and the vertices are computed again from losses drawn with
it. Drawing the runs themselves would halve the variance of two seeds. Where the groups lie further from the law than
that noise explains, the groups themselves are the sample: the spread is widened to what they show, with Student's t for
as few groups as there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmexp.analysis.arrays import Floats, Marks
from lmexp.analysis.parabola import vertex, window
from lmexp.analysis.quantiles import student
from lmexp.analysis.scaling.bootstrap import ONE_DEVIATION
from lmexp.analysis.scaling.checks import size_of
from lmexp.analysis.scaling.law_fit import Estimate
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.relations.relation import Formula, Listed, Picture, Prediction, Relation, once
from lmexp.analysis.scaling.relations.rows import Rows, known_only
from lmexp.analysis.scaling.words import estimate_text, number
from lmexp.config.step_law import step_law_batch, step_law_rate
from lmexp.errors import UserError
from lmexp.units import flops_text, si

LEARNING_RATE, BATCH_SIZE = "learning_rate", "batch_size"
USUAL = {
    LEARNING_RATE: ("optim.lr", "lr", "learning_rate", "max_lr", "peak_lr"),
    BATCH_SIZE: ("batch_tokens", "batch.tokens", "tokens_per_step", "batch_size", "global_batch_size", "bs"),
}
"""Usual names of the column of each, in upper or lower case."""
OTHER = {LEARNING_RATE: BATCH_SIZE, BATCH_SIZE: LEARNING_RATE}
SYMBOL = {LEARNING_RATE: "lr*", BATCH_SIZE: "B*"}
TITLE = {LEARNING_RATE: "learning rate", BATCH_SIZE: "batch size"}
UNIT = {LEARNING_RATE: "", BATCH_SIZE: " tokens"}
OF_SIZE, OF_COMPUTE = "of size and tokens", "of compute"
STEP_LAW = "Step Law"
FEW_GROUPS = 3
MAX_CONDITION = 100.0
"""Limit of the condition number of the scaled columns: above it, N and D vary together and their exponents are one."""
STEPS = 30


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one size and one number of tokens."""

    params: float
    tokens: float
    flops: float
    rows: Marks
    """(n,) which of the points are its runs."""
    values: Floats
    """(m,) the values that were tried, rising."""
    means: Floats
    """(m,) the mean loss at each."""
    counts: Floats
    """(m,) the number of runs at each."""
    near: slice
    """Those that the parabola goes through."""
    best: float
    """The vertex."""

    @property
    def name(self) -> str:
        """What a reader calls the group."""
        return f"{si(self.params)} parameters, {si(self.tokens)} tokens"


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """One power law through the groups' best values."""

    form: str
    """OF_SIZE or OF_COMPUTE."""
    names: tuple[str, ...]
    """The exponents' names, and the number that each is of: `a` of N, `b` of D."""
    variables: tuple[str, ...]
    """`params`, `tokens` or `flops`, one for each exponent."""
    solution: Floats
    """(k,) ln x* at the centre of the groups, then the exponents."""
    centre: Floats
    """(k - 1,) the mean logarithm of each variable over the groups."""
    draws: Floats
    """(r, k) the solutions for vertices with the noise of runs; none if that is unknown."""
    covariance: Floats
    """(k, k) (X'X)^-1 of the regression."""
    widened: float
    """Factor on the spread of the draws, because the groups lie further from the law than runs scatter."""
    freedom: float
    """Degrees of freedom of the intervals; 0 if nothing is known of the noise."""
    residual: float
    """Standard deviation of ln x* around the law, corrected for the number of parameters; NaN without a spare group."""
    own: float
    """Standard deviation of a group's ln x* around the law beyond the noise of runs."""

    def at(self, sizes: Mapping[str, float], single: bool = True) -> Estimate:
        """Return the best value at params, tokens and flops; with `single`, for one group, else the mean of many."""
        row = np.array([1.0, *(np.log(sizes[name]) - c for name, c in zip(self.variables, self.centre, strict=True))])
        value, half = float(row @ self.solution), self.half(row)
        if single and self.own > 0:
            half = float(np.hypot(half, student(self.freedom) * self.own))
        return Estimate(np.exp(np.asarray(value)), np.exp(np.asarray(value - half)), np.exp(np.asarray(value + half)))

    def half(self, row: Floats) -> float:
        """Return half the width of the 95 % interval of a row (k,) times the solution."""
        if not self.freedom:
            return np.inf
        if len(self.draws):
            low, high = np.quantile(self.draws @ row, [(1 - ONE_DEVIATION) / 2, (1 + ONE_DEVIATION) / 2])
            deviation = float(high - low) / 2 * self.widened
        else:
            deviation = self.residual * float(np.sqrt(row @ self.covariance @ row))
        return float(student(self.freedom)) * deviation


@dataclass(frozen=True, eq=False)
class BestValues:
    """The best values of a study, and the laws through them."""

    law: str
    column: str
    rows: Rows
    groups: tuple[Group, ...]
    noise: float
    """Standard deviation of a run's loss in nats; NaN if nothing tells it."""
    noise_freedom: int
    vertices: Floats
    """(r, groups) ln x* of each group with the noise of runs; none if that is unknown."""
    laws: tuple[PowerLaw, ...]
    warnings: tuple[str, ...]
    bootstraps: int
    seed: int


def fit_best_values(
    law: str, rows: Rows, column: str | None = None, bootstraps: int = 1000, seed: int = 0
) -> BestValues:
    """Fit the laws of the best learning rate or batch size to the losses of runs that differ in it.

    `column` holds the rates or batch sizes [default: a usual name]. Raises UserError if there is none, if they are not
    above 0 or do not vary, or if fewer than two groups have their best value inside their grid.
    """
    name = column or rows.first(USUAL[law])
    if name is None:
        raise UserError(
            f"{rows.points.source.split(':')[0]} has no column with the {TITLE[law]}: name it with --tuned"
            + (". Of a sweep, it is an axis, such as optim.lr=1e-3,2e-3,4e-3" if law == LEARNING_RATE else "")
        )
    rows, values = known_only(rows, name)
    points = rows.points
    if (values <= 0).any():
        raise UserError(f"{points.name_of(int(np.argmin(values)))}: {name} is {values.min():g}; it must be above 0")
    if len(np.unique(values)) == 1:
        raise UserError(f"all rows have one {name}, {values[0]:g}: a best value takes runs with several")
    other = rows.first(USUAL[OTHER[law]])
    second = np.nan_to_num(rows.column(other), nan=-1.0) if other else np.zeros(len(points))
    groups, refused = _groups(points, values, second)
    if len(groups) < 2:
        alone = f" The one best {TITLE[law]} is {number(groups[0].best)}, at {groups[0].name}." if groups else ""
        raise UserError(
            f"a law of the best {TITLE[law]} takes two groups of one size and one number of tokens at least, and of "
            f"{len(groups) + len(refused)} {len(groups)} has its best value inside its grid. {' '.join(refused)}{alone}"
        )
    noise, freedom = _noise(points, values, second, groups)
    vertices = _drawn_vertices(groups, noise, bootstraps, seed)
    laws = tuple(_power_laws(groups, vertices, freedom))
    warnings = once(
        points.warnings,
        refused,
        _warnings(law, name, rows, groups, laws, freedom),
        _profiled(law, second, groups, other),
    )
    return BestValues(law, name, rows, tuple(groups), noise, freedom, vertices, laws, warnings, bootstraps, seed)


def _groups(points: Points, values: Floats, second: Floats) -> tuple[list[Group], list[str]]:
    """Return the groups with a best value inside their grid, and why each of the others has none.

    If `second`, the other of the two numbers, varies in a group, each value counts with the best of it.
    """
    groups, refused = [], []
    sizes, amounts = size_of(points.params), size_of(points.tokens)
    for size in np.unique(sizes):
        for amount in np.unique(amounts[sizes == size]):
            rows = (sizes == size) & (amounts == amount)
            at, means, counts = _means(values[rows], second[rows], points.loss[rows])
            n, d, c = (float(np.median(column[rows])) for column in (points.params, points.tokens, points.flops))
            name = f"{si(n)} parameters, {si(d)} tokens"
            if len(at) < 3:
                refused.append(f"Left out: {name}, with {len(at)} values: a parabola takes three.")
                continue
            try:
                best, near = vertex(at, means), window(at, means)
            except UserError as error:
                refused.append(f"Left out: {name}: {error}.")
                continue
            groups.append(Group(n, d, c, rows, at, means, counts, near, best))
    return groups, refused


def _means(values: Floats, second: Floats, losses: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the rising values, and the lowest mean loss at each over the values of `second`, with its runs' number."""
    at = np.unique(values)
    means, counts = np.full(len(at), np.inf), np.zeros(len(at))
    for i, value in enumerate(at):
        for other in np.unique(second[values == value]):
            here = losses[(values == value) & (second == other)]
            if here.mean() < means[i]:
                means[i], counts[i] = here.mean(), len(here)
    return at, means, counts


def _noise(points: Points, values: Floats, second: Floats, groups: Sequence[Group]) -> tuple[float, int]:
    """Return the standard deviation of a run's loss and its degrees of freedom: of seeds, or around the parabolas."""
    cells = np.unique(
        np.stack([size_of(points.params), size_of(points.tokens), values, second]), axis=1, return_inverse=True
    )[1].reshape(-1)
    counts = np.bincount(cells)
    off = points.loss - (np.bincount(cells, points.loss) / counts)[cells]
    # Beside the best values alone: a run that nearly diverged says nothing about the noise near the minimum.
    kept = np.zeros(len(points), dtype=bool)
    for group in groups:
        tried = group.values[group.near]
        kept |= group.rows & (values >= tried[0]) & (values <= tried[-1])
    freedom = int(kept.sum() - len(np.unique(cells[kept])))
    if freedom:
        return float(np.sqrt((off[kept] ** 2).sum() / freedom)), freedom
    squares = 0.0
    for group in groups:
        logs, means = np.log(group.values[group.near]), group.means[group.near]
        squares += float(((means - np.polyval(np.polyfit(logs, means, 2), logs)) ** 2 * group.counts[group.near]).sum())
        freedom += len(logs) - 3
    return (float(np.sqrt(squares / freedom)), freedom) if freedom else (np.nan, 0)


def _drawn_vertices(groups: Sequence[Group], noise: float, count: int, seed: int) -> Floats:
    """Return ln x* (count, groups) of losses on the parabolas with the noise of runs; none if it is unknown."""
    if np.isnan(noise):
        return np.empty((0, len(groups)))
    draws = np.random.default_rng(seed)
    columns = []
    for group in groups:
        logs = np.log(group.values[group.near])
        centre = logs.mean()
        design = np.stack([np.ones_like(logs), logs - centre, (logs - centre) ** 2], axis=1)
        smooth = design @ np.linalg.lstsq(design, group.means[group.near], rcond=None)[0]
        spread = noise / np.sqrt(group.counts[group.near])
        losses = smooth + spread * draws.standard_normal((count, len(logs)))
        _, line, square = (losses @ np.linalg.pinv(design).T).T
        with np.errstate(divide="ignore", invalid="ignore"):
            at = np.where(square > 0, centre - line / (2 * square), np.where(line > 0, -np.inf, np.inf))
        columns.append(np.clip(at, np.log(group.values[0]), np.log(group.values[-1])))
    return np.stack(columns, axis=1)


def _power_laws(groups: Sequence[Group], vertices: Floats, freedom: int) -> list[PowerLaw]:
    """Return the law in size and tokens, as far as both vary independently, and that in compute."""
    logs = {name: np.log([getattr(group, name) for group in groups]) for name in ("params", "tokens", "flops")}
    vary = [name for name in ("params", "tokens") if np.ptp(logs[name]) > 0.1]
    laws = []
    if len(vary) < 2 or (len(groups) > 2 and _condition([logs[name] for name in vary]) < MAX_CONDITION):
        laws.append(_power_law(OF_SIZE, vary, groups, logs, vertices, freedom))
    if len(vary) == 2:
        laws.append(_power_law(OF_COMPUTE, ["flops"], groups, logs, vertices, freedom))
    return laws


def _condition(columns: Sequence[Floats]) -> float:
    design = np.stack([(column - column.mean()) / column.std() for column in columns], axis=1)
    return float(np.linalg.cond(design))


def _power_law(
    form: str,
    variables: Sequence[str],
    groups: Sequence[Group],
    logs: dict[str, Floats],
    vertices: Floats,
    freedom: int,
) -> PowerLaw:
    """Return the least squares of ln x* on some logarithms, with what its intervals follow from."""
    centre = np.array([logs[name].mean() for name in variables])
    design = np.stack([np.ones(len(groups)), *(logs[n] - c for n, c in zip(variables, centre, strict=True))], axis=1)
    inverse, best = np.linalg.pinv(design), np.log([group.best for group in groups])
    solution = inverse @ best
    spare = len(groups) - design.shape[1]
    residual = float(np.sqrt(((best - design @ solution) ** 2).sum() / spare)) if spare else np.nan
    draws = vertices @ inverse.T
    expected = np.nan
    if len(draws) and spare:
        off = vertices - vertices.mean(axis=0)
        expected = float(np.sqrt((((off - off @ inverse.T @ design.T) ** 2).sum(axis=1) / spare).mean()))
    further = bool(spare) and bool(residual > expected)
    if len(draws):
        widened, known = (residual / expected, spare) if further else (1.0, freedom)
    else:
        widened, known = 1.0, spare
    names = ("a", "b") if len(variables) == 2 else ("a",) if variables[0] != "tokens" else ("b",)
    return PowerLaw(
        form=form,
        names=names,
        variables=tuple(variables),
        solution=solution,
        centre=centre,
        draws=draws,
        covariance=inverse @ inverse.T,
        widened=widened,
        freedom=known,
        residual=residual,
        own=float(np.sqrt(residual**2 - expected**2)) if further and expected > 0 else 0.0,
    )


def _profiled(law: str, second: Floats, groups: Sequence[Group], other: str | None) -> list[str]:
    if len(np.unique(second)) < 2:
        return []
    return [f"{other} varies too: each {TITLE[law]} counts with the {other} that has the lowest loss beside it."]


def _warnings(
    law: str, column: str, rows: Rows, groups: Sequence[Group], laws: Sequence[PowerLaw], freedom: int
) -> list[str]:
    """Return what these groups do not identify, and what else varies."""
    said = []
    names = {"params": "size", "tokens": "number of tokens"}
    exponents = {"params": "a, that of N,", "tokens": "b, that of D,"}
    logs = {name: np.log([getattr(group, name) for group in groups]) for name in names}
    one = [name for name in names if np.ptp(logs[name]) <= 0.1]
    said += [f"All groups have one {names[name]}: the exponent {exponents[name]} is not identified." for name in one]
    if not one and all(each.form != OF_SIZE for each in laws):
        why = "there are two groups" if len(groups) == 2 else "N and D vary together"
        said.append(f"The exponents of N and D are not identified, because {why}: the law is one of compute.")
    if len(groups) < FEW_GROUPS:
        said.append(
            f"There are {len(groups)} groups: a power law goes through them whatever they are, so nothing tests it."
        )
    for each in laws:
        if len(groups) == len(each.solution) and len(groups) >= FEW_GROUPS:
            said.append(
                f"The law {each.form} has as many numbers as there are groups, {len(groups)}: its intervals have the "
                "noise of runs and no error of the law."
            )
    if not freedom:
        said.append(
            "The noise of runs is not known: each group has three values near its best and no repeated seeds. Repeat "
            "seeds, or add values."
        )
    usual = {name for names in USUAL.values() for name in names}
    others = [
        axis
        for axis in rows.varied
        if axis.split(".")[0] not in ("model", "budget", "seed", "precision") and axis not in (column, *usual)
    ]
    if others:
        said.append(f"{', '.join(others)} varies too, and counts as noise: --where keeps one value.")
    return said


def relation(fit: BestValues, sizes: Sequence[dict[str, float]] = (), budgets: Sequence[float] = ()) -> Relation:
    """Return what a fit says; `sizes` have params and tokens, and `budgets` are FLOPs, to predict the best value for.

    Raises UserError for a budget if no law is one of compute.
    """
    law, symbol = fit.law, SYMBOL[fit.law]
    predictions = [one for size in sizes for one in _predict(fit, size)]
    predictions += [one for flops in budgets for one in _predict_budget(fit, flops)]
    formulas = tuple(_formula(symbol, each) for each in fit.laws)
    headline = [f"{each.name}: {_law_text(each)}" for each in formulas]
    headline += [
        f"{one.run}: {one.quantity} {estimate_text(one.estimate, number)}{UNIT[law]} by the law {one.by}."
        for one in predictions
        if not np.isnan(one.estimate.low)
    ]
    return Relation(
        law=law,
        points=fit.rows.points,
        source=f"{fit.rows.points.source}; {TITLE[law]} = {fit.column}",
        method="losses drawn with the noise of runs, widened to the scatter of the groups",
        seed=fit.seed,
        formulas=formulas,
        headline=tuple(headline),
        predictions=tuple(predictions),
        listed=(Listed(f"Best {TITLE[law]} of each group, beside what Step Law gives", _listed(fit)),),
        pictures={law: _best_picture(fit), f"{law}_grids": _grids_picture(fit)},
        warnings=fit.warnings,
    )


def _formula(symbol: str, law: PowerLaw) -> Formula:
    letters = {"params": "N", "tokens": "D", "flops": "C"}
    powers = " ".join(f"{letters[v]}^{name}" for v, name in zip(law.variables, law.names, strict=True))
    at_one = np.array([1.0, *-law.centre])
    log_c, half = float(at_one @ law.solution), law.half(at_one)
    theta, intervals = {"c": float(np.exp(log_c))}, {"c": (float(np.exp(log_c - half)), float(np.exp(log_c + half)))}
    for i, name in enumerate(law.names):
        half = law.half(np.eye(len(law.solution))[i + 1])
        value = float(law.solution[i + 1])
        theta[name], intervals[name] = value, (value - half, value + half)
    return Formula(law.form, f"{symbol} = c {powers}", theta, intervals, law.residual, f"ln {symbol}")


def _law_text(formula: Formula) -> str:
    powers = [
        f"{name} {estimate_text(Estimate(*map(np.asarray, (value, *formula.intervals[name]))), number)}"
        for name, value in formula.theta.items()
        if name != "c"
    ]
    return f"{formula.formula}, with {' and '.join(powers)}."


def _step_law(law: str, params: float, tokens: float) -> float:
    return step_law_rate(params, tokens) if law == LEARNING_RATE else step_law_batch(tokens)


def _predict(fit: BestValues, size: dict[str, float]) -> list[Prediction]:
    """Return the best value of a size by each law, and by published rules."""
    run = ", ".join(f"{name}={value:g}" for name, value in size.items())
    if missing := [name for name in ("params", "tokens") if name not in size]:
        raise UserError(f"--predict {run}: the law {fit.law} takes params= and tokens=, and {missing[0]}= is missing")
    points = fit.rows.points
    # FLOPs of a new size are those of the sweep for each parameter and token, as far as that is one number.
    flops = float(np.median(points.flops / (points.params * points.tokens))) * size["params"] * size["tokens"]
    quantity, known = f"best {TITLE[fit.law]}", size | {"flops": flops}
    ours = [Prediction(run, each.form, quantity, each.at(known)) for each in fit.laws]
    published = np.asarray(_step_law(fit.law, size["params"], size["tokens"]))
    nothing = np.asarray(np.nan)
    return [*ours, Prediction(run, STEP_LAW, quantity, Estimate(published, nothing, nothing))]


def _predict_budget(fit: BestValues, flops: float) -> list[Prediction]:
    laws = [each for each in fit.laws if each.variables == ("flops",)]
    if not laws:
        raise UserError("--flops takes a law of compute, and sizes and tokens do not both vary here: use --predict")
    run, quantity = f"{flops_text(flops)} FLOPs", f"best {TITLE[fit.law]}"
    return [Prediction(run, each.form, quantity, each.at({"flops": flops})) for each in laws]


def _listed(fit: BestValues) -> tuple[dict[str, str | float | Estimate], ...]:
    rows: list[dict[str, str | float | Estimate]] = []
    for i, group in enumerate(fit.groups):
        value, half = np.log(group.best), np.nan
        if len(fit.vertices):
            low, high = np.quantile(fit.vertices[:, i], [(1 - ONE_DEVIATION) / 2, (1 + ONE_DEVIATION) / 2])
            half = float(student(fit.noise_freedom)) * (high - low) / 2
        best = Estimate(
            *(np.asarray(np.exp(value + sign * half)) if sign else np.asarray(group.best) for sign in (0, -1, 1))
        )
        runs = int(group.counts.sum())
        row: dict[str, str | float | Estimate] = {
            "parameters": si(group.params),
            "tokens": si(group.tokens),
            "values": float(len(group.values)),
        }
        row |= {"runs": float(runs), f"best {TITLE[fit.law]}": best}
        rows.append(row | {STEP_LAW: _step_law(fit.law, group.params, group.tokens)})
    return tuple(rows)


def _best_picture(fit: BestValues) -> Picture:
    """Return the best values against tokens with a line for each size, or against the one variable of the law."""
    law = fit.laws[0]
    variable = law.variables[-1]
    titles = {"params": "parameters", "tokens": "training tokens", "flops": "training FLOPs"}
    measured = tuple((float(getattr(g, variable)), g.best, si(g.params)) for g in fit.groups)
    lines: list[tuple[float, float, str]] = []
    sizes = sorted({g.params for g in fit.groups}) if len(law.variables) > 1 else [0.0]
    for params in sizes:
        at = [float(getattr(g, variable)) for g in fit.groups if params in (0.0, g.params)]
        name = si(params) if params else "law"
        for x in np.geomspace(min(at), max(at), STEPS):
            lines.append((float(x), float(law.at({"params": params, variable: float(x)}).value), name))
    title = f"best {TITLE[fit.law]} of each group (points), and the law {law.form} (lines)"
    return Picture(title, titles[variable], f"best {TITLE[fit.law]}", measured, tuple(lines), "parameters", True, True)


def _grids_picture(fit: BestValues) -> Picture:
    marks, lines = [], []
    for group in fit.groups:
        name = f"{si(group.params)}, {si(group.tokens)}"
        marks += [(float(x), float(y), name) for x, y in zip(group.values, group.means, strict=True)]
        logs = np.log(group.values[group.near])
        fitted = np.polyfit(logs, group.means[group.near], 2)
        at = np.linspace(logs[0], logs[-1], STEPS)
        lines += [(float(np.exp(x)), float(np.polyval(fitted, x)), name) for x in at]
    title = f"loss against {TITLE[fit.law]}: the means (points) and the parabolas near the lowest (lines)"
    return Picture(title, TITLE[fit.law], "loss", tuple(marks), tuple(lines), "parameters, tokens", True)

"""A law that a user writes: its parameters with their bounds, and what the solver needs of it at given points.

A parameter is above 0 unless its bounds say otherwise, and is then fitted by its logarithm. One that is merely added,
as E is, is fitted itself, so that it may be 0. The objective is that of all laws: Huber's loss of
ln(predicted/measured).

Starts: parameters in which the law is linear follow from least squares, weighted to relative errors. The others are
drawn, each in the size that what it is multiplied, divided or added to has: an exponent between 0.02 and 2, gamma in
exp(-epochs/gamma) around the epochs of the points. The solver descends from the best draws.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.effective import Effective
from lmexp.analysis.scaling.laws import Form, Law
from lmexp.analysis.scaling.own_expression import Expression, Gradient, Written, add_outer, parse
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.surface import Surface, huber
from lmexp.errors import UserError
from lmexp.units import printable

DRAWS = 4000
"""Sets of parameters that are tried as starts."""
STARTS = 48
"""Number of draws that the solver descends from."""
DRAWN_POINTS = 200
"""The draws are judged by at most this many points."""
EXPONENTS = (0.02, 2.0)
"""Where exponents are drawn from."""
SCALES = (1e-3, 1e4)
"""Where other parameters are drawn from, in units of what they are combined with."""
TINY = 1e-3
"""A coefficient that least squares would take below 0 is set to this share of what its term alone would have."""


@dataclass(frozen=True)
class Bounds:
    """What a user says of a parameter: from low to high, with a start; equal bounds fix it."""

    low: float = 0.0
    high: float = np.inf
    start: float | None = None

    @property
    def is_positive(self) -> bool:
        """Whether the parameter cannot be below 0."""
        return self.low >= 0


def bounds_of(text: str) -> tuple[str, Bounds]:
    """Return a parameter and its bounds from `NAME=VALUE`, `NAME=LOW:HIGH` or `NAME=LOW:START:HIGH`.

    A side that is left out has no bound. Raises UserError for anything else.
    """
    name, _, given = (part.strip() for part in text.partition("="))
    parts = [part.strip() for part in given.split(":")]
    try:
        numbers = [float(part) if part else None for part in parts]
    except ValueError:
        numbers = []
    low, start, high = None, None, None
    if len(numbers) == 1:
        low = high = numbers[0]
    elif len(numbers) == 2:
        low, high = numbers
    elif len(numbers) == 3:
        low, start, high = numbers
    is_fixed = len(numbers) == 1 and low is not None
    bounds = Bounds(-np.inf if low is None else low, np.inf if high is None else high, start)
    known = [number for number in numbers if number is not None]
    is_good = np.isfinite(known).all() and bounds.low <= bounds.high and (is_fixed or bounds.low < bounds.high)
    inside = start is None or bounds.low <= start <= bounds.high
    is_read = bool(name) and (is_fixed or len(numbers) in (2, 3))
    if not (is_read and is_good and inside):
        raise UserError(
            f"--parameter {printable(text)}: give NAME=VALUE to fix a parameter, NAME=LOW:HIGH for bounds (gamma=: for "
            "any sign), or NAME=LOW:START:HIGH"
        )
    return name, bounds


@dataclass(frozen=True, kw_only=True)
class OwnLaw(Law):
    """A law that a user writes, in columns of the points."""

    expression: Expression
    bounds: tuple[Bounds, ...]
    """Of each parameter, in the order of `parameters`."""

    def with_irreducible(self, bounds: tuple[float, float]) -> "OwnLaw":
        """Return the law with these bounds for its E; itself if it has none."""
        if "E" not in self.parameters:
            return self
        changed = tuple(
            Bounds(*bounds) if name == "E" else known for name, known in zip(self.parameters, self.bounds, strict=True)
        )
        return _own_law(self.name, self.expression, changed)

    def loss(self, theta: npt.ArrayLike, *inputs: npt.ArrayLike) -> Floats:
        """Return the loss at `inputs`, the columns of the law; theta (..., k) broadcasts with them.

        Raises UserError if the law takes another number of inputs.
        """
        if len(inputs) != len(self.inputs):
            raise UserError(f"the law {self.name} takes {' and '.join(self.inputs)}, {len(inputs)} values were given")
        numbers = np.moveaxis(np.asarray(theta, dtype=np.float64), -1, 0)
        with np.errstate(all="ignore"):
            return np.asarray(
                self.expression.values(list(numbers), [np.asarray(value, dtype=np.float64) for value in inputs])[-1]
            )

    @property
    def has_optimum(self) -> bool:
        """False: the best size for a budget is known for the built-in laws alone."""
        return False

    @property
    def sizes(self) -> tuple[str, ...]:
        """The inputs that are sizes of a run; of other columns nobody knows which way is beyond the runs."""
        return tuple(name for name in self.inputs if name in ("params", "tokens", "flops"))

    def limits(self, name: str) -> tuple[float, float]:
        """Return the least and the greatest value of a parameter."""
        bounds = self.bounds[self.parameters.index(name)]
        return bounds.low, bounds.high

    def is_in_logs(self, name: str) -> bool:
        """Whether a parameter is fitted by its logarithm."""
        number = self.parameters.index(name)
        return self.bounds[number].is_positive and number not in self.added

    @cached_property
    def added(self) -> frozenset[int]:
        """Numbers of the parameters that are merely added to the rest: the law's slope by them is 1 everywhere."""
        steps = self.expression.steps
        added, at = set(), [len(steps) - 1]
        while at:
            step = steps[at.pop()]
            if step.kind == "+":
                at += step.inputs
            elif step.kind == "-":
                at.append(step.inputs[0])
            elif step.kind == "parameter":
                added.add(self.parameters.index(step.name))
        linear = self.expression.linear_parameters()
        return frozenset(added & set(linear))


def _own_law(name: str, expression: Expression, bounds: tuple[Bounds, ...]) -> OwnLaw:
    names = expression.parameters
    return OwnLaw(
        name=name,
        formula=printable(expression.text),
        parameters=names,
        inputs=expression.columns,
        free=(),
        to_form=lambda *theta: Form(np.zeros(()), np.zeros(()), np.ones(())),
        from_form=lambda form: (),
        irreducible=next(
            ((each.low, each.high) for each, of in zip(bounds, names, strict=True) if of == "E"), (0.0, np.inf)
        ),
        expression=expression,
        bounds=bounds,
    )


def is_expression(law: object) -> bool:
    """Whether a law is given as an expression, not by its name."""
    return isinstance(law, str) and "=" in law


def own_law(
    text: str, points: Points, default_name: str = "own", parameters: Mapping[str, Bounds] | None = None
) -> OwnLaw:
    """Return the law of a text, `loss = E + A*params^-alpha` or `NAME: loss = ...`, in columns of the points.

    `parameters` holds bounds by name; those of other laws are ignored. Raises UserError as `parse` does.
    """
    declared = parameters or {}
    written = Written.of(text, points.names_of_loss)
    expression = parse(written, points.names_of_columns, declared, points.names_of_loss, points.table_columns)
    bounds = tuple(declared.get(name, Bounds()) for name in expression.parameters)
    return _own_law(written.name or default_name, expression, bounds)


@dataclass(frozen=True, eq=False, kw_only=True)
class OwnSurface(Surface):
    """A user's law at given points. Working parameters are ln(value), or value/unit for one of any sign."""

    law: OwnLaw
    columns: tuple[Floats, ...]
    """(n,) each: the law's columns."""
    units: Floats
    """(k,) unit of each parameter that is not fitted by its logarithm."""
    name_of: Callable[[int], str] = field(repr=False)
    """What a reader calls a point."""

    @classmethod
    def of_points(cls, law: OwnLaw, points: Points) -> "OwnSurface":
        """Return the surface of a law at points that have all of its columns."""
        columns = tuple(points.column(name) for name in law.inputs)
        units = np.ones(len(law.parameters))
        for number, name in enumerate(law.parameters):
            if not law.is_in_logs(name):
                bounds = law.bounds[number]
                known = [abs(each) for each in (bounds.start or 0.0, bounds.low, bounds.high) if np.isfinite(each)]
                units[number] = max(known, default=0.0) or 1.0
        rough = cls(
            law=law, log_inputs=(), log_loss=np.log(points.loss), columns=columns, units=units, name_of=points.name_of
        )
        return rough._with_units()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The parameters, in order."""
        return self.law.parameters

    @cached_property
    def in_logs(self) -> npt.NDArray[np.bool_]:
        """(k,) Which parameters are fitted by their logarithm."""
        return np.array([self.law.is_in_logs(name) for name in self.names])

    @cached_property
    def bounds(self) -> tuple[Floats, Floats]:
        """The least and the greatest value (k,) of each working parameter."""
        limits = np.array([self.law.limits(name) for name in self.names]).T
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = np.where(self.in_logs, np.log(np.maximum(limits, 0.0)), limits / self.units)
        return low, high

    def at(self, rows: npt.NDArray[np.intp]) -> "OwnSurface":
        """Return the surface at some of its points."""
        return OwnSurface(
            law=self.law,
            log_inputs=(),
            log_loss=self.log_loss[rows],
            columns=tuple(values[rows] for values in self.columns),
            units=self.units,
            name_of=lambda row: self.name_of(int(rows[row])),
        )

    def theta(self, parameters: Floats) -> Floats:
        """Return the law's parameters (batch, k)."""
        return np.where(self.in_logs, np.exp(np.where(self.in_logs, parameters, 0.0)), parameters * self.units)

    def working(self, theta: Floats) -> Floats:
        """Return the working parameters (batch, k) of a theta, within their bounds."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.clip(np.where(self.in_logs, np.log(np.maximum(theta, 1e-300)), theta / self.units), *self.bounds)

    def residual(self, parameters: Floats) -> Floats:
        """Return ln(predicted/measured) (batch, n); NaN where the law is 0 or below."""
        return self._predicted_log(self._values(parameters)[-1]) - self.log_loss

    def _values(self, parameters: Floats) -> list[Floats]:
        return self.law.expression.values(list(self.theta(parameters).T[:, :, None]), self.columns)

    def _predicted_log(self, predicted: Floats) -> Floats:
        return np.log(np.where(predicted > 0, predicted, np.nan))

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def jacobian(self, parameters: Floats) -> Floats:
        """Return the derivatives (n, k) of the residuals by the parameters (k,)."""
        values = self._values(parameters[None])
        gradient = self._log_gradient(values, parameters[None])
        rows = [np.broadcast_to(gradient.get(i, np.zeros((1, 1))), (1, len(self)))[0] for i in range(len(self.names))]
        return np.stack(rows, axis=1)

    def _slopes_of_values(self, parameters: Floats) -> list[Floats]:
        """Return the derivatives (batch, 1) of the parameters by the working parameters."""
        slopes = np.where(self.in_logs, self.theta(parameters), self.units)
        return list(slopes.T[:, :, None])

    def _log_gradient(self, values: Sequence[Floats], parameters: Floats) -> Gradient:
        gradient = self.law.expression.gradients(values, self._slopes_of_values(parameters))[-1]
        return {number: part / values[-1] for number, part in gradient.items()}

    def derivatives(self, parameters: Floats, weights: Floats, delta: float) -> tuple[Floats, Floats, Floats]:
        """Return objective (batch,), gradient (batch, k) and Hessian (batch, k, k), as the other laws do."""
        values, slopes = self._values(parameters), self._slopes_of_values(parameters)
        gradients = self.law.expression.gradients(values, slopes)
        residual = self._predicted_log(values[-1]) - self.log_loss
        pull = np.clip(residual, -delta, delta)
        weighted = weights * pull
        adjoint = weighted / values[-1]  # d objective / d loss
        curvatures = [slope * flag for slope, flag in zip(slopes, self.in_logs, strict=True)]
        hessian = self.law.expression.hessian(values, gradients, adjoint, curvatures)
        add_outer(
            hessian,
            (weights * (np.abs(residual) <= delta) - weighted) / values[-1] ** 2,
            gradients[-1],
            gradients[-1],
        )
        gradient = np.zeros((len(parameters), len(self.names)))
        for number, part in gradients[-1].items():
            gradient[:, number] = (adjoint * part).sum(axis=1)
        return huber(residual, weights, delta), gradient, hessian

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def starts(self, weights: Floats, delta: float) -> Floats:
        """Return the starts (s, k). Raises UserError if the law is no number above 0 at the points, whatever it is."""
        theta = self._draws()
        scores = self.objective(self.working(theta), np.broadcast_to(weights, (1, len(self))), delta)
        known = np.isfinite(scores)
        if not known.any():
            raise self._nowhere_finite(theta)
        order = np.argsort(np.where(known, scores, np.inf), kind="stable")[: min(STARTS, int(known.sum()))]
        return self.working(theta[order])

    def _with_units(self) -> "OwnSurface":
        """Return the surface with units in which parameters of any sign are about 1."""
        if self.in_logs.all():
            return self
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            theta = self._draws()
            scores = self.objective(self.working(theta), np.ones((1, len(self))), np.inf)
        best = theta[np.argsort(np.where(np.isfinite(scores), scores, np.inf), kind="stable")[:STARTS]]
        size = np.median(np.abs(best), axis=0)
        units = np.where(self.in_logs | ~(np.isfinite(size) & (size > 0)), self.units, size)
        return OwnSurface(
            law=self.law, log_inputs=(), log_loss=self.log_loss, columns=self.columns, units=units, name_of=self.name_of
        )

    def _draws(self) -> Floats:
        """Return sets of parameters (draws, k) to try: those of a linear law by least squares, the others drawn."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(DRAWN_POINTS, len(self))).astype(int))
        few, law = self.at(rows) if len(rows) < len(self) else self, self.law
        linear = [i for i in law.expression.linear_parameters() if law.bounds[i].start is None]
        theta = _drawn(law, few.columns, linear)
        if linear:
            _solve_linear(few, theta, linear)
        low, high = np.array([law.limits(name) for name in law.parameters]).T
        return np.clip(theta, low, high)

    def _nowhere_finite(self, theta: Floats) -> UserError:
        """Return an error that names the first part of the law that is no number, and where."""
        values = self.law.expression.values(list(theta.T[:, :, None]), self.columns)
        shape = (len(theta), len(self))
        good = np.broadcast_to(np.isfinite(values[-1]) & (values[-1] > 0), shape)
        draw = int(good.sum(axis=1).argmax())
        row = int(np.flatnonzero(~good[draw])[0])
        for step, value in zip(self.law.expression.steps, values, strict=True):
            number = float(np.broadcast_to(value, shape)[draw, row])
            if not np.isfinite(number):
                words = printable(step.words)
                return UserError(
                    f"{self.law.name}: {words} is {number:g} at {self.name_of(row)}, with every set of parameters that "
                    "was tried; a law is a finite number above 0 at every row"
                )
        return UserError(
            f"{self.law.name} is {float(np.broadcast_to(values[-1], shape)[draw, row]):g} at {self.name_of(row)}, with "
            "every set of parameters that was tried; a loss is above 0"
        )


def surface_of(law: Law, points: Points, effects: Sequence[Effective] = ()) -> Surface:
    """Return the surface of any law at points that have all of its inputs."""
    return OwnSurface.of_points(law, points) if isinstance(law, OwnLaw) else Surface.of(law, points, effects)


def _drawn(law: OwnLaw, columns: Sequence[Floats], linear: Sequence[int]) -> Floats:
    """Return draws (draws, k) of all parameters but the linear ones, which are 1."""
    expression = law.expression
    random = np.random.default_rng(0)
    theta = np.ones((DRAWS, len(law.parameters)))
    rest = [i for i in range(len(law.parameters)) if i not in linear]
    exponents = [i for i in rest if _is_exponent(expression, i)]
    theta[:, exponents] = _log_uniform(random, EXPONENTS, len(exponents))
    for number in (i for i in rest if i not in exponents):  # in the order of the text
        theta[:, number] = _log_uniform(random, SCALES, 1)[:, 0] * _scale(expression, theta, columns, number)
    for number in rest:
        bounds = law.bounds[number]
        if not bounds.is_positive:
            theta[:, number] *= random.choice([-1.0, 1.0], DRAWS)
        if np.isfinite([bounds.low, bounds.high]).all():
            theta[:, number] = random.uniform(bounds.low, bounds.high, DRAWS)
    for number in (i for i, bounds in enumerate(law.bounds) if bounds.start is not None):
        start = law.bounds[number].start
        assert start is not None
        theta[: DRAWS // 2, number] = start * np.exp(random.normal(0, 0.3, DRAWS // 2))
        theta[0, number] = start
    return theta


def _log_uniform(random: np.random.Generator, limits: tuple[float, float], count: int) -> Floats:
    """Return draws (draws, count) that are uniform in the logarithm."""
    low, high = np.log(limits)
    return np.asarray(np.exp(random.uniform(low, high, (DRAWS, count))))


def _is_exponent(expression: Expression, number: int) -> bool:
    """Whether a parameter stands in an exponent by itself, or with its sign turned."""
    wanted = {i for i, step in enumerate(expression.steps) if step.name == expression.parameters[number]}
    wanted |= {i for i, step in enumerate(expression.steps) if step.kind == "negative" and step.inputs[0] in wanted}
    return any(step.kind == "**" and step.inputs[1] in wanted for step in expression.steps)


def _scale(expression: Expression, theta: Floats, columns: Sequence[Floats], number: int) -> Floats | float:
    """Return the size (draws,) that a parameter has if it matters as much as what it is combined with."""
    at = {i for i, step in enumerate(expression.steps) if step.name == expression.parameters[number]}
    at |= {i for i, step in enumerate(expression.steps) if step.kind == "negative" and step.inputs[0] in at}
    values = expression.values(list(theta.T[:, :, None]), columns)
    for step in expression.steps:
        mine = [i for i in step.inputs if i in at]
        others = [i for i in step.inputs if i not in at]
        if not mine or not others or step.kind == "**":
            continue
        size = np.exp(np.nanmean(np.log(np.abs(values[others[0]])), axis=-1))
        size = np.where(np.isfinite(size) & (size > 0), size, 1.0)
        return 1 / size if step.kind == "*" else size
    return 1.0


def _solve_linear(surface: OwnSurface, theta: Floats, linear: Sequence[int]) -> None:
    """Set the parameters in which the law is linear, for every draw, by least squares of the relative error.

    One that must not be below 0 but would be is set to a small part of what its term alone would have.
    """
    expression, columns = surface.law.expression, surface.columns
    zero = theta.copy()
    zero[:, linear] = 0.0
    shape = (len(theta), len(surface))

    def predicted(at: Floats) -> Floats:
        return np.broadcast_to(expression.values(list(at.T[:, :, None]), columns)[-1], shape)

    loss = np.exp(surface.log_loss)
    base = predicted(zero)
    terms = []
    for number in linear:
        one = zero.copy()
        one[:, number] = 1.0
        terms.append((predicted(one) - base) / loss)
    design = np.nan_to_num(np.stack(terms, axis=1), nan=0.0, posinf=0.0, neginf=0.0)  # (draws, m, n)
    target = np.nan_to_num(1 - base / loss, nan=0.0, posinf=0.0, neginf=0.0)
    size = np.sqrt((design**2).sum(axis=2)) + 1e-300
    design = design / size[:, :, None]
    alone = np.abs(np.einsum("bmn,bn->bm", design, target))
    gram, right = design @ design.transpose(0, 2, 1), np.einsum("bmn,bn->bm", design, target)
    positive = np.array([surface.law.bounds[number].is_positive for number in linear])
    held = np.zeros(alone.shape, dtype=bool)
    for _ in range(len(linear) + 1):
        kept = ~held[:, :, None] & ~held[:, None, :]
        matrix = np.where(kept, gram, 0.0) + np.eye(len(linear)) * (1e-10 + held[:, :, None])
        solution = np.linalg.solve(matrix, np.where(held, 0.0, right)[:, :, None])[:, :, 0]
        below = (solution < 0) & positive & ~held
        if not below.any():
            break
        held |= below
    solution = np.where(positive & (solution <= 0), TINY * alone, solution)
    theta[:, linear] = solution / size

"""A law that a user writes, as a list of steps whose values and exact derivatives numpy computes.

    loss = E + A*params^-alpha + B*tokens^-beta*exp(-epochs/gamma)

Names that are columns of the points are data, and all others are parameters. The grammar is that of filters
(lmexp/analysis/grammar.py) with `^` or `**` for a power and the functions of FUNCTIONS. Nothing is run as code.

The Hessian of a weighted sum over points follows from one pass forwards and one backwards: with the gradients of all
steps at hand, a step f(a, b) adds its adjoint times (f_aa a' a' + f_ab (a' b' + b' a') + f_bb b' b').
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.analysis.grammar import (
    Call,
    ColumnNames,
    Comparison,
    Computed,
    Constant,
    Grammar,
    Name,
    Negative,
    Node,
    Power,
    names_in,
    wrong,
)
from lmexp.analysis.grammar import parse as parse_expression
from lmexp.errors import UserError, nearest
from lmexp.units import printable

LOSS = "loss"
MAX_PARAMETERS = 20
LIKE_A_COLUMN = 0.8
"""A parameter whose name is this similar to that of a column is questioned (difflib's ratio)."""
MIN_LETTERS = 4
"""Shorter names are not questioned."""


class Function(NamedTuple):
    """A function of one number with its first two derivatives, each from the number and the function's value."""

    value: Callable[[Floats], Floats]
    first: Callable[[Floats, Floats], Floats]
    second: Callable[[Floats, Floats], Floats]


FUNCTIONS: dict[str, Function] = {
    "exp": Function(np.exp, lambda x, f: f, lambda x, f: f),
    "log": Function(np.log, lambda x, f: 1 / x, lambda x, f: -1 / x**2),
    "log2": Function(np.log2, lambda x, f: 1 / (x * np.log(2)), lambda x, f: -1 / (x**2 * np.log(2))),
    "log10": Function(np.log10, lambda x, f: 1 / (x * np.log(10)), lambda x, f: -1 / (x**2 * np.log(10))),
    "sqrt": Function(np.sqrt, lambda x, f: 0.5 / f, lambda x, f: -0.25 / (f * x)),
    "tanh": Function(np.tanh, lambda x, f: 1 - f**2, lambda x, f: -2 * f * (1 - f**2)),
}
GRAMMAR = Grammar(
    f"allowed are columns, parameters, numbers, + - * / ^, ( ) and the functions {', '.join(FUNCTIONS)}",
    word=re.compile(r"[^\W\d][\w.]*"),
    has_functions=True,
)


@dataclass(frozen=True)
class Step:
    """One operation of an expression."""

    kind: str
    """`number`, `column`, `parameter`, an operator, `negative`, or the name of a function."""
    inputs: tuple[int, ...] = ()
    """The steps that it takes."""
    value: float = 0.0
    """Of a number."""
    name: str = ""
    """Of a column or a parameter."""
    words: str = ""
    """The part of the text that it stands for."""


Gradient = dict[int, Floats]
"""Number of a parameter -> derivative by it, which broadcasts to (batch, n); those that are 0 are left out."""


@dataclass(frozen=True)
class Expression:
    """The right side of a law."""

    text: str
    steps: tuple[Step, ...]
    """Every step comes after those that it takes; the last one is the result."""
    parameters: tuple[str, ...]
    columns: tuple[str, ...]

    def values(self, parameters: Sequence[Floats], columns: Sequence[Floats]) -> list[Floats]:
        """Return the value of every step; parameters and columns broadcast with each other."""
        by_name = dict(zip((*self.parameters, *self.columns), (*parameters, *columns), strict=True))
        values: list[Floats] = []
        for step in self.steps:
            taken = [values[i] for i in step.inputs]
            values.append(
                np.asarray(step.value)
                if step.kind == "number"
                else by_name[step.name]
                if step.kind in ("column", "parameter")
                else _value(step.kind, taken)
            )
        return values

    def gradients(self, values: Sequence[Floats], slopes: Sequence[Floats]) -> list[Gradient]:
        """Return the gradient of every step by the working parameters; `slopes` are those of the parameters by them."""
        gradients: list[Gradient] = []
        for step, value in zip(self.steps, values, strict=True):
            if step.kind == "parameter":
                number = self.parameters.index(step.name)
                gradients.append({number: slopes[number]})
                continue
            taken = [gradients[i] for i in step.inputs]
            total: Gradient = {}
            if any(taken):
                first = _first(step.kind, [values[i] for i in step.inputs], value, [bool(each) for each in taken])
                for slope, gradient in zip(first, taken, strict=True):
                    for number, part in gradient.items():
                        total[number] = total[number] + slope * part if number in total else slope * part
            gradients.append(total)
        return gradients

    def hessian(
        self,
        values: Sequence[Floats],
        gradients: Sequence[Gradient],
        adjoint: Floats,
        curvatures: Sequence[Floats],
    ) -> Floats:
        """Return the Hessian (batch, k, k) of a sum over points; `adjoint` (batch, n) is its derivative by the result.

        `curvatures` are the second derivatives of the parameters by the working parameters.
        """
        size = len(self.parameters)
        total = np.zeros((len(adjoint), size, size))
        adjoints: list[Floats | None] = [None] * len(self.steps)
        adjoints[-1] = adjoint
        for i in reversed(range(len(self.steps))):
            step, pull = self.steps[i], adjoints[i]
            if pull is None or not gradients[i]:
                continue
            if step.kind == "parameter":
                number = self.parameters.index(step.name)
                total[:, number, number] += (pull * curvatures[number]).sum(axis=1)
                continue
            taken = [values[j] for j in step.inputs]
            varies = [bool(gradients[j]) for j in step.inputs]
            for j, slope in zip(step.inputs, _first(step.kind, taken, values[i], varies), strict=True):
                if gradients[j]:
                    before = adjoints[j]
                    adjoints[j] = pull * slope if before is None else before + pull * slope
            for a, b, second in _second(step.kind, taken, values[i], varies):
                add_outer(total, pull * second, gradients[step.inputs[a]], gradients[step.inputs[b]], a != b)
        return total

    def linear_parameters(self) -> tuple[int, ...]:
        """Return numbers of parameters in which the result is linear, all of them together."""
        chosen: list[int] = []
        for number in range(len(self.parameters)):
            if self._degree({self.parameters[each] for each in (*chosen, number)}) <= 1:
                chosen.append(number)
        return tuple(chosen)

    def _degree(self, names: Collection[str]) -> int:
        """Return the degree of the result in parameters: 0, 1, or more than that."""
        degrees: list[int] = []
        for step in self.steps:
            taken = [degrees[i] for i in step.inputs]
            if step.kind in ("+", "-", "negative"):
                degrees.append(max(taken))
            elif step.kind == "*":
                degrees.append(sum(taken))
            elif step.kind == "/":
                degrees.append(taken[0] if taken[1] == 0 else 2)
            else:
                degrees.append(2 * any(taken) if taken else int(step.name in names and step.kind == "parameter"))
        return degrees[-1]


def add_outer(total: Floats, weight: Floats, first: Gradient, second: Gradient, both_ways: bool = False) -> None:
    """Add the sum over points of weight x first x second' to `total` (batch, k, k), and its transpose if `both_ways`.

    `weight` broadcasts to (batch, n).
    """
    for i, one in first.items():
        weighted = weight * one
        for j, other in second.items():
            if not both_ways and j < i:
                continue
            part = (weighted * other).sum(axis=1)
            total[:, i, j] += part
            if both_ways or i != j:
                total[:, j, i] += part


def _value(kind: str, taken: Sequence[Floats]) -> Floats:
    if kind == "+":
        return taken[0] + taken[1]
    if kind == "-":
        return taken[0] - taken[1]
    if kind == "*":
        return taken[0] * taken[1]
    if kind == "/":
        return taken[0] / taken[1]
    if kind == "**":
        return np.float_power(taken[0], taken[1])
    return -taken[0] if kind == "negative" else FUNCTIONS[kind].value(taken[0])


def _first(kind: str, taken: Sequence[Floats], value: Floats, varies: Sequence[bool]) -> list[Floats]:
    """Return the derivatives of a step by what it takes; of a power, only those that are needed."""
    one = np.ones((1, 1))
    if kind in ("+", "-"):
        return [one, one if kind == "+" else -one]
    if kind == "*":
        return [taken[1], taken[0]]
    if kind == "/":
        return [1 / taken[1], -value / taken[1]]
    if kind == "**":
        base, power = taken
        return [
            power * np.float_power(base, power - 1) if varies[0] else one,
            value * np.log(base) if varies[1] else one,
        ]
    return [-one] if kind == "negative" else [FUNCTIONS[kind].first(taken[0], value)]


def _second(
    kind: str, taken: Sequence[Floats], value: Floats, varies: Sequence[bool]
) -> Iterable[tuple[int, int, Floats]]:
    """Yield the second derivatives of a step that are not 0, each with the two numbers of what it is by."""
    if kind == "*" and all(varies):
        yield 0, 1, np.ones((1, 1))
    elif kind == "/" and varies[1]:
        if varies[0]:
            yield 0, 1, -1 / taken[1] ** 2
        yield 1, 1, 2 * value / taken[1] ** 2
    elif kind == "**":
        base, power = taken
        if varies[0]:
            yield 0, 0, power * (power - 1) * np.float_power(base, power - 2)
        if varies[1]:
            yield 1, 1, value * np.log(base) ** 2
        if all(varies):
            yield 0, 1, np.float_power(base, power - 1) * (1 + power * np.log(base))
    elif kind in FUNCTIONS:
        yield 0, 0, FUNCTIONS[kind].second(taken[0], value)


@dataclass(frozen=True)
class Written:
    """A law as a user writes it: `NAME: loss = EXPRESSION`, the name being optional."""

    text: str
    name: str
    """'' if it has none."""
    left: int
    """Where the left side begins in the text, after the name."""
    right: int
    """Where the expression begins in the text."""

    @classmethod
    def of(cls, text: str, losses: Collection[str] = (LOSS,)) -> "Written":
        """Split a law at its equals sign. Raises UserError unless the left side is one of `losses`."""
        match = re.match(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*:(?!=)", text)
        start = match.end() if match else 0
        left, equals, _ = text[start:].partition("=")
        if not equals or left.strip(" `") not in losses:
            raise UserError(
                f"the law '{printable(text[:60])}': on the left of = stands {LOSS}, as in "
                "'loss = E + A*params^-alpha'; each law needs a --law of its own"
            )
        return cls(text, match.group(1) if match else "", start, start + len(left) + 1)

    def parse(self, columns: Iterable[str]) -> Node:
        """Return the tree of the expression, with places in the whole text. Raises UserError for a syntax error."""
        node = parse_expression(
            " " * self.right + self.text[self.right :], ColumnNames(columns, has_short=False), GRAMMAR
        )
        if isinstance(node, Comparison):
            raise wrong(self.text, self.text.find("=", node.first.end), "a law has one equals sign, after the loss")
        return node


def names_in_law(text: str, columns: Iterable[str], losses: Collection[str] = (LOSS,)) -> set[str]:
    """Return the names of columns and parameters in a law. Raises UserError if it is no law."""
    return set(names_in(Written.of(text, losses).parse(columns)))


def parse(
    written: Written,
    columns: Mapping[str, str],
    declared: Collection[str] = (),
    losses: Collection[str] = (LOSS,),
    headings: Collection[str] = (),
) -> Expression:
    """Return the expression of a law. `columns` maps the names of columns to those that the points know.

    Parameters in `declared` may be spelt like a column; `headings` are all columns of the table. Raises UserError, with
    the position, for a syntax error, an unknown function, a parameter that looks like a column, a law without
    parameters or columns, and one of the loss itself.
    """
    reader = _LawReader(written, columns, declared, losses, dict.fromkeys((*columns, *headings)))
    reader.add(written.parse(columns))
    parameters, used = reader.parameters, reader.used
    name = f"the law '{printable(written.text[:60])}'"
    if not parameters:
        raise UserError(f"{name} has no parameter to fit: every name in it is a column")
    if not used:
        known = ", ".join(printable(column) for column in list(reader.headings)[:12])
        raise UserError(f"{name} names no column, so it says the same of every row. Columns are {known}")
    if len(parameters) > MAX_PARAMETERS:
        raise UserError(f"{name} has {len(parameters)} parameters; allowed are {MAX_PARAMETERS}")
    return Expression(written.text[written.left :].strip(), tuple(reader.steps), tuple(parameters), tuple(used))


class _LawReader:
    """Turns the tree of a law into steps."""

    def __init__(
        self,
        written: Written,
        columns: Mapping[str, str],
        declared: Collection[str],
        losses: Collection[str],
        headings: Collection[str],
    ) -> None:
        self.text = written.text
        self.columns, self.declared, self.losses, self.headings = columns, declared, losses, headings
        self.steps: list[Step] = []
        self.parameters: list[str] = []
        self.used: list[str] = []

    def add(self, node: Node) -> int:
        """Add the steps of a node, and return the number of the last of them."""
        words = node.name if isinstance(node, Name) else self.text[node.start : node.end]
        match node:
            case Constant(value=float() as value):
                return self._step(Step("number", value=value, words=words))
            case Name():
                return self._named(node, words)
            case Negative(part=part):
                return self._step(Step("negative", (self.add(part),), words=words))
            case Computed(first=first, steps=steps):
                total = self.add(first)
                for operator, right in steps:
                    words = self.text[node.start : right.end]
                    total = self._step(Step(operator, (total, self.add(right)), words=words))
                return total
            case Power(base=base, exponent=exponent):
                return self._step(Step("**", (self.add(base), self.add(exponent)), words=words))
            case Call(name=name, arguments=arguments, options=options):
                if name not in FUNCTIONS:
                    hint = nearest(name, FUNCTIONS)
                    raise self._wrong(node, f"there is no function '{name}'.{hint} There are {', '.join(FUNCTIONS)}")
                if len(arguments) != 1 or options:
                    raise self._wrong(node, f"write {name}(x)")
                return self._step(Step(name, (self.add(arguments[0]),), words=words))
        raise self._wrong(node, f"this is not allowed here; {GRAMMAR.allowed}")

    def _named(self, node: Name, words: str) -> int:
        name = node.name
        if name in self.losses:
            raise self._wrong(node, "the loss is what the law predicts, so it stands on the left alone")
        if name in self.columns:
            name = self.columns[name]
            if name not in self.used:
                self.used.append(name)
            return self._step(Step("column", name=name, words=words))
        if name in FUNCTIONS:
            raise self._wrong(node, f"{name} is a function: write {name}(x)")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            hint = nearest(name, self.headings)
            raise self._wrong(node, f"there is no column '{name}'.{hint}")
        alike = get_close_matches(name, list(self.headings), n=1, cutoff=LIKE_A_COLUMN)
        if alike and len(name) >= MIN_LETTERS and name not in self.declared:
            raise self._wrong(
                node,
                f"there is no column '{name}'. Did you mean '{alike[0]}'? If it is a parameter, say so with "
                f"--parameter {name}=0:",
            )
        if name not in self.parameters:
            self.parameters.append(name)
        return self._step(Step("parameter", name=name, words=words))

    def _step(self, step: Step) -> int:
        """Add a step, unless the same one is there already."""
        for i, other in enumerate(self.steps):
            if (other.kind, other.inputs, other.value, other.name) == (step.kind, step.inputs, step.value, step.name):
                return i
        self.steps.append(step)
        return len(self.steps) - 1

    def _wrong(self, node: Node, what: str) -> UserError:
        return wrong(self.text, node.start, what)

"""A claim's expression: one number, computed from the rows of a study, with its 95 % interval.

The grammar is that of filters (lmexp/analysis/grammar.py) with `**` and the functions of lmexp/papers/functions.py:

    paired(loss, schedule == 'wsd', schedule == 'cosine')
    log2(vertex(optim.lr, loss, where=model.d_model == 256) / vertex(optim.lr, loss, where=model.d_model == 32))

Nothing is run as code.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Floats
from lmexp.analysis.filters import Reader, Value, finite
from lmexp.analysis.grammar import Call, Constant, Grammar, Name, Node, Power, parse, walk
from lmexp.errors import UserError, nearest
from lmexp.papers.evidence import SEED, Blocks, Estimated, Evidence, Ints
from lmexp.papers.functions import ELEMENTWISE, FUNCTIONS, Function, Kind, exponent, paired
from lmexp.papers.of_law import PUBLISHED, published_law

WHERE = "where"
BUDGET = "budget."
"""How the axes begin that set the length of a run."""


def estimate(expression: str, evidence: Evidence, resampled: bool = True) -> Estimated:
    """Return the number that an expression gives, with its interval. The number is NaN if no row is meant.

    Without `resampled`, the interval is infinite, but for that of a fitted law. A number that no row takes part in is
    exact: its interval is the number itself.
    Raises UserError, with the position, for a wrong expression.
    """
    reader = ClaimReader(evidence, expression)
    node = reader.parse()
    alone = [call for call in reader.calls(node) if reader.function(call).has_interval]
    if alone and alone != [node]:
        raise reader.refuse(alone[0], "this has an interval of its own, so it must be the whole expression")
    if alone:
        return reader.estimate(alone[0])
    value = reader.number(node)
    if not reader.calls(node):
        return Estimated(value, value, value)
    if np.isnan(value) or not resampled:
        return Estimated(value, -np.inf, np.inf)
    blocks, everything = Blocks.of(evidence, reader.arms(node)), np.arange(len(evidence.table))

    def again(rows: Ints) -> float:
        try:
            return reader.number(node, rows)
        except UserError:  # too few rows are left for a function
            return np.nan

    if any(reader.function(call).jumps for call in reader.calls(node)):
        return blocks.bootstrap(value, again)
    return blocks.jackknife(value, lambda rows: again(np.delete(everything, rows)))


def in_each_row(expression: str, table: pd.DataFrame) -> pd.Series:
    """Return what an expression gives in each row (n,), such as a column, `loss / loss_floor` or `1.69 + x ** -0.3`.

    Functions of laws with published constants take columns too: `loss - predict('published:epoch', n_params, tokens)`.

    Raises UserError, with the position, for a wrong expression and for a function that makes one number of all rows.
    """
    reader = ClaimReader(Evidence(table, (), ""), expression)
    node = reader.parse()
    if call := next(iter(reader.calls(node)), None):
        reader.function(call)  # says so if there is none of this name
        raise reader.refuse(call, f"in each row, allowed are {', '.join(ELEMENTWISE)}, columns, numbers and + - * / **")
    value = reader.read(node)
    return value if isinstance(value, pd.Series) else pd.Series([value] * len(table))


class ClaimReader(Reader):
    """Evaluates an expression to one number."""

    grammar = Grammar(
        f"allowed are the functions {', '.join([*FUNCTIONS, *ELEMENTWISE])}, columns, numbers, **, and what --where "
        "takes",
        word=re.compile(r"[^\W\d][\w.]*(?:/\w[\w.]*)*"),
        has_functions=True,
    )

    def __init__(self, evidence: Evidence, text: str) -> None:
        super().__init__(evidence.table, text)
        self.evidence = evidence
        self._rows = np.arange(len(evidence.table))
        """The positions of the rows that functions see."""
        self._columns: dict[tuple[Node, str], Any] = {}
        """The arguments of functions for all rows, by their node and kind: the same in every sample."""

    def parse(self) -> Node:
        """Return the tree of the expression. Raises UserError for a syntax error."""
        return parse(self.text, self.names, self.grammar)

    def number(self, node: Node, rows: Ints | None = None) -> float:
        """Return the number that a node stands for, computed from the rows at these positions [default: all].

        Raises UserError for a whole column, and for a number without bounds.
        """
        self._rows = np.arange(len(self.table)) if rows is None else rows
        value = self.read(node)
        if isinstance(value, float) and np.isinf(value):
            raise self.refuse(node, "this is infinite, or too large a number")
        if isinstance(value, float):
            return value
        raise self.refuse(node, "this is not one number; a function such as mean() makes one of a column")

    def estimate(self, call: Call) -> Estimated:
        """Return what a function with an interval of its own gives."""
        result = self._result(call)
        assert isinstance(result, Estimated)
        return result

    def calls(self, node: Node) -> list[Call]:
        """Return the calls in a node that see the rows: not those of functions of each number."""
        calls = (part for part in walk(node) if isinstance(part, Call))
        return [call for call in calls if call.name not in ELEMENTWISE and not self._is_published(call)]

    def function(self, call: Call) -> Function:
        """Return the function that is called. Raises UserError if there is none of this name."""
        if call.name not in FUNCTIONS:
            known = [*FUNCTIONS, *ELEMENTWISE]
            raise self.refuse(
                call, f"there is no function '{call.name}'.{nearest(call.name, known)} There are {', '.join(known)}"
            )
        return FUNCTIONS[call.name]

    def arms(self, node: Node) -> tuple[str, ...]:
        """Return the axes that functions of pairs compare, tune or read as a curve, anywhere in a node."""
        compared = [call for call in self.calls(node) if self.function(call).pairs]
        return tuple(dict.fromkeys(axis for call in compared for axis in self._axes_apart(call)))

    def read(self, node: Node) -> Value:
        """Return the value of a node, as filters do, and of calls."""
        if isinstance(node, Power):
            return self._power(node)
        if not isinstance(node, Call):
            return super().read(node)
        if node.name in ELEMENTWISE:
            return self._of_each(node, node.name)
        if self._is_published(node):
            return self._of_constants(node)
        result = self._result(node)
        return float(result.value) if isinstance(result, Estimated) else float(result)

    def _column(self, node: Name) -> pd.Series:
        if self.table.columns.empty:
            raise self.refuse(
                node, f"'{node.name}' is a column, and without a sweep and without points there are no rows"
            )
        return super()._column(node)

    def refuse(self, node: Node, what: str) -> UserError:
        """Return an error that names the place of a node."""
        return self._wrong(node, what)

    def _is_published(self, call: Call) -> bool:
        """Whether a call is about a law with published constants, which no row takes part in."""
        law = call.arguments[0] if call.arguments else None
        is_named = isinstance(law, Constant) and isinstance(law.value, str) and law.value.startswith(PUBLISHED)
        return is_named and call.name in FUNCTIONS

    def _of_constants(self, call: Call) -> Value:
        """Return a number of a law with published constants, or one for each row if an argument is a column."""
        function = self.function(call)
        if function.of_constants is None:
            raise self.refuse(call, "published constants are not fitted to rows; name a law to fit, without published:")
        kinds, given = self._kinds(call, function, {*function.options} - {"delta"})
        read = [self._constant(part, kind) for part, kind in zip(call.arguments, kinds, strict=True)]
        options = {name: self._constant(part, function.options[name]) for name, part in given.items()}
        try:
            known = published_law(read[0])
            assert known is not None
            with np.errstate(all="ignore"):
                result = function.of_constants(known.law, known.theta, *read[1:], **options)
        except UserError as problem:
            raise self.refuse(call, str(problem)) from None
        if np.ndim(result):
            return finite(result)
        if not np.isfinite(result):
            raise self.refuse(call, "the law has no such number, as for a loss that it never reaches")
        return float(result)

    def _constant(self, node: Node, kind: str) -> Any:
        """Return an argument of a law with published constants: a text, a number, or a column of numbers (n,)."""
        if kind != "number":
            return self._read_argument(node, kind)
        value = self._number(node)
        return _floats(value) if isinstance(value, pd.Series) else value

    def _kinds(self, call: Call, function: Function, known: set[str]) -> tuple[tuple[Kind, ...], dict[str, Node]]:
        """Return the kind of each argument of a call, and its options. Raises UserError for wrong ones."""
        kinds = function.arguments
        is_open = function.signature.endswith("...)")
        if len(call.arguments) < len(kinds) or (len(call.arguments) > len(kinds) and not is_open):
            raise self.refuse(call, f"write {function.signature}")
        names = [name for name, _ in call.options]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise self.refuse(call, f"{twice}= stands here twice; write {function.signature}")
        given = dict(call.options)
        if strange := given.keys() - known:
            options = f", with {', '.join(f'{name}=' for name in sorted(known))}" if known else ""
            raise self.refuse(call, f"{min(strange)}= is not known here; write {function.signature}{options}")
        return (*kinds, *kinds[-1:] * (len(call.arguments) - len(kinds))), given

    def _result(self, call: Call) -> float | Estimated:
        function = self.function(call)
        kinds, given = self._kinds(call, function, {WHERE, *function.options})
        rows, whole = self._rows, np.arange(len(self.table))
        if WHERE in given:
            meant = self._argument(given[WHERE], "condition")
            rows, whole = rows[meant[rows]], whole[meant]
        arguments = [self._argument(part, kind) for part, kind in zip(call.arguments, kinds, strict=True)]
        for part, kind, values in zip(call.arguments, kinds, arguments, strict=True):
            if kind == "column" and len(rows) and not np.isfinite(values[rows]).any():
                raise self.refuse(part, f"{self.words(part)} has no number in any of the {len(rows)} rows")
        if function.pairs:
            arguments += [self._settings(call)] + [self._settings(call, SEED)] * (function.compute is not paired)
        seen, positions = rows, []
        if function.compute is exponent:  # which budgets it uses is decided by all rows, in every sample
            seen, positions = whole, [np.searchsorted(whole, rows)]
        options = {name: self._argument(given[name], kind) for name, kind in function.options.items() if name in given}

        def of_rows(part: Any) -> Any:
            return part[seen] if isinstance(part, np.ndarray) else part

        inputs = [*([self.evidence.at(seen)] if function.of_rows else []), *map(of_rows, arguments), *positions]
        try:
            with np.errstate(all="ignore"):  # what becomes infinite is refused as a whole
                return function.compute(*inputs, **{name: of_rows(part) for name, part in options.items()})
        except UserError as problem:
            raise self.refuse(call, str(problem)) from None

    def _argument(self, node: Node, kind: str) -> Any:
        """Return an argument of a function: an array with an entry for every row, a number, or a word."""
        if (node, kind) not in self._columns:
            if inner := next(iter(self.calls(node)), None):
                raise self.refuse(inner, "a function inside another one is not allowed")
            self._columns[node, kind] = self._read_argument(node, kind)
        return self._columns[node, kind]

    def _read_argument(self, node: Node, kind: str) -> Any:
        if kind == "condition":
            return self.truth(node).to_numpy(dtype=bool, na_value=False)
        if kind == "column":
            value = self._number(node)
            if isinstance(value, pd.Series):
                return _floats(value)
        value = self.read(node)
        if (kind == "word" and isinstance(value, str)) or (kind == "number" and isinstance(value, float)):
            return value
        if kind == "value" and isinstance(value, pd.Series):
            return _numbered([value])
        expected = {"word": "a text in quotes", "number": "a number", "value": "a column", "column": "a column"}[kind]
        raise self.refuse(node, f"{expected} is expected here")

    def _settings(self, call: Call, *also: str) -> Ints:
        """Return for each row the number of its values of the axes that a function of pairs does not compare.

        `also` names more axes to leave out.
        """
        arms = list(self._axes_apart(call))
        others = [self.table[axis] for axis in self.evidence.axes if axis not in (*arms, *also)]
        return _numbered(others) if others else np.zeros(len(self.table), dtype=np.intp)

    def _axes_apart(self, call: Call) -> tuple[str, ...]:
        """Return the axes in which the rows of a pair differ: those of the arms, those tuned, and those of a curve."""
        named = tuple(self._axes_in(call.arguments[-2:]))
        if not named:
            raise self.refuse(call, f"the two conditions name no axis; axes are {', '.join(self.evidence.axes)}")
        if self.function(call).compute is paired:
            return named
        tuned = [value for name, value in call.options if name != WHERE]
        return (*named, *self._axes_in(tuned), *(axis for axis in self.evidence.axes if axis.startswith(BUDGET)))

    def _power(self, node: Power) -> Value:
        parts = [self._number(part) for part in (node.base, node.exponent)]
        with np.errstate(all="ignore"):
            result = np.float_power(*(_floats(part) if isinstance(part, pd.Series) else part for part in parts))
        if any(isinstance(part, pd.Series) for part in parts):
            return finite(result)
        if not np.isfinite(result):
            raise self.refuse(node, "this power is no number")
        return float(result)

    def _of_each(self, call: Call, word: str) -> Value:
        if len(call.arguments) != 1 or call.options:
            raise self.refuse(call, f"write {word}(x)")
        value = self._number(call.arguments[0])
        with np.errstate(all="ignore"):
            if isinstance(value, pd.Series):
                result = ELEMENTWISE[word](_floats(value))
                return finite(result)
            result = float(ELEMENTWISE[word](value))
        if np.isnan(result) and not np.isnan(value):
            raise self.refuse(call, f"the {word} of {value:g} is no number")
        return result

    def _axes_in(self, nodes: Iterable[Node]) -> Iterator[str]:
        """Return the axes that nodes name."""
        for part in (part for node in nodes for part in walk(node)):
            if isinstance(part, Name) and part.columns and part.columns[0] in self.evidence.axes:
                yield part.columns[0]


def _floats(values: pd.Series) -> Floats:
    return values.to_numpy(dtype=float, na_value=np.nan)


def _numbered(columns: list[pd.Series]) -> Ints:
    """Return for each row the number of its combination of values, null being a value of its own."""
    codes = [pd.factorize(column, use_na_sentinel=False)[0] for column in columns]
    return np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)[1].reshape(-1)

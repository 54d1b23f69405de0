"""Expressions over the columns of a table: `n_layers >= 4 and precision == 'bf16'`, `tokens / n_params >= 20`.

docs/report.md describes the grammar, and grammar.py parses it. Here a tree is evaluated node by node; nothing is run as
code. The page's filter does the same in JavaScript (report/page/static/filter.js), with the same results and messages.

Null works as in SQL: a comparison with null is neither true nor false, and a row is kept only if the whole expression
is true. `precision != 'bf16'` therefore drops rows without a precision; `precision is null` selects them. NaN and
infinity count as null.
"""

import re
from collections.abc import Callable, Sequence
from operator import add, eq, ge, gt, le, lt, mul, ne, sub, truediv
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Marks
from lmexp.analysis.grammar import (
    FILTER,
    ColumnNames,
    Comparison,
    Computed,
    Constant,
    Grammar,
    Items,
    Logic,
    Name,
    Negative,
    Node,
    Not,
    parse,
    parse_list,
    wrong,
)
from lmexp.errors import UserError, nearest

_COMPARE = {"==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
_COMPUTE = {"+": add, "-": sub, "*": mul, "/": truediv}
NUMBER, TEXT, TRUTH, UNKNOWN, NULL = "a number", "text", "true or false", "unknown", "null"
"""The kinds of values. Every value of a column of unknown kind is null, so it compares with anything."""
_NO_TRUTH = "this is neither true nor false; a comparison is, as in n_layers >= 4"
_NO_COLUMN = "neither side of this comparison is a column"

Value = pd.Series | str | float | bool | None
"""The value of an expression: a series with one value per row, or one constant for all rows."""


def matching(table: pd.DataFrame, expression: str) -> Marks:  # (rows,)
    """Return a mask of the rows for which an expression is true.

    Raises UserError, with the position in the expression, if it has a syntax error, names a column that does not
    exist, or compares text with numbers.
    """
    reader = Reader(table, expression)
    return reader.truth(parse(expression, reader.names)).to_numpy(dtype=bool, na_value=False)


def grouping(table: pd.DataFrame, expressions: str) -> dict[str, pd.Series]:
    """Return the values to group rows by, from expressions separated by commas: `model, n_layers >= 4`.

    The keys of the result are the expressions as the user wrote them. Raises UserError as `matching` does.
    """
    reader = Reader(table, expressions)
    columns: dict[str, pd.Series] = {}
    for part in parse_list(expressions, reader.names):
        values = reader.read(part)
        if not isinstance(values, pd.Series):
            raise UserError(f"cannot group by {reader.words(part)}: it is the same for every row")
        columns[reader.words(part)] = values.set_axis(table.index)
    return columns


def choosing(name: str, values: Sequence[Any]) -> str:
    """Return the expression that keeps the rows with one of these values in a column: `data.path = 'poem.txt'`."""
    column = f"`{name}`" if re.search(r"[^\w.]", name) else name
    written = [str(value) if isinstance(value, int | float) else _in_quotes(str(value)) for value in values]
    return f"{column} = {written[0]}" if len(written) == 1 else f"{column} in [{', '.join(written)}]"


def _in_quotes(text: str) -> str:
    return "'" + re.sub(r"(['\\])", r"\\\1", text) + "'"


def names_of(table: pd.DataFrame) -> ColumnNames:
    """Return how the columns of a table may be named."""
    return ColumnNames(map(str, table.columns))


def kind_of_column(values: pd.Series) -> str:
    """Return the kind of a column's values: NUMBER, TEXT, TRUTH, or UNKNOWN if all of them are null."""
    read = _readable(values)
    return UNKNOWN if read.isna().all() else _kind(read)


class Reader:
    """Evaluates an expression on the columns of a table."""

    grammar: Grammar = FILTER

    def __init__(self, table: pd.DataFrame, text: str) -> None:
        self.table, self.text = table, text
        self.names = names_of(table)

    def read(self, node: Node) -> Value:
        """Return the value of a node. Raises UserError, with the position, for what has none."""
        match node:
            case Constant(value=value):
                return value
            case Name():
                return self._column(node)
            case Logic(operator=operator, parts=parts):
                read = [self.truth(part) for part in parts]
                result = read[0]
                for other in read[1:]:
                    result = result & other if operator == "and" else result | other
                return result
            case Not(part=part):
                return ~self.truth(part)
            case Negative(part=part):
                return -self._number(part)
            case Computed(first=first, steps=steps):
                total = self._number(first)
                for operator, right in steps:
                    total = self._computed(node, _COMPUTE[operator], total, right)
                return total
            case Comparison(first=left, steps=steps):
                result = pd.Series(pd.array([True] * len(self.table), dtype="boolean"))
                for operator, right in steps:
                    result = result & self._compared(left, operator, right)
                    left = right
                return result
        raise self._wrong(node, f"this is not allowed here; {self.grammar.allowed}")

    def truth(self, node: Node) -> pd.Series:
        """Return whether a node is true in each row, null if that is not known.

        A word, a text or a number alone is true of a row if one of its texts has it; upper and lower case are the same.
        """
        if not self.grammar.has_functions and (searched := self._searched(node)) is not None:
            return self._search(searched)
        value = self.read(node)
        if isinstance(value, bool):
            return pd.Series(pd.array([value] * len(self.table), dtype="boolean"))
        if self._kind_at(node, value) in (TRUTH, UNKNOWN):
            assert isinstance(value, pd.Series)
            return value.astype("boolean")
        raise self._wrong(node, _NO_TRUTH)

    def words(self, node: Node) -> str:
        """Return the text of a node as the user wrote it."""
        return node.name if isinstance(node, Name) else self.text[node.start : node.end]

    def _searched(self, node: Node) -> str | None:
        """Return what a node searches for, or None if it is no search."""
        match node:
            case Name(name=name) if node.is_word:
                return name
            case Constant(value=str() as text):
                return text
            case Constant(value=float()):
                return self.words(node)
        return None

    def _search(self, searched: str) -> pd.Series:
        result = np.zeros(len(self.table), dtype=bool)
        for values in map(self.table.__getitem__, self.table):
            if kind_of_column(values) == TEXT:
                result |= _contains(values.astype("string").str.lower(), searched.lower()).to_numpy(
                    bool, na_value=False
                )
        return pd.Series(result, dtype="boolean")

    def _column(self, node: Name) -> pd.Series:
        if not node.columns:
            hint = nearest(node.name, {**self.names.own, **self.names.spellings})
            raise self._wrong(node, f"there is no column '{node.name}'.{hint}")
        if len(node.columns) > 1:
            raise self._wrong(node, f"'{node.name}' may mean {' or '.join(node.columns)}; write one of them")
        return _readable(self.table[node.columns[0]])

    def _number(self, node: Node) -> Any:
        value = self.read(node)
        if self._kind_at(node, value) not in (NUMBER, UNKNOWN):
            raise self._wrong(node, f"this is {_kind(value)}, not a number")
        return value

    def _computed(self, node: Node, operation: Callable[[Any, Any], Any], total: Any, right: Node) -> Value:
        other = self._number(right)
        if isinstance(total, pd.Series) or isinstance(other, pd.Series):
            with np.errstate(all="ignore"):
                return finite(operation(_floats(total), _floats(other)))
        try:
            result = float(operation(total, other))
        except ZeroDivisionError:
            raise self._wrong(right, "a division by zero") from None
        if np.isinf(result):
            raise self._wrong(node, "this number is too large")
        return result

    def _compared(self, left: Node, operator: str, right: Node) -> pd.Series:
        """Return the result of one comparison; it is null in rows where either side is null."""
        if operator.endswith("in"):
            result = self._in_list(left, right) if isinstance(right, Items) else self._part_of(left, right)
            return ~result if operator == "not in" else result
        first = self.read(left)
        folds = self._is_text(right, self._kind_at(left, first))
        second = right.name.lower() if folds and isinstance(right, Name) else self.read(right)
        are_columns = isinstance(first, pd.Series) or isinstance(second, pd.Series)
        if first is None or second is None:
            if operator not in ("==", "!="):
                raise self._wrong(left, "null is neither more nor less than anything; write is null")
            if not are_columns:
                raise self._wrong(left, _NO_COLUMN)
            values = second if first is None else first
            assert isinstance(values, pd.Series)
            return (values.isna() if operator == "==" else values.notna()).astype("boolean")
        self._check_kinds(left, first, right, second)
        if not are_columns:
            raise self._wrong(left, _NO_COLUMN)
        if folds:
            first = _folded(first)
        if self._kind_at(left, first) == UNKNOWN or self._kind_at(right, second) == UNKNOWN:
            return pd.Series(pd.array([pd.NA] * len(self.table), dtype="boolean"))
        return pd.Series(_COMPARE[operator](first, second), dtype="boolean")

    def _in_list(self, left: Node, right: Items) -> pd.Series:
        """Return the result of `column in [...]`."""
        first = self.read(left)
        if not isinstance(first, pd.Series):
            raise self._wrong(left, "the left side of `in [...]` must be a column")
        result = pd.Series(pd.array([False] * len(first), dtype="boolean"))
        kind = self._kind_at(left, first)
        for item in right.items:
            if isinstance(item, Name) and self._is_text(item, kind):
                result = result | (_folded(first) == item.name.lower()).astype("boolean")
                continue
            value = self.read(item)
            if value is None or isinstance(value, pd.Series):
                raise self._wrong(item, "a list holds numbers or texts")
            self._check_kinds(left, first, item, value)
            if kind != UNKNOWN:
                result = result | (first == value).astype("boolean")
        return result.mask(first.isna(), pd.NA)

    def _part_of(self, left: Node, right: Node) -> pd.Series:
        """Return the result of `'part' in column`."""
        is_word = self._is_text(left, TEXT)
        part = left.name.lower() if is_word and isinstance(left, Name) else self.read(left)
        second = self.read(right)
        kind = self._kind_at(right, second)
        if not isinstance(part, str) or kind not in (TEXT, UNKNOWN) or not isinstance(second, pd.Series):
            raise self._wrong(right, "after `in` comes a list, as in ['fp32', 'bf16'], or a column of text")
        return _contains(_folded(second) if is_word else second.astype("string"), part)

    def _is_text(self, node: Node, kind: str) -> bool:
        """Whether a node beside a value of some kind is a text without quotes."""
        return isinstance(node, Name) and node.is_word and kind in (TEXT, UNKNOWN) and not self.grammar.has_functions

    def _check_kinds(self, left: Node, first: Value, right: Node, second: Value) -> None:
        kinds = [self._kind_at(left, first), self._kind_at(right, second)]
        if kinds[0] != kinds[1] and UNKNOWN not in kinds:
            held = f"{self.words(left)} is {kinds[0]}, {self.words(right)} is {kinds[1]}"
            hint = f"; write '{self.words(right)}'" if kinds[0] == TEXT and isinstance(second, float) else ""
            raise self._wrong(right, f"{held}: these do not compare{hint}")

    def _kind_at(self, node: Node, value: Value) -> str:
        is_unknown = isinstance(node, Name) and isinstance(value, pd.Series) and value.isna().all()
        return UNKNOWN if is_unknown else _kind(value)

    def _wrong(self, node: Node, what: str) -> UserError:
        return wrong(self.text, node.start, what)


def finite(values: Any) -> pd.Series:  # (n,)
    """Return numbers as a nullable column; NaN and infinity are null."""
    floats = np.asarray(values, dtype=float)
    return pd.Series(pd.array(np.where(np.isfinite(floats), floats, np.nan), dtype="Float64"))


def _readable(values: pd.Series) -> pd.Series:
    """Return a column as numbers, texts, or true and false, with null; a column of nulls counts as numbers."""
    values = values.reset_index(drop=True)
    if values.isna().all():
        return finite([np.nan] * len(values))
    if pd.api.types.is_bool_dtype(values):
        return values.astype("boolean")
    if pd.api.types.is_numeric_dtype(values):
        return finite(values.to_numpy(dtype=float, na_value=np.nan))
    return values.astype("string")


def _floats(value: Any) -> Any:
    return value.to_numpy(dtype=float, na_value=np.nan) if isinstance(value, pd.Series) else value


def _folded(values: Any) -> pd.Series:
    return values.astype("string").str.lower()


def _contains(texts: pd.Series, part: str) -> pd.Series:
    return texts.str.contains(part, regex=False).astype("boolean")


def _kind(value: Value) -> str:
    if isinstance(value, pd.Series):
        if pd.api.types.is_bool_dtype(value):
            return TRUTH
        return NUMBER if pd.api.types.is_numeric_dtype(value) else TEXT
    if value is None:
        return NULL
    if isinstance(value, bool):
        return TRUTH
    return TEXT if isinstance(value, str) else NUMBER

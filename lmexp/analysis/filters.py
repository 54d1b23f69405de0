"""Expressions over the columns of a table: `n_layers >= 4 and precision == 'bf16'`, `tokens / n_params >= 20`.

Column names are written as in the table, with their dots and slashes (`model.n_layers`, `score/tag/span_f1`). A name
with other special characters goes in backquotes. Python's own parser parses the expression, and this file then
evaluates the tree node by node. Everything that is not listed below is an error, and nothing is ever run as code.

    and  or  not  ( )      comparisons, also chained: 2 <= n_layers < 8      + - * /
    precision in ['bf16', 'fp16'], not in         'tiny' in model (substring)
    loss is null, is not null                     numbers, strings in quotes, true, false

Null works as in SQL: a comparison with null is neither true nor false, and a row is kept only if the whole expression
is true. `precision != 'bf16'` therefore drops rows without a precision; `precision is null` selects them. NaN counts
as null.
"""

import ast
import math
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import add, eq, ge, gt, le, lt, mul, ne, sub, truediv
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Marks
from lmexp.errors import UserError, nearest
from lmexp.units import printable

MAX_CHARACTERS = 5_000
_COMPARE = {ast.Eq: eq, ast.NotEq: ne, ast.Lt: lt, ast.LtE: le, ast.Gt: gt, ast.GtE: ge}
_COMPUTE = {ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.Div: truediv}
_CONSTANTS = {"true": True, "false": False, "null": None}
_OWN_WORDS = {"and", "or", "not", "in", "is", "True", "False", "None", *_CONSTANTS}
_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`|[^\W\d][\w.]*(?:/\w[\w.]*)*|\d[\w.]*|.""")
_ALLOWED = "allowed are names of columns, numbers, texts in quotes, comparisons, in, is null, and, or, not, + - * /"

Value = pd.Series | str | float | bool | None
"""The value of an expression: a series with one value per row, or one constant for all rows."""


def matching(table: pd.DataFrame, expression: str) -> Marks:  # (rows,)
    """Return a mask of the rows for which an expression is true.

    Raises UserError, with the position in the expression, if it has a syntax error, names a column that does not
    exist, or compares text with numbers.
    """
    reader = Reader(table, with_plain_names(expression, map(str, table.columns)))
    mask = reader.value(reader.parse())
    if isinstance(mask, bool):
        return np.full(len(table), mask)
    if not isinstance(mask, pd.Series) or not pd.api.types.is_bool_dtype(mask):
        raise UserError(f"'{expression}' is neither true nor false; a comparison is, as in n_layers >= 4")
    return mask.to_numpy(dtype=bool, na_value=False)


def grouping(table: pd.DataFrame, expressions: str) -> dict[str, pd.Series]:
    """Return the values to group rows by, from expressions separated by commas: `model, n_layers >= 4`.

    The keys of the result are the expressions as the user wrote them. Raises UserError as `matching` does.
    """
    reader = Reader(table, with_plain_names(expressions, map(str, table.columns)))
    node = reader.parse()
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    columns: dict[str, pd.Series] = {}
    for part in parts:
        values = reader.value(part)
        if not isinstance(values, pd.Series):
            raise UserError(f"cannot group by {reader.words(part)}: it is the same for every row")
        columns[reader.words(part)] = values.set_axis(table.index)
    return columns


@dataclass(frozen=True)
class Names:
    """An expression whose column names were replaced by valid Python names, with a map back to the original."""

    original: str
    text: str
    columns: dict[str, str]
    """Placeholder name in `text` -> column."""
    places: list[int]
    """Position in the original of each character of `text`, and of the end."""


def with_plain_names(expression: str, columns: Iterable[str], divides: bool = False) -> Names:
    """Replace each column by a short placeholder, because Python would read `score/tag/span_f1` as divisions.

    With `divides`, a slash in what is no column is a division: names may then be those of other things than columns.
    """
    if len(expression) > MAX_CHARACTERS:
        raise UserError(f"an expression of {len(expression):,} characters; allowed are {MAX_CHARACTERS:,}")
    if "\0" in expression:
        raise UserError("an expression with a null character")
    known = set(columns)
    names: dict[str, str] = {}
    text, places = "", []

    def put(piece: str, at: int) -> None:
        nonlocal text
        text += piece
        places.extend([at] * len(piece))

    at = 0
    flat = re.sub(r"\s", " ", expression)
    while at < len(flat):
        match = _TOKEN.match(flat, at)
        assert match is not None, "the last alternative takes any character"
        word = match.group()
        if word == "#":
            raise UserError(f"in the expression, at '#' (character {at + 1}): this is not allowed here; {_ALLOWED}")
        if word[0] == "`" and len(word) > 1:
            column = word[1:-1]
        elif word[0].isalpha() or word[0] == "_":
            column, word = _column_at(flat, at, word, known, divides)
        else:
            places.extend(range(at, at + len(word)))
            text += word
            at += len(word)
            continue
        if column in _OWN_WORDS and word[0] != "`":
            put(word, at)
        else:
            plain = f"c{len(names)}"
            names[plain] = column
            put(plain, at)
        at += len(word)
    return Names(expression, text, names, [*places, len(flat)])


def _column_at(text: str, at: int, word: str, known: set[str], divides: bool) -> tuple[str, str]:
    """Return the column that starts at a position, and its text there. The longest match wins: `a/b` before `a`."""
    ends = [match.end() for match in re.finditer(r"[^\s()\[\]<>=!'\"]+?(?![\w.])", text[at:])]
    for end in reversed(ends[:40]):
        if text[at : at + end] in known:
            return text[at : at + end], text[at : at + end]
    parts = word.split("/")
    if len(parts) > 1 and (divides or parts[0] in known):  # `tokens/n_params` is a division
        return parts[0], parts[0]
    return word, word


class Reader:
    """Evaluates an expression on the columns of a table."""

    allowed = _ALLOWED
    """What an expression may hold, for messages."""

    def __init__(self, table: pd.DataFrame, names: Names) -> None:
        self.table, self.names = table, names

    def parse(self) -> ast.expr:
        """Return the syntax tree. Raises UserError for a syntax error."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # harmless warnings, such as an unknown escape in a string
                return ast.parse(self.names.text.strip() or "()", mode="eval").body
        except SyntaxError as error:
            lead = len(self.names.text) - len(self.names.text.lstrip())
            at = min(max((error.offset or 1) - 1 + lead, 0), len(self.names.places) - 1)
            place = self.names.places[at]
            equal = "; write == for equal" if self.names.original[place : place + 1] == "=" else ""
            raise self._wrong(place, f"this is no expression{equal}; {self.allowed}") from None
        except (ValueError, RecursionError, MemoryError):
            raise self._too_deep() from None

    def value(self, node: ast.expr) -> Value:
        """Return the value of a whole expression."""
        try:
            return self.read(node)
        except RecursionError:
            raise self._too_deep() from None

    def read(self, node: ast.expr) -> Value:
        """Return the value of a node. Raises UserError, with the position, for syntax that is not allowed."""
        match node:
            case ast.Constant(value=value) if value is None or isinstance(value, bool | str):
                return value
            case ast.Constant(value=int() | float() as value):
                return self._finite(node, value)
            case ast.Name(id=name) if name in _CONSTANTS:
                return _CONSTANTS[name]
            case ast.Name(id=name):
                return self._column(node, name)
            case ast.BoolOp(op=op, values=parts):
                read = [self._truth(part) for part in parts]
                result = read[0]
                for other in read[1:]:
                    result = result & other if isinstance(op, ast.And) else result | other
                return result
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self._truth(operand)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._number(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _COMPUTE:
                return self._computed(_COMPUTE[type(op)], left, right)
            case ast.Compare(left=left, ops=ops, comparators=others):
                steps = zip([left, *others], ops, others, strict=False)
                truths = [self._compared(*step) for step in steps]
                result = truths[0]
                for other in truths[1:]:
                    result = result & other
                return result
        raise self._wrong(self._place(node), f"this is not allowed here; {self.allowed}")

    def words(self, node: ast.expr) -> str:
        """Return the text of a node as the user wrote it."""
        lead = len(self.names.text) - len(self.names.text.lstrip())
        line = self.names.text.strip().encode()
        start = len(line[: node.col_offset].decode()) + lead
        end = len(line[: node.end_col_offset].decode()) + lead
        last = self.names.places[end - 1]
        after = next((place for place in self.names.places[end:] if place > last), self.names.places[-1])
        return self.names.original[self.names.places[start] : after].strip(" ,`")

    def _finite(self, node: ast.expr, number: float) -> float:
        try:
            if math.isfinite(number):
                return float(number)
        except OverflowError:  # a whole number without bounds
            pass
        raise self._wrong(self._place(node), "this number is too large")

    def _column(self, node: ast.expr, name: str) -> pd.Series:
        column = self.names.columns.get(name, name)
        if column not in self.table:
            hint = nearest(column, map(str, self.table.columns))
            raise self._wrong(self._place(node), f"there is no column '{column}'.{hint}")
        values = self.table[column].reset_index(drop=True)
        if pd.api.types.is_bool_dtype(values):
            return values.astype("boolean")
        if pd.api.types.is_numeric_dtype(values):
            return _numeric(values.to_numpy(dtype=float, na_value=np.nan))
        if values.isna().all():  # the type of an empty column is unknown
            return pd.Series(pd.array([pd.NA] * len(values), dtype="Float64"))
        return values.astype("string")

    def _truth(self, node: ast.expr) -> pd.Series:
        value = self.read(node)
        if isinstance(value, bool):
            return pd.Series(pd.array([value] * len(self.table), dtype="boolean"))
        if isinstance(value, pd.Series) and (pd.api.types.is_bool_dtype(value) or value.isna().all()):
            return value.astype("boolean")
        raise self._wrong(self._place(node), "this is neither true nor false; a comparison is, as in n_layers >= 4")

    def _number(self, node: ast.expr) -> Any:
        value = self.read(node)
        if _kind(value) != "a number":
            raise self._wrong(self._place(node), f"this is {_kind(value)}, not a number")
        return value

    def _computed(self, operation: Callable[[Any, Any], Any], left: ast.expr, right: ast.expr) -> Value:
        first, second = self._number(left), self._number(right)
        if isinstance(first, pd.Series) or isinstance(second, pd.Series):
            with np.errstate(all="ignore"):
                return _numeric(np.asarray(operation(_floats(first), _floats(second)), dtype=float))
        try:
            return float(operation(first, second))
        except ZeroDivisionError:
            raise self._wrong(self._place(right), "a division by zero") from None

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pd.Series:
        """Return the result of one comparison; it is null in rows where either side is null."""
        if isinstance(op, ast.In | ast.NotIn):
            result = self._contained(left, right)
            return ~result if isinstance(op, ast.NotIn) else result
        first, second = self.read(left), self.read(right)
        if first is None or second is None or isinstance(op, ast.Is | ast.IsNot):
            return self._is_null(left, first, op, right, second)
        self._check_kinds(left, first, right, second)
        if not isinstance(first, pd.Series) and not isinstance(second, pd.Series):
            raise self._wrong(self._place(left), "neither side of this comparison is a column")
        result = _COMPARE[type(op)](first, second)
        return pd.Series(result, dtype="boolean")

    def _is_null(self, left: ast.expr, first: Value, op: ast.cmpop, right: ast.expr, second: Value) -> pd.Series:
        values = first if second is None else second
        if (first is not None and second is not None) or not isinstance(values, pd.Series):
            raise self._wrong(self._place(right), "after a column, `is` takes null: loss is null, loss is not null")
        if isinstance(op, ast.Is | ast.Eq):
            return values.isna().astype("boolean")
        if isinstance(op, ast.IsNot | ast.NotEq):
            return values.notna().astype("boolean")
        raise self._wrong(self._place(left), "null is neither more nor less than anything; write is null")

    def _contained(self, left: ast.expr, right: ast.expr) -> pd.Series:
        """Return the result of `column in [...]` or of `'part' in column`."""
        first = self.read(left)
        if isinstance(right, ast.List | ast.Tuple | ast.Set):
            if not isinstance(first, pd.Series):
                raise self._wrong(self._place(left), "the left side of `in [...]` must be a column")
            result = pd.Series(pd.array([False] * len(first), dtype="boolean"))
            for item in right.elts:
                value = self.read(item)
                if value is None or isinstance(value, pd.Series):
                    raise self._wrong(self._place(item), "a list holds numbers or texts")
                self._check_kinds(left, first, item, value)
                result = result | (first == value).astype("boolean")
            return result.mask(first.isna(), pd.NA)
        second = self.read(right)
        if isinstance(first, str) and isinstance(second, pd.Series) and _kind(second) == "text":
            return second.str.contains(first, regex=False).astype("boolean")
        raise self._wrong(self._place(right), "after `in` stands a list, as in ['fp32', 'bf16'], or a column of text")

    def _check_kinds(self, left: ast.expr, first: Value, right: ast.expr, second: Value) -> None:
        unknown = any(isinstance(value, pd.Series) and value.isna().all() for value in (first, second))
        if _kind(first) != _kind(second) and not unknown:
            held = f"{self.words(left)} is {_kind(first)}, {self.words(right)} is {_kind(second)}"
            hint = f"; write '{self.words(right)}'" if _kind(first) == "text" and isinstance(second, float) else ""
            raise self._wrong(self._place(right), f"{held}: these do not compare{hint}")

    def _place(self, node: ast.expr) -> int:
        lead = len(self.names.text) - len(self.names.text.lstrip())
        characters = len(self.names.text.strip().encode()[: node.col_offset].decode())
        return self.names.places[min(characters + lead, len(self.names.places) - 1)]

    def _too_deep(self) -> UserError:
        return UserError(f"the expression '{printable(self.names.original[:40])}...' is nested too deeply")

    def _wrong(self, place: int, what: str) -> UserError:
        here = printable(self.names.original[place : place + 20])
        at = f"at '{here}' (character {place + 1})" if here else "at its end"
        return UserError(f"in the expression, {at}: {what}")


def _numeric(values: np.ndarray) -> pd.Series:
    """Return numbers as a nullable column, with NaN as null."""
    return pd.Series(pd.array(np.where(np.isnan(values), np.nan, values), dtype="Float64"))


def _floats(value: Any) -> Any:
    return value.to_numpy(dtype=float, na_value=np.nan) if isinstance(value, pd.Series) else value


def _kind(value: Value) -> str:
    if isinstance(value, pd.Series):
        if pd.api.types.is_bool_dtype(value):
            return "true or false"
        return "a number" if pd.api.types.is_numeric_dtype(value) else "text"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    return "text" if isinstance(value, str) else "a number"

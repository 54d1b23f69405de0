"""The grammar of expressions over columns: from a text to a tree. docs/report.md describes it for users.

The page reads its filter by the same grammar (report/page/static/filter.js), with the same messages at the same places.
A test runs both on the same expressions, so a change here needs the same change there. Nothing is run as code.

    either      all {or all}
    all         negated {[and] negated}             side by side: both must be true
    negated     not negated | comparison
    comparison  sum {(< <= > >= == = != is [not]) sum | [not] in (list | sum)}
    sum         product {(+ -) product}
    product     unary {(* /) unary}
    unary       (- +) unary | power
    power       atom [(** ^) unary]                 with functions only
    atom        column | word | number | text | true | false | null | ( either ) | function ( ... )

With functions, as claims and laws have them, conditions cannot stand side by side, and a word is an identifier.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

from lmexp.errors import UserError
from lmexp.runs.columns import column
from lmexp.units import printable

MAX_CHARACTERS = 5_000
MAX_DEPTH = 40
"""Levels of parentheses, `not` and signs."""
UNITS = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "Z": 1e21, "Y": 1e24}
"""What may end a number: the SI prefixes, and B for a billion."""
CONSTANTS = {"true": True, "false": False, "null": None, "none": None}
KEYWORDS = {"and", "or", "not", "in", "is", *CONSTANTS}

_SPACE = re.compile("[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_TEXT = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_SIGN = re.compile(r"<=|>=|==|!=|\*\*|[-<>=()\[\],*/+^]")
_NUMBER = re.compile(r"((?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?)([kKMGBTPEZY]?)(?![\w.])")
_WORD = re.compile(r"[^\s<>=!()\[\],'\"`*+&|#;{}\\^$?\x85]+")
_NAME_ENDS = r"(?![\w.])"
_CALL = re.compile(r"([^\W\d]\w*)\s*(?=\()")
_COMPARISONS = {"<", "<=", ">", ">=", "==", "!=", "in", "is"}


@dataclass(frozen=True)
class Grammar:
    """Which grammar an expression follows: that of filters, or the same with functions, as claims and laws have it."""

    allowed: str
    """What an expression may hold, for messages."""
    word: re.Pattern[str] = _WORD
    """What a name that is no column looks like: a text without quotes or, with functions, a parameter."""
    has_functions: bool = False
    """Whether `**`, `^` and calls of functions are allowed. A word alone is then no search for a text."""


FILTER = Grammar("allowed are names of columns, numbers, texts, comparisons, in, is, and, or, not, + - * /")


@dataclass(frozen=True)
class Node:
    """A part of an expression."""

    start: int = field(kw_only=True)
    """Where it begins in the text."""
    end: int = field(kw_only=True)
    """Where it ends, exclusive."""


@dataclass(frozen=True)
class Constant(Node):
    """A number, a text, true, false or null."""

    value: float | str | bool | None


@dataclass(frozen=True)
class Name(Node):
    """A name, of a column or not."""

    name: str
    columns: tuple[str, ...]
    """The columns that it may mean: one if it is clear, none if it is no column."""
    is_quoted: bool = False
    """Whether it stands in backquotes, so that it can only be a column."""

    @property
    def is_word(self) -> bool:
        """Whether it is no column, and may be a text without quotes."""
        return not self.columns and not self.is_quoted


@dataclass(frozen=True)
class Logic(Node):
    """Conditions joined by `and` or by `or`."""

    operator: str
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Not(Node):
    """A condition with `not` before it."""

    part: Node


@dataclass(frozen=True)
class Negative(Node):
    """A number with a minus before it."""

    part: Node


@dataclass(frozen=True)
class Computed(Node):
    """A chain of sums and differences, or one of products and quotients: `a - b + c` has two steps."""

    first: Node
    steps: tuple[tuple[str, Node], ...]
    """The sign and the number at its right."""


@dataclass(frozen=True)
class Power(Node):
    """A number to the power of another."""

    base: Node
    exponent: Node


@dataclass(frozen=True)
class Comparison(Node):
    """A value, then comparisons and values: `2 <= n_layers < 8` has two steps. `is` is `==`, and `is not` is `!=`."""

    first: Node
    steps: tuple[tuple[str, Node], ...]
    """The comparison (`<`, `<=`, `>`, `>=`, `==`, `!=`, `in` or `not in`) and the value at its right."""


@dataclass(frozen=True)
class Items(Node):
    """The list after `in`."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class Call(Node):
    """A call of a function."""

    name: str
    arguments: tuple[Node, ...]
    options: tuple[tuple[str, Node], ...]
    """The arguments that have a name."""


@dataclass(frozen=True)
class _Token:
    kind: str
    """`name`, `number`, `text`, `call`, a keyword or a sign."""
    start: int
    end: int
    value: float | str = ""
    """The number, the text without its quotes, or the name of a column or function; empty for other kinds."""
    columns: tuple[str, ...] = ()
    """The columns that a name may mean; empty for other kinds."""


class ColumnNames:
    """How the columns of a table may be named in an expression.

    A column has its own name, its title in reports (`train_time`), and what stands after its last dot (`lr` for
    `optim.lr`); spaces in titles are underscores. Upper and lower case count only if two columns differ in nothing
    else. An own name comes before a title, and a title before the end of another name.
    """

    def __init__(self, columns: Iterable[str], has_short: bool = True) -> None:
        """Without `has_short`, own names alone count, in their own case: other names are those of parameters."""
        self.own = dict.fromkeys(columns)
        self.spellings: dict[str, tuple[str, ...]] = {}
        """The columns that a spelling in lower case may mean."""
        ranks: dict[str, int] = {}
        for name in self.own if has_short else ():
            for rank, spelling in enumerate((name, column(name).title.replace(" ", "_"), name.rsplit(".", 1)[-1])):
                key = spelling.lower()
                if rank < ranks.get(key, rank + 1):
                    ranks[key], self.spellings[key] = rank, (name,)
                elif rank == ranks[key] and name not in self.spellings[key]:
                    self.spellings[key] = (*self.spellings[key], name)
        known = sorted(filter(None, {*self.own, *self.spellings}), key=len, reverse=True)
        pattern = f"(?:{'|'.join(map(re.escape, known))}){_NAME_ENDS}" if known else "(?!)"
        self._pattern = re.compile(pattern, re.IGNORECASE if has_short else re.NOFLAG)

    def at(self, text: str, place: int) -> str | None:
        """Return the longest name of a column that begins at a place of the text, as the text writes it."""
        match = self._pattern.match(text, place)
        return match.group() if match and match.group().lower() not in KEYWORDS else None

    def meant(self, spelling: str) -> tuple[str, ...]:
        """Return the columns that a spelling may mean."""
        return (spelling,) if spelling in self.own else self.spellings.get(spelling.lower(), ())


def parse(text: str, names: ColumnNames, grammar: Grammar = FILTER) -> Node:
    """Return the tree of an expression. Raises UserError for a syntax error, with its place."""
    return parse_list(text, names, grammar, at_most=1)[0]


def parse_list(text: str, names: ColumnNames, grammar: Grammar = FILTER, at_most: int | None = None) -> list[Node]:
    """Return the trees of expressions with commas between them. Raises UserError for a syntax error."""
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"an expression of {len(text):,} characters; allowed are {MAX_CHARACTERS:,}")
    if lone := re.search("[\ud800-\udfff]", text):  # a byte of the command line that is not UTF-8
        raise wrong(text, lone.start(), "this is not UTF-8")
    parser = _Parser(text, names, grammar)
    parts = [parser.either()]
    while len(parts) != at_most and parser.took(","):
        parts.append(parser.either())
    parser.end()
    return parts


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all its parts."""
    yield node
    match node:
        case Logic(parts=parts) | Items(items=parts):
            pass
        case Not(part=part) | Negative(part=part):
            parts = (part,)
        case Computed(first=first, steps=steps) | Comparison(first=first, steps=steps):
            parts = (first, *(right for _, right in steps))
        case Power(base=base, exponent=exponent):
            parts = (base, exponent)
        case Call(arguments=arguments, options=options):
            parts = (*arguments, *(value for _, value in options))
        case _:
            parts = ()
    for part in parts:
        yield from walk(part)


def names_in(node: Node) -> list[str]:
    """Return the names in an expression, without those of functions; a column by the name that its table has."""
    named = [part for part in walk(node) if isinstance(part, Name)]
    return list(dict.fromkeys(name for part in named for name in part.columns or (part.name,)))


def wrong(text: str, place: int, what: str) -> UserError:
    """Return the error for a place in an expression."""
    here = printable(text[place : place + 20])
    at = f"at '{here}' (character {place + 1})" if here else "at its end"
    return UserError(f"in the expression, {at}: {printable(what)}")


class _Parser:
    """Reads the tokens of one expression from left to right; each method is one rule of the grammar."""

    def __init__(self, text: str, names: ColumnNames, grammar: Grammar) -> None:
        self.text, self.grammar = text, grammar
        self.tokens = list(_tokens(text, names, grammar))
        self.next = 0
        self.depth = 0

    def peek(self, ahead: int = 0) -> str | None:
        """Return the kind of the next token, or of one further ahead; None at the end."""
        at = self.next + ahead
        return self.tokens[at].kind if at < len(self.tokens) else None

    def took(self, *kinds: str) -> _Token | None:
        """Return the next token and go past it if it is of one of these kinds; else return None."""
        if self.peek() not in kinds:
            return None
        self.next += 1
        return self.tokens[self.next - 1]

    def end(self) -> None:
        """Raise UserError unless nothing is left."""
        if self.peek() == ")":
            raise self._wrong("this parenthesis closes none")
        if self.peek() is not None:
            self._refuse()

    def either(self) -> Node:
        parts = [self.all()]
        while self.took("or"):
            parts.append(self.all())
        return self._joined("or", parts)

    def all(self) -> Node:
        parts = [self.negated()]
        ends = (None, "or", ")", "]", ",")
        while self.took("and") or not (self.grammar.has_functions or self.peek() in ends):
            parts.append(self.negated())
        return self._joined("and", parts)

    def _joined(self, operator: str, parts: list[Node]) -> Node:
        return parts[0] if len(parts) == 1 else Logic(operator, tuple(parts), start=parts[0].start, end=parts[-1].end)

    def negated(self) -> Node:
        if sign := self.took("not"):
            with self._nested(sign):
                part = self.negated()
            return Not(part, start=sign.start, end=part.end)
        return self.comparison()

    def comparison(self) -> Node:
        first = self.sum()
        steps: list[tuple[str, Node]] = []
        while operator := self._comparison_sign():
            right = self.items() if operator.endswith("in") and self.peek() in ("[", "(") else self.sum()
            steps.append((operator, right))
        return Comparison(first, tuple(steps), start=first.start, end=steps[-1][1].end) if steps else first

    def _comparison_sign(self) -> str | None:
        if self.peek() == "not" and self.peek(1) == "in":
            self.next += 2
            return "not in"
        sign = self.took(*_COMPARISONS, "=")
        if sign is None:
            return None
        if sign.kind == "is":
            return "!=" if self.took("not") else "=="
        return "==" if sign.kind == "=" else sign.kind

    def items(self) -> Node:
        opening = self.took("[", "(")
        assert opening is not None
        closing = "]" if opening.kind == "[" else ")"
        items: list[Node] = []
        while self.peek() != closing:
            if self.peek() is None:
                self._not_closed(opening)
            items.append(self.sum())
            if not self.took(",") and self.peek() not in (closing, None):
                self._refuse()
        last = self.took(closing)
        assert last is not None
        return Items(tuple(items), start=opening.start, end=last.end)

    def sum(self) -> Node:
        return self._chained(self.product, "+", "-")

    def product(self) -> Node:
        return self._chained(self.unary, "*", "/")

    def _chained(self, part: Callable[[], Node], *signs: str) -> Node:
        first = part()
        steps: list[tuple[str, Node]] = []
        while sign := self.took(*signs):
            steps.append((sign.kind, part()))
        return Computed(first, tuple(steps), start=first.start, end=steps[-1][1].end) if steps else first

    def unary(self) -> Node:
        if sign := self.took("-", "+"):
            with self._nested(sign):
                part = self.unary()
            return Negative(part, start=sign.start, end=part.end) if sign.kind == "-" else part
        return self.power()

    def power(self) -> Node:
        base = self.atom()
        if self.grammar.has_functions and (sign := self.took("**", "^")):
            with self._nested(sign):
                exponent = self.unary()
            return Power(base, exponent, start=base.start, end=exponent.end)
        return base

    def atom(self) -> Node:
        if opening := self.took("("):
            with self._nested(opening):
                node = self.either()
            self._close(opening)
            return node
        token = self.took("name", "number", "text", "call", *CONSTANTS)
        if token is None:
            self._refuse()
        place = {"start": token.start, "end": token.end}
        if token.kind == "name":
            return Name(str(token.value), token.columns, self.text[token.start] == "`", **place)
        if token.kind == "call":
            return self.call(token)
        return Constant(CONSTANTS.get(token.kind, token.value), **place)

    def call(self, name: _Token) -> Node:
        opening = self.took("(")
        assert opening is not None
        arguments: list[Node] = []
        options: list[tuple[str, Node]] = []
        with self._nested(opening):
            while self.peek() not in (")", None):
                if self.peek() == "name" and self.peek(1) == "=":
                    options.append((str(self.tokens[self.next].value), self._after(2)))
                elif options:
                    raise self._wrong("an argument without a name comes before those with one")
                else:
                    arguments.append(self.either())
                if not self.took(","):
                    break
        closing = self._close(opening)
        return Call(str(name.value), tuple(arguments), tuple(options), start=name.start, end=closing.end)

    def _after(self, tokens: int) -> Node:
        self.next += tokens
        return self.either()

    def _close(self, opening: _Token) -> _Token:
        if closing := self.took(")"):
            return closing
        if self.peek() is None:
            self._not_closed(opening)
        self._refuse()

    @contextmanager
    def _nested(self, token: _Token) -> Iterator[None]:
        """Count one level of parentheses, signs or `not`. Raises UserError if there are too many."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise wrong(self.text, token.start, "this is nested too deeply")
        yield
        self.depth -= 1

    def _not_closed(self, opening: _Token) -> NoReturn:
        what = "this parenthesis" if opening.kind == "(" else "this bracket"
        raise wrong(self.text, opening.start, f"{what} is not closed")

    def _refuse(self) -> NoReturn:
        if self.peek() is None:
            raise wrong(self.text, len(self.text), "something is missing, as in n_layers >= 4")
        raise self._wrong(f"this is not allowed here; {self.grammar.allowed}")

    def _wrong(self, what: str) -> UserError:
        return wrong(self.text, self.tokens[self.next].start, what)


def _tokens(text: str, names: ColumnNames, grammar: Grammar) -> Iterator[_Token]:
    """Yield the tokens of an expression. Raises UserError for a character that begins none."""
    at = 0
    while at < len(text):
        if space := _SPACE.match(text, at):
            at = space.end()
            continue
        token = _token(text, at, names, grammar)
        yield token
        at = token.end


def _token(text: str, at: int, names: ColumnNames, grammar: Grammar) -> _Token:
    if text[at] == "`":
        end = text.find("`", at + 1)
        if end < 0:
            raise wrong(text, at, "this name has no closing backquote")
        name = text[at + 1 : end]
        return _Token("name", at, end + 1, name, names.meant(name))
    if text[at] in "'\"":
        match = _TEXT.match(text, at)
        if match is None:
            raise wrong(text, at, "this text has no closing quote")
        quoted = match.group()[1:-1]
        return _Token("text", at, match.end(), re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
    if grammar.has_functions and (match := _CALL.match(text, at)) and match.group(1).lower() not in KEYWORDS:
        return _Token("call", at, match.end(1), match.group(1))
    if (spelling := names.at(text, at)) is not None:
        return _Token("name", at, at + len(spelling), spelling, names.meant(spelling))
    if match := _NUMBER.match(text, at):
        digits, unit = match.groups()
        number = float(digits.replace("_", "")) * UNITS.get(unit, 1)
        if number == float("inf"):
            raise wrong(text, at, "this number is too large")
        return _Token("number", at, match.end(), number)
    if match := _SIGN.match(text, at):
        return _Token(match.group(), at, match.end())
    if match := grammar.word.match(text, at):
        word = match.group()
        if word.lower() in KEYWORDS:
            return _Token(word.lower(), at, match.end())
        if not text.startswith("(", match.end()):  # a call, where there are no functions
            return _Token("name", at, match.end(), word)
    raise wrong(text, at, f"this is not allowed here; {grammar.allowed}")

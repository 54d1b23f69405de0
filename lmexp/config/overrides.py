"""Overrides, the words of a command line: Hydra's grammar, read and written.

A word whose value has characters that Hydra's grammar lacks (letters beyond ASCII, `=`, `#`, parentheses) is read as if
the value stood in quotes, so that paths can be given as they are. Where quotes would change what a word says, as with a
comma, the message shows how to write them.
"""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from lmexp.errors import UserError

MAX_AXIS = 10_000
"""Values of one axis."""
_HAS_GRAMMAR = re.compile(r"""[,\[\]{}'"]|\$\{|^\s*\w+\(.*\)\s*$""")
"""Values that mean more than their text: several values, lists, quotes, interpolations, functions."""
_PLAIN = re.compile("[A-Za-z_.][A-Za-z0-9_.]*")
"""Texts that need no quotes."""


def parse_overrides(words: list[str]) -> list[Override]:
    """Parse words in Hydra's override grammar. Raises UserError for the first that is not in it."""
    parser = OverridesParser.create()
    return [_parse(parser, word) for word in words]


def _parse(parser: OverridesParser, word: str) -> Override:
    override = _parse_exactly(parser, word)
    if override is not None:
        return override
    key, _, value = word.partition("=")
    with_quotes = f"{key}={quoted(value)}"
    override = _parse_exactly(parser, with_quotes)
    if override is None or not value:
        raise UserError(f"'{word}' is not an override: write key=value, as in model.n_layers=4")
    if _HAS_GRAMMAR.search(value):
        raise UserError(
            f"'{word}' is not in Hydra's grammar; if it is one value, put it in quotes: {shlex.quote(with_quotes)}"
        )
    return override


def _parse_exactly(parser: OverridesParser, word: str) -> Override | None:
    try:
        override = parser.parse_override(word)
    except HydraException:
        return None
    except RecursionError:
        raise UserError(f"'{word[:40]}...' is nested too deeply") from None
    return override if override.key_or_group else None


def refuse_axes(overrides: list[str], instead: str) -> None:
    """Raise UserError for an override with several values, which `instead` takes."""
    for override in parse_overrides(overrides):
        if override.is_sweep_override():
            raise UserError(f"{override.input_line} names several runs; {instead} sweeps over them")


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Tell the words that set parts of the sweep itself from those that its runs get.

    Raises UserError for words that would have no effect, or another than they say.
    """
    of_sweep, of_runs = [], []
    for override in parse_overrides(words):
        word, key = override.input_line or "", override.key_or_group
        if key.split(".")[0] == "hydra":
            raise UserError(f"{word}: hydra.* has no effect; Hydra composes here, and lmexp launches")
        if key.split(".")[0] in ("run", "schema_version"):
            raise UserError(f"{word}: {key} is lmexp's own")
        if key.split(".")[0] != "sweep":
            of_runs.append(word)
        elif "." not in key or override.is_sweep_override() or not sets_a_value(override):
            raise UserError(f"{word}: of a sweep, single keys can be set, as in sweep.seeds=3")
        else:
            of_sweep.append(word)
    return of_sweep, of_runs


def sets_a_value(override: Override) -> bool:
    """Return whether an override sets a value, and neither adds nor deletes a key."""
    return not (override.is_add() or override.is_force_add() or override.is_delete())


def swept_values(override: Override) -> list[Any]:
    """Return the values of an override like `a=1,2` or `a=range(1,4)`, one for each cell."""
    parser, word, values = OverridesParser.create(), override.input_line, []
    try:
        for text in override.sweep_string_iterator():
            values.append(parser.parse_override(f"{override.key_or_group}={text}").value())
            if len(values) > MAX_AXIS:
                raise UserError(f"{word}: an axis has at most {MAX_AXIS:,} values")
    except (HydraException, TypeError, ValueError):
        raise UserError(f"{word}: write the values out, as in a=1,2 or a=range(1,4)") from None
    return values


def written(value: Any) -> str:
    """Return a value in Hydra's override grammar, as in [{model.d_model:64}]."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(written, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return short if float(short := f"{value:g}") == value and isinstance(value, float) else repr(value)
    text = str(value)
    is_plain = _PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false", "nan", "inf")
    return text if is_plain else quoted(text)


def quoted(text: str) -> str:
    """Return a text in quotes, as Hydra's grammar reads it back."""
    return QuotedString(text, Quote.single).with_quotes()

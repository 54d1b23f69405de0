"""Markdown from texts that anybody wrote: no character of theirs becomes markup.

The dialect is CommonMark with tables, strikethrough and formulas, as the sites of repositories show it.
"""

import re
from collections.abc import Collection, Sequence

from lmexp.units import printable

_INLINE = re.compile(r"[\\`*\[\]<|~$]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")
"""Characters that mean something anywhere; an underscore between letters means nothing."""
_AT_START = re.compile(r"^(?:(\d+)(?=[.)](?:\s|$)))?([-+.)](?=\s|$)|-(?=--)|#(?=#*(?:\s|$))|>)")
"""Characters that mean something at the start of a line, with the number before the point of a list."""


def escaped(text: str) -> str:
    """Return a text as one line that Markdown shows as it is."""
    return _AT_START.sub(r"\1\\\2", _INLINE.sub(r"\\\g<0>", _flat(text)))


def code(text: str) -> str:
    """Return a text as code, which may stand in a table."""
    flat = _flat(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", flat)), default=0))
    room = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{fence}{room}{flat}{room}{fence}".replace("|", r"\|")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> str:
    """Return a table of cells that are Markdown already; the columns with the headings `right` hold numbers."""
    rules = ["---:" if heading in right else "---" for heading in headings]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rules, *rows))


def _flat(text: str) -> str:
    return printable(" ".join(text.split()))

"""Documents and examples of a source from outside lmexp: a function that the data config names.

The function is called with the config's own keys, each time that the source is read, and yields the same each time: a
text, or for examples a source and its target.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from lmexp.config.code import call_target
from lmexp.config.data import OutsideData
from lmexp.data.example_files import Example, LinePlace
from lmexp.errors import UserError

EXPECTED = {
    "text": "a text",
    "pairs": "a source text and a target text",
    "labels": "a text and its label",
    "tags": "a list of words and a list of as many tags",
}
"""What a source yields, by what it holds."""


def documents(data: OutsideData) -> Iterator[str]:
    """Yield the documents. Raises UserError for anything but a text."""
    for number, text in enumerate(_items(data), 1):
        if not isinstance(text, str):
            raise _wrong(data, number, text)
        yield text


def examples(data: OutsideData) -> Iterator[Example]:
    """Yield the examples. Raises UserError for anything but a source and a target of the kind that `examples` says."""
    place = LinePlace(f"{data.target}: example ")
    for number, made in enumerate(_items(data), 1):
        try:
            source, target = made
            if data.holds == "tags":
                source, target = tuple(source), tuple(target)
                is_right = len(source) == len(target) and all(isinstance(word, str) for word in (*source, *target))
            else:
                is_right = isinstance(source, str) and isinstance(target, str)
        except (TypeError, ValueError):
            is_right = False
        if not is_right:
            raise _wrong(data, number, made)
        yield Example(place, number, source, target, is_pair=data.holds == "pairs")


def fingerprint(data: OutsideData) -> str:
    """Return the SHA-256 of all that the source yields, in hexadecimal. Raises UserError when it yields nothing."""
    total, count = hashlib.sha256(), 0
    for made in documents(data) if data.holds == "text" else examples(data):
        content = made if isinstance(made, str) else [made.source, made.target]
        total.update(json.dumps(content).encode() + b"\n")
        count += 1
    if not count:
        raise UserError(f"the source {data.target} is empty")
    return total.hexdigest()


def _items(data: OutsideData) -> Iterable[Any]:
    items = call_target(data, "source")
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise UserError(
            f"the source {data.target} must yield its texts or examples, or return a list of them; it returned "
            f"{items!r:.100}"
        )
    return items


def _wrong(data: OutsideData, number: int, made: Any) -> UserError:
    return UserError(
        f"the source {data.target} must yield {EXPECTED[data.holds]} each time; number {number} is {made!r:.100}"
    )

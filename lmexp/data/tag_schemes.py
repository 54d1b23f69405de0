"""Schemes of tags, and how tags of each become IOB2: what sentences are stored, predicted and scored in.

| scheme | a span of three words | of one word |
| iob2   | B I I                 | B           |
| iob1   | I I I; B I I right after a span of the same type | I; B |
| bioes  | B I E                 | S           |
| bilou  | B I L                 | U           |
| bmes   | B M E                 | S           |
| words  | no spans: a tag of its own for each word, such as its part of speech |

Each is followed by the type, as in B-PER; a tag without a type, as in Chinese word segmentation, has the type `span`.
O is outside of all spans. Ratinov and Roth 2009 compare schemes.

Tags that do not follow each other as their scheme says are an error, or are read as conlleval and seqeval read them:
whatever cannot continue the span before it begins one.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from lmexp.config.data import Scheme, TagOptions
from lmexp.errors import UserError

BARE = "span"
"""The type of tags without one."""
_OUTSIDE = ("O", "")
_IOB = {"B": "B", "I": "I"}
_LETTERS: dict[Scheme, dict[str, str]] = {
    "iob2": _IOB,
    "iob1": _IOB,
    "bioes": {"B": "B", "I": "I", "E": "E", "S": "S"},
    "bilou": {"B": "B", "I": "I", "L": "E", "U": "S"},
    "bmes": {"B": "B", "M": "I", "E": "E", "S": "S"},
}
"""The prefixes of each scheme, as begin, inside, end and single."""

Parsed = tuple[str, str]
"""A prefix as in bioes, or O, and the type."""


class Converted(NamedTuple):
    """The tags of a sentence in IOB2, or of single words."""

    tags: tuple[str, ...]
    repaired: int
    """How many of them do not follow the tag before as the scheme says."""


def convert(tags: Sequence[str], options: TagOptions, where: Callable[[int], str]) -> Converted:
    """Return the tags of one sentence in IOB2.

    Args:
        tags: as they are in the source.
        options: their scheme, and what is done with tags that break it.
        where: gives the place of a tag by its number, for a message.

    Raises UserError for a tag that the scheme does not have and, unless data.repair=lenient, for one that breaks it.
    """
    scheme = options.scheme
    if scheme == "words":
        return Converted(tuple(tags), 0)
    parsed = [_parsed(tag, scheme, where, number) for number, tag in enumerate(tags)]
    repaired = 0
    for number, (before, tag) in enumerate(zip([_OUTSIDE, *parsed], [*parsed, _OUTSIDE], strict=True)):
        if not _breaks(scheme, before, tag):
            continue
        repaired += 1
        if options.repair == "strict":
            at = min(number, len(tags) - 1)
            raise UserError(f"{where(at)}: {_reason(tags, number, scheme, tag)}")
    made = []
    for before, (letter, kind) in zip([_OUTSIDE, *parsed], parsed, strict=False):
        begins = letter in "BS" or before[0] in "OES" or before[1] != kind
        made.append("O" if letter == "O" else f"{'B' if begins else 'I'}-{kind}")
    return Converted(tuple(made), repaired)


def is_tag(tag: str, scheme: Scheme) -> bool:
    """Return whether a scheme has a tag."""
    return scheme == "words" or _parse(tag, scheme) is not None


def _parse(tag: str, scheme: Scheme) -> Parsed | None:
    if tag == "O":
        return _OUTSIDE
    prefix, dash, kind = tag.partition("-")
    letter = _LETTERS[scheme].get(prefix)
    if letter is None or (dash and not kind):
        return None
    return letter, kind or BARE


def _parsed(tag: str, scheme: Scheme, where: Callable[[int], str], number: int) -> Parsed:
    parsed = _parse(tag, scheme)
    if parsed is not None:
        return parsed
    known = ["O", *(f"{prefix}-NAME" for prefix in _LETTERS[scheme])]
    named = f"{', '.join(known[:-1])} and {known[-1]}"
    raise UserError(f"{where(number)}: '{tag}' is not a tag of {scheme.upper()}, which has {named}{_hint(tag)}")


def _hint(tag: str) -> str:
    """Return which scheme has a tag, or nothing."""
    if "(" in tag or tag == "*":
        return "; spans in brackets, as in CoNLL 2005 and 2012, must be converted to one of data.scheme first"
    fitting = [scheme for scheme in _LETTERS if _parse(tag, scheme) is not None]
    if fitting:
        return f"; it is one of data.scheme={' or '.join(fitting)}"
    return "" if tag[1:] == "-" else "; data.scheme=words reads tags of single words, such as parts of speech"


def _breaks(scheme: Scheme, before: Parsed, tag: Parsed) -> bool:
    """Whether a tag may not follow the one before it; O stands before and after a sentence."""
    continues = before[0] in "BI" and before[1] == tag[1]  # a span of this type is open
    if scheme == "iob2":
        return tag[0] == "I" and not continues
    if scheme == "iob1":
        return tag[0] == "B" and not continues
    must_continue, is_open = tag[0] in "IE", before[0] in "BI"
    return not continues if must_continue else is_open


def _reason(tags: Sequence[str], number: int, scheme: Scheme, parsed: Parsed) -> str:
    """Return why a tag may not follow the one before it; after the last of a sentence, `number` is their count."""
    letter, kind = parsed
    lenient = "data.repair=lenient reads such tags"
    if number == len(tags):
        return f"the tag {tags[-1]} at the end of a sentence leaves a span open; {lenient}"
    tag = tags[number]
    after = "at the beginning of a sentence" if number == 0 else f"after {tags[number - 1]}"
    if scheme == "iob2":
        return (
            f"the tag {tag} {after} starts inside a span; in IOB2 a span begins with B-{kind}; "
            f"data.scheme=iob1 reads files in which it begins with I-{kind}, and {lenient}"
        )
    if scheme == "iob1":
        return (
            f"the tag {tag} {after} is wrong in IOB1, where B-{kind} only begins a span right after another one of "
            f"this type; data.scheme=iob2 reads files in which every span begins with B, and {lenient}"
        )
    fault = "starts inside a span" if letter in "IE" else "comes before the open span has ended"
    return f"the tag {tag} {after} {fault}; {lenient}"

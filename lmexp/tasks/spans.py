"""Spans of words by their IOB2 tags, and how many of them were found: the rules of CoNLL's shared tasks.

A span counts where its type and both its ends are right (Tjong Kim Sang and De Meulder 2003, section 4). Their scorer,
conlleval, also says what tags that do not follow each other mean: an I after anything but a B or I of its own type
begins a span, so every sequence of tags has its spans.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Span = tuple[str, int, int]
"""Its type, its first word, and the word after its last."""


@dataclass(frozen=True)
class Found:
    """How many spans there are, were guessed, and are among both."""

    right: int
    """Spans there are."""
    guessed: int
    both: int

    @property
    def precision(self) -> float:
        """Share of the guessed spans that are right; 0 where none was guessed."""
        return self.both / self.guessed if self.guessed else 0.0

    @property
    def recall(self) -> float:
        """Share of the right spans that were guessed; 0 where there are none."""
        return self.both / self.right if self.right else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return 2 * self.both / (self.right + self.guessed) if self.right + self.guessed else 0.0


def is_iob2(tag: str) -> bool:
    """Return whether a tag is one of IOB2: O, B-type or I-type."""
    return tag == "O" or (tag[:2] in ("B-", "I-") and len(tag) > 2)


def spans(tags: Sequence[str]) -> list[Span]:
    """Return the spans of one sentence, in order. Raises ValueError for a tag that is not O, B-type or I-type."""
    known: list[Span] = []
    kind, start = None, 0  # of the span that is open
    for position, tag in enumerate([*tags, "O"]):
        prefix, _, of = tag.partition("-")
        if not is_iob2(tag):
            raise ValueError(f"'{tag}' is no IOB2 tag: O, B-type or I-type")
        if prefix == "I" and of == kind:
            continue
        if kind is not None:
            known.append((kind, start, position))
        kind, start = of or None, position
    return known


def count_spans(sentences: Iterable[tuple[Sequence[str], Sequence[str]]]) -> dict[str, Found]:
    """Count the spans of each type, over all sentences: pairs of the right tags and those guessed."""
    right, guessed, both = Counter[str](), Counter[str](), Counter[str]()
    for right_tags, guessed_tags in sentences:
        here, there = set(spans(right_tags)), set(spans(guessed_tags))
        for counter, of in ((right, here), (guessed, there), (both, here & there)):
            counter.update(kind for kind, _, _ in of)
    return {kind: Found(right[kind], guessed[kind], both[kind]) for kind in sorted(right | guessed)}


def total(found: Iterable[Found]) -> Found:
    """Return the counts of all types together: their scores are micro averages, as conlleval's last line has them."""
    each = list(found)
    return Found(sum(f.right for f in each), sum(f.guessed for f in each), sum(f.both for f in each))

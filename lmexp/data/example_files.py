"""Examples, and where they come from in local files: pairs of texts, texts with a label.

Tagged sentences are read in tag_files.py. Every example knows the file and the line (or the row) it is from, and so
does every complaint.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from lmexp.config.data import LabelData, PairData, Split
from lmexp.data.lines import data_lines, without_ending
from lmexp.data.scripts import separated
from lmexp.data.tables import as_text, place_of, rows
from lmexp.errors import UserError


class LinePlace(NamedTuple):
    """The text before and after the number of an example in a message."""

    before: str
    after: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """One pair, labelled text or tagged sentence."""

    place: LinePlace
    number: int
    """Its line or row in that file."""
    source: str | tuple[str, ...]
    """A text; of a tagged sentence, its words."""
    target: str | tuple[str, ...]
    """The target text, the label, or the tag of each word."""
    is_pair: bool = False
    repaired: int = 0
    """How many of its tags broke their scheme, and were read all the same."""

    @property
    def where(self) -> str:
        """The file and line, or what stands for it."""
        return f"{self.place.before}{self.number}{self.place.after}"

    @property
    def text(self) -> str:
        """The source as people write it."""
        return self.source if isinstance(self.source, str) else "".join(separated(list(self.source)))

    @property
    def texts(self) -> tuple[str, ...]:
        """The source, and the target where it is a text."""
        return (self.text, str(self.target)) if self.is_pair else (self.text,)

    @property
    def answer(self) -> tuple[str, ...]:
        """The label, or the tags."""
        if self.is_pair:
            return ()
        return (self.target,) if isinstance(self.target, str) else self.target

    def with_texts(self, change: Callable[[str], str]) -> "Example":
        """Return the example with every text, or every word, changed."""
        source = change(self.source) if isinstance(self.source, str) else tuple(map(change, self.source))
        target = change(self.target) if self.is_pair and isinstance(self.target, str) else self.target
        return replace(self, source=source, target=target)


def pairs(
    data: PairData, split: Split, files: Sequence[Path], target_files: Sequence[Path] | None
) -> Iterator[Example]:
    """Yield the pairs of one of the source's own splits, from its files. Raises UserError."""
    path, target_path = data.path_of(split), data.target_path_of(split)
    if data.format == "txt":
        if target_files is None:
            raise UserError(f"{path}: the targets of text files lie in files of their own; set data.target_path")
        if len(files) != len(target_files):
            raise UserError(f"{path} is {len(files)} files and {target_path} is {len(target_files)}: no parallel texts")
        for both in zip(files, target_files, strict=True):
            yield from _parallel(*both)
        return
    fields = [data.source_field, data.target_field]
    for file in files:
        place = LinePlace(*place_of(file, data.format))
        for number, values in rows(file, data.format, fields):
            where = f"{place.before}{number}{place.after}"
            source, target = (as_text(value, where, field) for value, field in zip(values, fields, strict=True))
            yield Example(place, number, source, target, is_pair=True)


def _parallel(source: Path, target: Path) -> Iterator[Example]:
    place = LinePlace(f"{source}:")
    for line, (left, right) in enumerate(zip_longest(data_lines(source), data_lines(target)), 1):
        if left is None or right is None:
            longer, shorter = (target, source) if left is None else (source, target)
            counts = " and ".join(f"{file} has {sum(1 for _ in data_lines(file))} lines" for file in (source, target))
            raise UserError(f"{longer}:{line}: no such line in {shorter}: {counts}")
        yield Example(place, line, without_ending(left[1]), without_ending(right[1]), is_pair=True)


def labels(data: LabelData, files: Sequence[Path]) -> Iterator[Example]:
    """Yield the texts of a source's files with their labels. Raises UserError."""
    for file in files:
        place = LinePlace(*place_of(file, data.format))
        for number, (text, label) in rows(file, data.format, [data.field, data.label_field]):
            where = f"{place.before}{number}{place.after}"
            yield Example(place, number, as_text(text, where, data.field), as_label(label, where, data.label_field))


def as_label(value: Any, where: str, field: str) -> str:
    """Return a label as a name: a text, a whole number, true or false. Raises UserError."""
    if isinstance(value, bool | int):
        return str(value).lower()
    label = as_text(value, where, field).strip()
    if not label:
        raise UserError(f"{where}: '{field}' is empty: every text needs a label")
    return label

"""Examples from local files: pairs of texts, texts with a label, sentences with a tag for each word.

Every example knows the file and the line (or the row) it is from, and so does every complaint.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from lmexp.config.data import LabelData, LocalSection, PairData, Split, TagData
from lmexp.data.lines import data_lines, without_ending
from lmexp.data.local_files import find
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


def pairs(data: PairData, split: Split) -> Iterator[Example]:
    """Yield the pairs of one of the source's own splits. Raises UserError."""
    path, target_path = _path(data, split), data.target_path_of(split)
    if data.format == "txt":
        if target_path is None:
            raise UserError(f"{path}: the targets of text files lie in files of their own; set data.target_path")
        left, right = find(path, "txt"), find(target_path, "txt")
        if len(left) != len(right):
            raise UserError(f"{path} is {len(left)} files and {target_path} is {len(right)}: no parallel texts")
        for files in zip(left, right, strict=True):
            yield from _parallel(*files)
        return
    if target_path is not None:
        raise UserError(f"data.target_path={target_path}: only text files lie in parallel; data.format={data.format}")
    fields = [data.source_field, data.target_field]
    for file in find(path, data.format):
        place = LinePlace(*place_of(file, data.format))
        for number, values in rows(file, data.format, fields):
            where = f"{place.before}{number}{place.after}"
            source, target = (as_text(value, where, field) for value, field in zip(values, fields, strict=True))
            yield Example(place, number, source, target, is_pair=True)


def _path(data: LocalSection, split: Split) -> str:
    path = data.path_of(split)
    assert path is not None, "asked only for own_splits"
    return path


def _parallel(source: Path, target: Path) -> Iterator[Example]:
    place = LinePlace(f"{source}:")
    for line, (left, right) in enumerate(zip_longest(data_lines(source), data_lines(target)), 1):
        if left is None or right is None:
            longer, shorter = (target, source) if left is None else (source, target)
            counts = " and ".join(f"{file} has {sum(1 for _ in data_lines(file))} lines" for file in (source, target))
            raise UserError(f"{longer}:{line}: no such line in {shorter}: {counts}")
        yield Example(place, line, without_ending(left[1]), without_ending(right[1]), is_pair=True)


def labels(data: LabelData, split: Split) -> Iterator[Example]:
    """Yield the texts of one of the source's own splits with their labels. Raises UserError."""
    for file in find(_path(data, split), data.format):
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


# White space of ASCII only: a word may well be an ideographic space.
_COLUMNS = re.compile(r"[ \t]+")


def tags(data: TagData, split: Split) -> Iterator[Example]:
    """Yield the sentences of one of the source's own splits with their tags. Raises UserError."""
    for file in find(_path(data, split), "conll"):
        place = LinePlace(f"{file}:")
        first, width = 0, 0  # line of the sentence's first word; columns of the file
        words: list[str] = []
        word_tags: list[str] = []
        for number, line in data_lines(file):
            line = without_ending(line).strip(" \t")
            if not line:
                if words and words != ["-DOCSTART-"]:  # which the files of CoNLL 2003 have between documents
                    yield Example(place, first, tuple(words), tuple(word_tags))
                words, word_tags = [], []
                continue
            columns = _COLUMNS.split(line)
            where = f"{file}:{number}"
            if len(columns) == 1:
                raise UserError(f"{where}: the word '{columns[0]}' has no tag: the line has one column")
            width = width or len(columns)
            if len(columns) != width:
                raise UserError(f"{where}: {_columns(len(columns))}, where the file's first line has {width}")
            word, tag = (_column(columns, index, where) for index in (data.word_column, data.tag_column))
            check_tag(tag, word_tags[-1] if word_tags else None, where)
            if not words:
                first = number
            words.append(word)
            word_tags.append(tag)
        if words and words != ["-DOCSTART-"]:
            yield Example(place, first, tuple(words), tuple(word_tags))


def _columns(count: int) -> str:
    return "one column" if count == 1 else f"{count} columns"


def _column(columns: list[str], index: int, where: str) -> str:
    try:
        return columns[index]
    except IndexError as error:
        raise UserError(f"{where}: no column {index}: the line has {_columns(len(columns))}") from error


def check_tag(tag: str, before: str | None, where: str) -> None:
    """Raise UserError unless `tag` is IOB2 and may follow `before`, which is None at a sentence's beginning."""
    if tag == "O" or (tag.startswith("B-") and len(tag) > 2):
        return
    if not tag.startswith("I-") or len(tag) == 2:
        raise UserError(f"{where}: '{tag}' is no tag of IOB2: these are O, B-NAME and I-NAME")
    kind = tag[2:]
    if before not in (f"B-{kind}", tag):
        after = "at the beginning of a sentence" if before is None else f"after {before}"
        raise UserError(f"{where}: the tag {tag} {after} starts inside a span; in IOB2 a span begins with B-{kind}")

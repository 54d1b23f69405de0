"""Tagged sentences from local files: a word and its tag in each line, as in CoNLL files, or CoNLL-U.

An empty line ends a sentence. A line in front of a sentence that begins with # is a comment, unless it is a word with
its tag. Columns are separated by white space; by tabs alone where that makes all lines of a file alike and white space
does not, so that words may have spaces.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lmexp.config.data import TagData
from lmexp.data.example_files import Example, LinePlace
from lmexp.data.lines import data_lines, without_ending
from lmexp.data.tag_schemes import convert, is_tag
from lmexp.errors import UserError
from lmexp.units import counted

# White space of ASCII only: a word may well be an ideographic space.
_COLUMNS = re.compile(r"[ \t]+")
_CONLLU_WIDTH = 10
"""Columns of a CoNLL-U file (universaldependencies.org/format.html)."""
_CONLLU_WORD = re.compile(r"[0-9]+")
_CONLLU_ID = re.compile(r"[0-9]+([-.][0-9]+)?")
"""The number of a word; of several words that are written as one (3-4); or of an empty node (8.1)."""

Line = tuple[int, str]


def sentences(data: TagData, file: Path) -> Iterator[Example]:
    """Yield the sentences of a file with their tags in IOB2, or of single words. Raises UserError."""
    split = _by_tabs if data.format == "conllu" else _separator(file)
    layout = _Layout(data, file, split)
    words: list[Line] = []
    tags: list[str] = []
    for number, line in data_lines(file):
        line = without_ending(line)
        if not line.strip(" \t"):
            yield from _sentence(data, file, words, tags)
            words, tags = [], []
        elif row := layout.row(number, line, starts=not words):
            words.append((number, row[0]))
            tags.append(row[1])
    yield from _sentence(data, file, words, tags)


def _sentence(data: TagData, file: Path, words: list[Line], tags: list[str]) -> Iterator[Example]:
    if not words or [word for _, word in words] == ["-DOCSTART-"]:  # which CoNLL 2003 has between documents
        return
    converted = convert(tags, data, lambda number: f"{file}:{words[number][0]}")
    source = tuple(word for _, word in words)
    yield Example(LinePlace(f"{file}:"), words[0][0], source, converted.tags, repaired=converted.repaired)


Separator = Callable[[str], list[str]]


def _by_tabs(line: str) -> list[str]:
    return line.split("\t")


def _by_space(line: str) -> list[str]:
    return _COLUMNS.split(line.strip(" \t"))


def _separator(file: Path) -> Separator:
    """Return what separates the columns of a file."""
    by_space, by_tabs = set[int](), set[int]()
    for _, line in data_lines(file):
        line = without_ending(line)
        if line.strip(" \t") and not line.startswith("#"):
            by_space.add(len(_by_space(line)))
            by_tabs.add(len(_by_tabs(line)))
    return _by_tabs if len(by_space) > 1 and len(by_tabs) == 1 and by_tabs != {1} else _by_space


@dataclass
class _Layout:
    """The columns of one file, the first line of which says how many there are."""

    data: TagData
    file: Path
    separate: Separator
    width: int = 0

    def row(self, number: int, line: str, starts: bool) -> tuple[str, str] | None:
        """Return the word and the tag of a line that is not empty; None for a comment, or what is no word.

        `starts` says that no word of its sentence came before. Raises UserError.
        """
        columns = self.separate(line)
        if starts and line.startswith("#") and not self._is_word(columns):
            return None
        where = f"{self.file}:{number}"
        if self.data.format == "conllu":
            self._check_conllu(columns, where)
            if not _CONLLU_WORD.fullmatch(columns[0]):
                return None
        if len(columns) == 1:
            raise UserError(f"{where}: the word '{columns[0]}' has no tag: the line has one column")
        self.width = self.width or len(columns)
        if len(columns) != self.width:
            raise UserError(f"{where}: {counted(len(columns), 'column')}, where the file's first line has {self.width}")
        word, tag = (self._column(columns, index, where) for index in (self.data.word_column, self.data.tag_column))
        if not word or not tag:
            raise UserError(f"{where}: the {'tag' if word else 'word'} is empty")
        if self._is_conllu(columns):
            raise UserError(f"{where}: this is a CoNLL-U file, whose first column has numbers; data=conllu reads it")
        return word, tag

    def _is_word(self, columns: list[str]) -> bool:
        """Whether a line in front of a sentence that begins with # is a word with its tag."""
        if self.data.format == "conllu" or len(columns) != (self.width or len(columns)) or len(columns) == 1:
            return False
        index = self.data.tag_column
        if not -len(columns) <= index < len(columns):
            return False
        if self.data.scheme == "words":
            return self.width > 0
        return is_tag(columns[index], self.data.scheme)

    def _is_conllu(self, columns: list[str]) -> bool:
        """Whether a line that is read as another format is the first word of a sentence of CoNLL-U."""
        is_number = len(columns) == _CONLLU_WIDTH and _CONLLU_ID.fullmatch(columns[0]) is not None
        return is_number and self.data.format == "conll" and self.data.word_column == 0

    def _check_conllu(self, columns: list[str], where: str) -> None:
        if len(columns) != _CONLLU_WIDTH:
            raise UserError(
                f"{where}: {counted(len(columns), 'column')}; a line of CoNLL-U has {_CONLLU_WIDTH}, separated by tabs"
            )
        if not _CONLLU_ID.fullmatch(columns[0]):
            raise UserError(f"{where}: '{columns[0]}' is no number of a word, which CoNLL-U has in its first column")

    def _column(self, columns: list[str], index: int, where: str) -> str:
        try:
            return columns[index]
        except IndexError as error:
            raise UserError(f"{where}: no column {index}: the line has {counted(len(columns), 'column')}") from error

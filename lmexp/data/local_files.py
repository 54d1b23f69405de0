"""Documents from local files: which files a path names, and the texts in them.

A path can be a file, a folder (all files below it with the suffix of the format) or a glob pattern. In a folder, files
that are compressed are read too, with another ending behind the suffix.
"""

import glob
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lmexp.config.data import FileData
from lmexp.data.lines import COMPRESSED, lines, whole_text, without_ending
from lmexp.data.tables import as_text, place_of, rows
from lmexp.errors import UserError, nearest
from lmexp.files import is_leftover, user_path, why_not_a_file


class Named(NamedTuple):
    """What a path names, both sorted by their path."""

    files: list[Path]
    passed_over: list[Path]
    """Hidden files, and what programs leave beside a user's files (files.is_leftover), unless the path names them."""


def find(path: str, suffix: str) -> Named:
    """Return the files that `path` names; in a folder, those with the suffix. Raises UserError if there are none."""
    files, leftovers = named = _named_by(path, suffix)
    if files:
        return named
    passed_over = f" but hidden files and leftovers of programs, such as {leftovers[0]}" if leftovers else ""
    place = user_path(path)
    if place.is_dir():
        raise UserError(f"{path}: no .{suffix} file in this folder{passed_over}{_others(place)}")
    if glob.has_magic(path):
        raise UserError(f"{path}: no file matches{passed_over}")
    if reason := why_not_a_file(place):
        raise UserError(f"{path}: {reason}")
    beside = [entry.name for entry in place.parent.iterdir()] if place.parent.is_dir() else []
    raise UserError(f"{path}: no such file or folder.{nearest(place.name, beside)}")


def _named_by(path: str, suffix: str) -> Named:
    """Return the same, which may be nothing."""
    place = user_path(path)
    if place.is_file():
        return Named([place], [])
    if place.is_dir():
        named: Iterable[Path] = _with_suffix(place, suffix)
    else:
        named = map(Path, glob.glob(str(place), recursive=True))  # noqa: PTH207 (absolute too)
    files: list[Path] = []
    leftovers: list[Path] = []
    for file in sorted((file for file in named if file.is_file()), key=Path.as_posix):
        # What the user has written out in the path is meant.
        parts = file.relative_to(place).parts if place.is_dir() else set(file.parts).difference(place.parts)
        (leftovers if any(map(is_leftover, parts)) else files).append(file)
    return Named(files, leftovers)


def _with_suffix(folder: Path, suffix: str) -> Iterator[Path]:
    """Yield the files below a folder with a suffix; a compressed one unless it is there unpacked too."""
    ends = tuple(f".{suffix}.{ending}" for ending in COMPRESSED)
    for file in folder.rglob("*"):
        if file.name.endswith(f".{suffix}") or (file.name.endswith(ends) and not file.with_suffix("").exists()):
            yield file


def _others(folder: Path) -> str:
    """Return which files are in a folder instead, as a hint, or nothing."""
    suffixes = Counter(file.suffix for file in folder.rglob("*.*") if file.is_file() and not is_leftover(file.name))
    if not suffixes:
        return ""
    suffix, count = suffixes.most_common(1)[0]
    return f"; for its {count} {suffix} file{'s' if count > 1 else ''}, set data.path={folder}/**/*{suffix}"


def documents(data: FileData, files: Iterable[Path]) -> Iterator[str]:
    """Yield the documents of a source's files.

    Raises UserError with the file and the line, row or byte; OSError if a file cannot be read.
    """
    for path in files:
        if data.format == "txt":
            yield from _txt(path, data.document)
            continue
        before, after = place_of(path, data.format)
        for number, (value,) in rows(path, data.format, [data.field]):
            yield as_text(value, f"{before}{number}{after}", data.field)


def _txt(path: Path, document: str) -> Iterator[str]:
    """Yield the file, its paragraphs or its lines as documents, without what separates them."""
    if document == "file":
        yield whole_text(path)
    elif document == "line":
        for _, line in lines(path):
            yield without_ending(line)
    else:
        paragraph: list[str] = []
        for _, line in lines(path):
            if line.strip():
                paragraph.append(line)
            elif paragraph:
                yield without_ending("".join(paragraph))
                paragraph = []
        yield without_ending("".join(paragraph))

"""Documents from local files: which files a path names, and the texts in them.

A path can be a file, a folder (all files below it with the suffix of the format) or a glob pattern. In a folder, files
that are compressed are read too, with another ending behind the suffix.
"""

import glob
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from lmexp.config.data import FileData, Split
from lmexp.data.lines import COMPRESSED, lines, whole_text, without_ending
from lmexp.data.tables import as_text, place_of, rows
from lmexp.errors import UserError, nearest
from lmexp.files import is_leftover, user_path, why_not_a_file


def find(path: str, suffix: str) -> list[Path]:
    """Return the files that `path` names, sorted by their path; in a folder, those with the suffix.

    Hidden files, and what programs leave beside a user's files (files.is_leftover), are passed over unless `path` names
    them. Raises UserError if there are no files.
    """
    files, leftovers = _named_by(path, suffix)
    if files:
        return files
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


def passed_over(path: str, suffix: str) -> list[Path]:
    """Return the hidden files and leftovers of programs that `find` passes over, sorted by their path."""
    return _named_by(path, suffix)[1]


def _named_by(path: str, suffix: str) -> tuple[list[Path], list[Path]]:
    """Return the files that `path` names, and those of them that are leftovers, both sorted by their path."""
    place = user_path(path)
    if place.is_file():
        return [place], []
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
    return files, leftovers


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


def documents(data: FileData, split: Split) -> Iterator[str]:
    """Yield the documents of every file of one of the source's own splits.

    Raises UserError with the file and the line, row or byte; OSError if a file cannot be read.
    """
    for path in find(data.path_of(split) or data.path, data.format):
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

"""Documents and rows from local txt, jsonl, csv, tsv and parquet files.

Files are read as bytes and decoded here, for two reasons: Python's text mode would change line endings, and an error
message can name the file, line and offset of a byte that is not UTF-8. A path can be a file, a folder (all files below
it with the suffix of the format) or a glob pattern.
"""

import csv
import glob
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lmexp.config.data import FileData, Split
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
        raise UserError(f"{path}: no .{suffix} file in this folder{passed_over}")
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
        named: Iterable[Path] = place.rglob(f"*.{suffix}")
    else:
        named = map(Path, glob.glob(str(place), recursive=True))  # noqa: PTH207 (absolute too)
    files: list[Path] = []
    leftovers: list[Path] = []
    for file in sorted((file for file in named if file.is_file()), key=Path.as_posix):
        # What the user has written out in the path is meant.
        parts = file.relative_to(place).parts if place.is_dir() else set(file.parts).difference(place.parts)
        (leftovers if any(map(is_leftover, parts)) else files).append(file)
    return files, leftovers


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


def rows(path: Path, format: str, fields: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    """Yield the line number (for parquet the row number) and the values of `fields` for every row, counted from 1.

    Raises UserError with the file and the line, row or byte; OSError if the file cannot be read.
    """
    readers = {"jsonl": _jsonl, "csv": _csv, "tsv": _tsv, "parquet": _parquet}
    return readers[format](path, fields)


def place_of(path: Path, format: str) -> tuple[str, str]:
    """Return the text before and after the number of a row in a message: `file.csv:7`, `file.parquet: row 7`."""
    return (f"{path}: row ", "") if format == "parquet" else (f"{path}:", "")


def missing_field(where: str, field: str, known: Iterable[str]) -> UserError:
    """Return the error for a missing column, with the names of the columns that exist."""
    names = [str(name) for name in known]
    listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return UserError(f"{where}: no column '{field}'; there are: {listed}.{nearest(field, names)}")


def as_text(value: Any, where: str, field: str) -> str:
    """Return `value` if it is text that UTF-8 can encode. Raises UserError otherwise."""
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise UserError(f"{where}: '{field}' must be a text, found {kind}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can contain half of a surrogate pair as an escape
        raise UserError(f"{where}: '{field}' holds {value[error.start]!a}, which is no character") from error
    return value


def _decode(raw: bytes, path: Path, offset: int, line: int) -> str:
    """Decode bytes that start at byte `offset` and at `line` (counted from 1) of the file."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        raise UserError(f"{path}:{line}: not valid UTF-8 at byte {offset + error.start} of the file") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number of each line, counted from 1, and the line with its ending as it is in the file."""
    offset = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            yield number, _decode(raw, path, offset, number)
            offset += len(raw)


def data_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield lines as _lines does, without a byte order mark, which is not part of a table or a list."""
    for number, line in _lines(path):
        yield number, line.removeprefix("\ufeff") if number == 1 else line


def without_ending(line: str) -> str:
    """Return a line without its line feed and the carriage return before that."""
    return line.removesuffix("\n").removesuffix("\r")


def _txt(path: Path, document: str) -> Iterator[str]:
    """Yield the file, its paragraphs or its lines as documents, without what separates them."""
    if document == "file":
        with path.open("rb") as file:
            yield _decode(file.read(), path, offset=0, line=1)
    elif document == "line":
        for _, line in _lines(path):
            yield without_ending(line)
    else:
        paragraph: list[str] = []
        for _, line in _lines(path):
            if line.strip():
                paragraph.append(line)
            elif paragraph:
                yield without_ending("".join(paragraph))
                paragraph = []
        yield without_ending("".join(paragraph))


def _jsonl(path: Path, fields: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    for number, line in data_lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not valid JSON: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{where}: every line must be a JSON object, found {type(row).__name__}")
        for field in fields:
            if field not in row:
                raise missing_field(where, field, row)
        yield number, [row[field] for field in fields]


def _csv(path: Path, fields: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    csv.field_size_limit(sys.maxsize)  # the default, 128 KiB, is shorter than many documents
    # strict: otherwise a quote that is never closed would silently take in the rest of the file.
    reader = csv.reader((line for _, line in data_lines(path)), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        columns = _indices(path, header, fields)
        read = reader.line_num
        for row in reader:
            first, read = read + 1, reader.line_num  # a quoted field may span lines
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(f"{path}:{first}: the row has {len(row)} fields, the header {len(header)}")
            yield first, [row[column] for column in columns]
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not valid CSV: {error}") from error


def _tsv(path: Path, fields: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    """Yield rows with tabs between fields, without quoting. If all `fields` are numbers, the file has no header."""
    columns: list[int] | None = None
    width = 0
    for number, line in data_lines(path):
        row = without_ending(line).split("\t")
        if columns is None:
            width = len(row)
            if not all(field.isdecimal() for field in fields):
                columns = _indices(path, row, fields)
                continue
            columns = [int(field) for field in fields]
            if max(columns) >= width:
                raise UserError(f"{path}:{number}: no column {max(columns)}: the line has {width} fields, from 0")
        if not line.strip():
            continue
        if len(row) != width:
            raise UserError(f"{path}:{number}: the line has {len(row)} fields, the first has {width}")
        yield number, [row[column] for column in columns]


def _indices(path: Path, header: list[str], fields: Sequence[str]) -> list[int]:
    for field in fields:
        if field not in header:
            raise missing_field(str(path), field, header)
        if header.count(field) > 1:
            raise UserError(f"{path}:1: {header.count(field)} columns are called '{field}'; rename all but one")
    return [header.index(field) for field in fields]


def _parquet(path: Path, fields: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    with path.open("rb") as handle:
        try:
            file = pq.ParquetFile(handle)
            for field in fields:
                if field not in file.schema_arrow.names:
                    raise missing_field(str(path), field, file.schema_arrow.names)
                if file.schema_arrow.names.count(field) > 1:
                    raise UserError(f"{path}: several columns are called '{field}'; rename all but one")
            # A row group can have gigabytes; reading it in batches limits the memory.
            for batch in file.iter_batches(batch_size=1000, columns=list(dict.fromkeys(fields))):
                columns = [batch.column(field).to_pylist() for field in fields]
                for values in zip(*columns, strict=True):
                    row += 1
                    yield row, list(values)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = str(error).split("\n", 1)[0]
            raise UserError(f"{path}: not a sound parquet file after row {row}: {reason}") from error

"""Documents out of local txt, jsonl, csv and parquet files.

Files are read as bytes and decoded here, line by line or as a whole, for two reasons: Python's text mode
would translate line endings, and a byte that is not UTF-8 can be named by file, line and offset.
A path may be one file, a folder (every file with the format's suffix below it) or a glob.
"""

import csv
import glob
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lmexp.config.schema import FileData
from lmexp.errors import UserError, nearest


def find(data: FileData) -> list[Path]:
    """Return the files that `data.path` names, sorted by their path. Raises UserError when there are none."""
    path = Path(data.path).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        files = [file for file in path.rglob(f"*.{data.format}") if file.is_file()]
        if not files:
            raise UserError(f"{data.path}: no .{data.format} file in this folder")
    else:
        files = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207 (absolute too)
        files = [file for file in files if file.is_file()]
        if not files and glob.has_magic(data.path):
            raise UserError(f"{data.path}: no file matches")
        if not files:
            beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UserError(f"{data.path}: no such file or folder.{nearest(path.name, beside)}")
    return sorted(files, key=Path.as_posix)


def documents(data: FileData) -> Iterator[str]:
    """Yield the documents of every file.

    Raises UserError naming the file and the line, row or byte; OSError when a file cannot be read.
    """
    for path in find(data):
        if data.format == "txt":
            yield from _txt(path, data.document)
        elif data.format == "jsonl":
            yield from _jsonl(path, data.field)
        elif data.format == "csv":
            yield from _csv(path, data.field)
        else:
            yield from _parquet(path, data.field)


def missing_field(where: str, field: str, known: Iterable[str]) -> UserError:
    """Return the error for a column that is not there, naming those that are."""
    names = [str(name) for name in known]
    listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return UserError(f"{where}: no column '{field}'; there are: {listed}.{nearest(field, names)}")


def as_text(value: Any, where: str, field: str) -> str:
    """Return `value` if it is a text that UTF-8 can hold. Raises UserError otherwise."""
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise UserError(f"{where}: '{field}' must be a text, found {kind}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON may escape half of a surrogate pair
        raise UserError(f"{where}: '{field}' holds {value[error.start]!a}, which is no character") from error
    return value


def _decode(raw: bytes, path: Path, offset: int, line: int) -> str:
    """Decode bytes that begin at `offset` (bytes) and `line` (from 1) of the file."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        raise UserError(f"{path}:{line}: not valid UTF-8 at byte {offset + error.start} of the file") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each line with its number from 1 and its ending as it stands in the file."""
    offset = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            yield number, _decode(raw, path, offset, number)
            offset += len(raw)


def _data_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield lines as _lines does, less a byte order mark, which is no part of a JSON or CSV text."""
    for number, line in _lines(path):
        yield number, line.removeprefix("\ufeff") if number == 1 else line


def _without_ending(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def _txt(path: Path, document: str) -> Iterator[str]:
    """Yield the file, its paragraphs or its lines; what separates documents belongs to none of them."""
    if document == "file":
        with path.open("rb") as file:
            yield _decode(file.read(), path, offset=0, line=1)
    elif document == "line":
        for _, line in _lines(path):
            yield _without_ending(line)
    else:
        paragraph: list[str] = []
        for _, line in _lines(path):
            if line.strip():
                paragraph.append(line)
            elif paragraph:
                yield _without_ending("".join(paragraph))
                paragraph = []
        yield _without_ending("".join(paragraph))


def _jsonl(path: Path, field: str) -> Iterator[str]:
    for number, line in _data_lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not valid JSON: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{where}: every line must be a JSON object, found {type(row).__name__}")
        if field not in row:
            raise missing_field(where, field, row)
        yield as_text(row[field], where, field)


def _csv(path: Path, field: str) -> Iterator[str]:
    csv.field_size_limit(sys.maxsize)  # the default, 128 KiB, is shorter than many documents
    # strict: a quote that is never closed would otherwise swallow the rest of the file in silence.
    rows = csv.reader((line for _, line in _data_lines(path)), strict=True)
    try:
        header = next(rows, None)
        if header is None:
            return
        if field not in header:
            raise missing_field(str(path), field, header)
        column = header.index(field)
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(f"{path}:{rows.line_num}: the row has {len(row)} fields, the header {len(header)}")
            yield row[column]
    except csv.Error as error:
        raise UserError(f"{path}:{rows.line_num}: not valid CSV: {error}") from error


def _parquet(path: Path, field: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    with path.open("rb") as handle:
        try:
            file = pq.ParquetFile(handle)
            if field not in file.schema_arrow.names:
                raise missing_field(str(path), field, file.schema_arrow.names)
            # A row group may hold gigabytes; batches of it bound the memory.
            for batch in file.iter_batches(batch_size=1000, columns=[field]):
                for value in batch.column(0).to_pylist():
                    row += 1
                    yield as_text(value, f"{path}: row {row}", field)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = str(error).split("\n", 1)[0]
            raise UserError(f"{path}: not a sound parquet file after row {row}: {reason}") from error

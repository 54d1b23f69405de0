"""Rows of local jsonl, csv, tsv and parquet files: the values of some fields, each with its place."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmexp.data.lines import data_lines, no_text, whole_text, without_ending
from lmexp.errors import UserError, nearest

DELIMITERS = ",;\t|"
"""What may stand between the fields of a csv file: the first with which the header has all fields is taken."""

Row = tuple[int, list[Any]]


def rows(path: Path, format: str, fields: Sequence[str]) -> Iterator[Row]:
    """Yield the line number (for parquet the row number) and the values of `fields` for every row, counted from 1.

    In jsonl and parquet, a dot in a field selects a key inside a column, unless a column has that name.
    Raises UserError with the file and the line, row or byte; OSError if the file cannot be read.
    """
    readers: dict[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
        "jsonl": _jsonl,
        "csv": _csv,
        "tsv": _tsv,
        "parquet": _parquet,
    }
    return readers[format](path, fields)


def place_of(path: Path, format: str) -> tuple[str, str]:
    """Return the text before and after the number of a row in a message: `file.csv:7`, `file.parquet: row 7`."""
    return (f"{path}: row ", "") if format == "parquet" else (f"{path}:", "")


def missing_field(where: str, field: str, known: Iterable[str]) -> UserError:
    """Return the error for a missing column, with the names of the columns that exist."""
    names = [str(name) for name in known]
    listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return UserError(f"{where}: no column '{field}'; there are: {listed}.{nearest(field, names)}")


def split_field(field: str, columns: Iterable[str]) -> tuple[str, list[str]]:
    """Return the column that a field is in, and the keys inside it: `translation.de` may be a column itself."""
    if field in columns:
        return field, []
    column, *inside = field.split(".")
    return column, inside


def value_inside(cell: Any, field: str, inside: Sequence[str], where: str) -> Any:
    """Return what the keys of `split_field` select in a cell. Raises UserError if it is not there."""
    name = field.split(".", 1)[0]
    for key in inside:
        if not isinstance(cell, dict):
            raise UserError(f"{where}: no '{field}': the value that should hold '{key}' is not a mapping")
        if key not in cell:
            raise missing_field(where, field, [f"{name}.{known}" for known in cell])
        name, cell = f"{name}.{key}", cell[key]
    return cell


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


def _jsonl(path: Path, fields: Sequence[str]) -> Iterator[Row]:
    for number, row in _objects(path):
        where = f"{path}:{number}"
        if not isinstance(row, dict):
            raise UserError(f"{where}: every row must be a JSON object, found {type(row).__name__}")
        yield number, [_in_object(row, field, where) for field in fields]


def _in_object(row: Mapping[str, Any], field: str, where: str) -> Any:
    column, inside = split_field(field, row)
    if column not in row:
        within = [f"{name}.{key}" for name, value in row.items() if isinstance(value, dict) for key in value]
        raise missing_field(where, field, [*row, *within])
    return value_inside(row[column], field, inside, where)


def _objects(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the JSON values of a file, one in each line or all in one array, with their lines."""
    first = next((line for _, line in data_lines(path) if line.strip()), "")
    if first.lstrip().startswith("["):
        yield from _in_array(path)
        return
    for number, line in data_lines(path):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path}:{number}: not valid JSON: {error}; a file has one object in each line, or one array of objects"
            ) from error


_SPACE = re.compile(r"[ \t\r\n]*")


def _in_array(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the elements of one JSON array, each with the line that it begins in."""
    text = whole_text(path)
    decoder = json.JSONDecoder()
    position = _after_space(text, text.index("[") + 1)
    line, counted = 1, 0
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise UserError(f"{path}:{line}: not valid JSON: {reason}") from error
        yield line, value
        position = _after_space(text, position)
        if text[position : position + 1] == ",":
            position = _after_space(text, position + 1)
        elif text[position : position + 1] != "]":
            raise UserError(f"{path}:{line}: not valid JSON: ',' or ']' is missing after the element of this line")
    if text[position + 1 :].strip():
        line += text.count("\n", counted, position)
        raise UserError(f"{path}:{line}: not valid JSON: there is more after the end of the array")


def _after_space(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    assert space is not None, "it may be empty"
    return space.end()


def _csv(path: Path, fields: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # the default, 128 KiB, is shorter than many documents
    reader = _csv_reader(path, _delimiter(path, fields))
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


def _csv_reader(path: Path, delimiter: str) -> Any:
    # strict: otherwise a quote that is never closed would silently take in the rest of the file.
    return csv.reader((line for _, line in data_lines(path)), delimiter=delimiter, strict=True)


def _delimiter(path: Path, fields: Sequence[str]) -> str:
    """Return the delimiter with which the header has all fields; if none, the one with which it has most columns."""
    headers: dict[str, list[str]] = {}
    for delimiter in DELIMITERS:
        try:
            headers[delimiter] = next(_csv_reader(path, delimiter), [])
        except csv.Error:
            continue
        if set(fields) <= set(headers[delimiter]):
            return delimiter
    return max(headers, key=lambda delimiter: len(headers[delimiter]), default=",")


def _tsv(path: Path, fields: Sequence[str]) -> Iterator[Row]:
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


def _parquet(path: Path, fields: Sequence[str]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    with path.open("rb") as handle:
        try:
            file = pq.ParquetFile(handle)
            names = file.schema_arrow.names
            places = [split_field(field, names) for field in fields]
            for (column, _), field in zip(places, fields, strict=True):
                if column not in names:
                    raise missing_field(str(path), field, names)
                if names.count(column) > 1:
                    raise UserError(f"{path}: several columns are called '{column}'; rename all but one")
            # A row group can have gigabytes; reading it in batches limits the memory.
            for batch in file.iter_batches(batch_size=1000, columns=list(dict.fromkeys(name for name, _ in places))):
                columns = [batch.column(name).to_pylist() for name, _ in places]
                for cells in zip(*columns, strict=True):
                    row += 1
                    yield (
                        row,
                        [
                            value_inside(cell, field, inside, f"{path}: row {row}")
                            for cell, field, (_, inside) in zip(cells, fields, places, strict=True)
                        ],
                    )
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = _not_parquet(path) or str(error).split("\n", 1)[0]
            raise UserError(f"{path}: not a sound parquet file after row {row}: {reason}") from error


def _not_parquet(path: Path) -> str | None:
    """Return what a file is instead of parquet, if its first bytes show that."""
    with path.open("rb") as handle:
        start = handle.read(512)
    if start.startswith(b"PAR1"):
        return None
    what = no_text(start)
    return f"it is {what}" if what else None

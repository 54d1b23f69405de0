"""The bytes and lines of a local text file, unpacked if it is compressed.

Files are read as bytes and decoded here, for two reasons: Python's text mode would change line endings, and an error
message can name the file, line and offset of a byte that is not UTF-8. A file that is not text is refused, and the
message says what it is.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from lmexp.errors import UserError

COMPRESSED = ("gz", "bz2", "xz", "zst")
"""How the names of compressed files end, which in a folder are read as those that are not."""
_PACKED = {b"\x1f\x8b": "gz", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
_PI = b"1AY&SY"  # what follows the first four bytes of a bz2 file: a text may begin with those alone
_NO_TEXT = {
    b"PK\x03\x04": "a zip archive, as xlsx and docx files are too; unpack it, or export its table as csv",
    b"PAR1\x15": "a parquet file; set data.format=parquet",
    b"ARROW1\x00\x00": "an Arrow file; write it as parquet",
    b"SQLite format 3\x00": "a SQLite database; export the table as csv",
    b"%PDF-": "a PDF document; extract its text first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"Rar!\x1a": "a rar archive; unpack it first",
    b"\xd0\xcf\x11\xe0": "an old Office document; export its table as csv",
    b"\x89HDF": "an HDF5 file; write it as parquet",
    b"\x93NUMPY": "a NumPy array; write it as parquet",
    b"\xff\xfe": "text in UTF-16; convert it to UTF-8",
    b"\xfe\xff": "text in UTF-16; convert it to UTF-8",
}
"""Files that are not UTF-8 text, by their first bytes: what they are, and what to do with them."""
_TAR_AT = 257


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file and unpack it if its content is compressed, whatever its name.

    Raises UserError for a file that is not text or is damaged, OSError if it cannot be read.
    """
    with path.open("rb") as raw, _unpacked(path, raw) as file:
        try:
            start = file.peek(_TAR_AT + 5)[: _TAR_AT + 5]  # type: ignore[attr-defined]  # every buffered reader has it
            if what := no_text(start):
                raise UserError(f"{path}: this is {what}")
            yield file
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise _damaged(path, error) from error
        except OSError as error:
            if file is raw:
                raise
            raise _damaged(path, error) from error


def no_text(start: bytes) -> str | None:
    """Return what a file is, and what to do with it, if its first bytes show that it is no text; None otherwise."""
    if start[_TAR_AT:].startswith(b"ustar"):
        return "a tar archive; unpack it first"
    return next((what for magic, what in _NO_TEXT.items() if start.startswith(magic)), None)


def _unpacked(path: Path, raw: BinaryIO) -> BinaryIO:
    start = cast(io.BufferedReader, raw).peek(10)[:10]
    kind = next((kind for magic, kind in _PACKED.items() if start.startswith(magic)), None)
    if kind == "gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if kind == "xz":
        return cast(BinaryIO, lzma.LZMAFile(raw))
    if start.startswith(b"BZh") and start[4:] == _PI:
        return cast(BinaryIO, bz2.BZ2File(raw))
    if kind == "zst":
        import pyarrow as pa

        return cast(BinaryIO, io.BufferedReader(pa.input_stream(str(path), compression="zstd")))
    return raw


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).split("\n", 1)[0] or type(error).__name__
    return UserError(f"{path}: the compressed content is damaged or cut off: {reason}")


def whole_text(path: Path) -> str:
    """Return the text of a file. Raises UserError with the line and byte of what is not UTF-8."""
    with opened(path) as file:
        return _decode(file.read(), path, offset=0, line=1)


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number of each line, counted from 1, and the line with its ending as it is in the file.

    Only line feeds end lines. Raises UserError with the line and byte of what is not UTF-8.
    """
    offset = 0
    with opened(path) as file:
        for number, raw in enumerate(file, 1):
            yield number, _decode(raw, path, offset, number)
            offset += len(raw)


def data_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield lines as `lines` does, without a byte order mark, which is not part of a table or a list."""
    for number, line in lines(path):
        yield number, line.removeprefix("\ufeff") if number == 1 else line


def without_ending(line: str) -> str:
    """Return a line without its line feed and the carriage return before that."""
    return line.removesuffix("\n").removesuffix("\r")


def _decode(raw: bytes, path: Path, offset: int, line: int) -> str:
    """Decode bytes that start at byte `offset` and at `line` (counted from 1) of the file."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        raise UserError(f"{path}:{line}: not valid UTF-8 at byte {offset + error.start} of the file") from error

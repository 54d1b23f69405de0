"""Small files, written whole or not at all.

A reader never sees half a file: what is written goes to a temporary name in the same folder, is flushed
to the disk, and takes its place by a rename.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` so that readers see the old file or the new one, never a part.

    Raises OSError (no space, no permission); the old file is untouched then.
    """
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp's 0600 would hide a shared sweep from colleagues
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    flush_to_disk(path.parent)


_FOLDERS_OF_SYSTEMS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}
"""Folders that archivers and file servers put beside a user's files, with copies or fragments of them."""


def is_leftover(name: str) -> bool:
    """Return whether a file or folder is hidden, or was left by a program: a user who names a folder does not mean it.

    These are names that begin with a dot (.ipynb_checkpoints, ._a.txt), folders of file systems (__MACOSX), and the
    backups and locks of editors (a.txt~, #a.txt#, ~$a.csv).
    """
    is_of_editor = name.endswith("~") or name.startswith("~$") or (name.startswith("#") and name.endswith("#"))
    return name.startswith(".") or name in _FOLDERS_OF_SYSTEMS or is_of_editor


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a folder that match a pattern, sorted, without leftovers."""
    return sorted(file for file in folder.glob(pattern) if not is_leftover(file.name))


def flush_to_disk(*paths: Path) -> None:
    """Wait until files, and the names in folders, are on the disk; they then outlast a power cut.

    Raises OSError when a file cannot be written out. A file system that has no such thing for folders is left alone.
    """
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError:
            if not path.is_dir():
                raise
        finally:
            os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically. NaN and infinity are refused: JSON has neither."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises FileNotFoundError, or ValueError when it is not JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def hash_text(text: str, length: int = 64) -> str:
    """Return the first `length` hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def hash_files(paths: Iterable[Path]) -> str:
    """Return the SHA-256 over the contents of files, in the order given; names do not count."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()

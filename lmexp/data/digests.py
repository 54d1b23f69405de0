"""Hashes of large files, kept beside the token stores, so that a run on gigabytes of text need not read them to start.

A file is recognised by its path, its inode, its size, and the times of its last change, which no program can set back.
A kept hash is never used to make a store: the text is hashed again before it is tokenised.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmexp.files import digest_of, read_json, write_json

Digest = Callable[[Path], bytes]
"""Returns the SHA-256 of a file's content."""

FILE = ".digests.json"
MIN_KEPT = 1 << 26
"""Bytes: smaller files are read within a tenth of a second."""
MIN_AGE_NS = 2 * 10**9
"""If a file was changed less than this before it is read, a further change may leave its times the same."""


def kept_in(folder: Path) -> Digest:
    """Return a function that returns the hash of a file, from `folder` if it was read before."""
    memory = folder / FILE

    def digest(file: Path) -> bytes:
        before, now = _version(file), time.time_ns()
        if before["size"] < MIN_KEPT:
            return digest_of(file)
        name = os.path.realpath(file)
        entry = _read(memory).get(name)
        if isinstance(entry, dict) and entry.get("version") == before:
            with suppress(TypeError, ValueError, KeyError):
                return bytes.fromhex(entry["sha256"])
        digest = digest_of(file)
        if now - before["changed"] > MIN_AGE_NS and _version(file) == before:
            with suppress(OSError):  # a folder that cannot be written is reported when a store is written
                folder.mkdir(parents=True, exist_ok=True)
                write_json(memory, _read(memory) | {name: {"version": before, "sha256": digest.hex()}})
        return digest

    return digest


def _version(file: Path) -> dict[str, int]:
    status = file.stat()
    return {
        "size": status.st_size,
        "inode": status.st_ino,
        "modified": status.st_mtime_ns,
        "changed": status.st_ctime_ns,
    }


def _read(memory: Path) -> dict[str, Any]:
    """Return what is kept; nothing if the file is missing or damaged."""
    try:
        kept = read_json(memory)
    except (OSError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}

"""Where text comes from: documents out of a data config, always in the same order.

Three kinds of source: the standard library's own files (no network needed), local files (local_files.py)
and the Hugging Face hub (hub.py). Nothing in a text is normalised: line endings, spaces and Unicode forms
stay as they are, so that bytes counted here are the bytes of the source. Empty documents are skipped.

A source has a fingerprint, the hash of its content. It stands for the paths in identities: the same text
in another folder is the same data.
"""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from lmexp.config.schema import DataConfig, FileData, HubData
from lmexp.data import hub, local_files
from lmexp.errors import UserError
from lmexp.files import hash_files

# Tests are left out: they are repetitive, some are invalid UTF-8 on purpose, and packagers ship them or not.
_NOT_STDLIB = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}


def fingerprint(data: DataConfig) -> str:
    """Return the SHA-256 of the source's content, in hexadecimal.

    Of files: their contents in sorted order. Of a hub dataset: its name, config, subset and the commit that
    the revision stands for. Raises UserError when there is no such source or nothing in it.
    """
    if isinstance(data, HubData):
        return hub.fingerprint(data)
    try:
        files = local_files.find(data) if isinstance(data, FileData) else _stdlib_files()
        if not any(path.stat().st_size for path in files):
            raise UserError(f"{_name(data)}: the source is empty")
        return hash_files(files)
    except OSError as error:
        raise _cannot_read(data, error) from error


def documents(data: DataConfig) -> Iterator[str]:
    """Yield the text of every document that is not empty, in an order that is the same on every machine.

    Raises UserError where the source is missing, is damaged, or holds no text at all.
    """
    if isinstance(data, HubData):
        texts = hub.documents(data)
    elif isinstance(data, FileData):
        texts = local_files.documents(data)
    else:
        texts = _stdlib_documents()
    found = False
    try:
        for text in texts:
            if text:
                found = True
                yield text
    except OSError as error:
        raise _cannot_read(data, error) from error
    if not found:
        raise UserError(f"{_name(data)}: the source holds no text")


def _name(data: DataConfig) -> str:
    """Return what a person would call the source."""
    if isinstance(data, FileData):
        return data.path
    return data.name if isinstance(data, HubData) else data.source


def _cannot_read(data: DataConfig, error: OSError) -> UserError:
    return UserError(f"{error.filename or _name(data)}: cannot be read: {error.strerror or error}")


def library_files(root: Path) -> list[Path]:
    """Return the Python files of a standard library, tests left out, sorted by their path in it."""
    found = {
        path.relative_to(root): path
        for path in root.rglob("*.py")
        if not _NOT_STDLIB.intersection(path.relative_to(root).parts[:-1]) and path.is_file()
    }
    if not found:
        raise UserError(f"{root}: this interpreter came without its library's sources; use data=text")
    return [found[name] for name in sorted(found, key=Path.as_posix)]


def _stdlib_files() -> list[Path]:
    return library_files(Path(sysconfig.get_path("stdlib")))


def _stdlib_documents() -> Iterator[str]:
    """Yield each file of the standard library, pydoc_data/topics.py (the language's manual) included."""
    for path in _stdlib_files():
        try:
            yield path.read_bytes().decode()
        except UnicodeDecodeError:
            continue  # a few files declare another encoding

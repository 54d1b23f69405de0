"""Small files: written whole or not at all, and read only if they are regular files of a sensible size.

A reader never sees half a file: what is written goes to a temporary name in the same folder, is flushed
to the disk, and takes its place by a rename.

A path from outside can lead to anything: a FIFO that never ends, a device, a link that leads back to itself. Opening
one of these is an OSError with a plain reason, before a byte is read.
"""

import ctypes
import errno
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from lmexp.errors import UserError

MAX_BYTES = 256_000_000
"""A file that is read whole is refused if it is larger; texts and weights are read in parts, without a limit."""
_KINDS = {
    stat.S_IFDIR: (errno.EISDIR, "it is a folder; a file is needed"),
    stat.S_IFIFO: (errno.EINVAL, "it is a FIFO; a regular file is needed"),
    stat.S_IFCHR: (errno.EINVAL, "it is a device; a regular file is needed"),
    stat.S_IFBLK: (errno.EINVAL, "it is a device; a regular file is needed"),
    stat.S_IFSOCK: (errno.EINVAL, "it is a socket; a regular file is needed"),
}
"""What a path can lead to besides a regular file: the error for it."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Of Linux's <fcntl.h> and <linux/fs.h>."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises OSError for anything else, also for a path that no file can have."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # without O_NONBLOCK, a FIFO would wait here
    except ValueError:  # a null character, or one that the file system's encoding lacks
        raise OSError(errno.EINVAL, "no file can have this name", ascii(str(path))) from None
    try:
        refuse_irregular(os.fstat(handle).st_mode, path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def refuse_irregular(mode: int, path: Path) -> None:
    """Raise OSError if a mode is not that of a regular file."""
    if not stat.S_ISREG(mode):
        number, reason = _KINDS.get(stat.S_IFMT(mode), (errno.EINVAL, "it is not a regular file"))
        raise OSError(number, reason, str(path))


def user_path(name: str | Path) -> Path:
    """Return a path that a user wrote, with its `~` filled in. Raises UserError if `~name` is no user here."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"{name}: there is no user '{str(name).lstrip('~').split('/')[0]}' on this machine") from None


def absolute_text(path: Path) -> str:
    """Return a path as a config holds it: absolute, and text. Raises UserError if the name of a folder is not UTF-8."""
    text = str(path.absolute())
    if not is_unicode(text):
        raise UserError(f"{text!a}: this path is not UTF-8, so no config can hold it: rename the folder")
    return text


def why_not_a_file(path: Path) -> str | None:
    """Return why a path cannot be read as a file, for one that leads to something; None if it can, or leads nowhere."""
    try:
        open_regular(path).close()
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.strerror
    return None


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the content of a regular file. Raises OSError, also if the file has more than `max_bytes`."""
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than {max_bytes:,} bytes, the most that is read", str(path))
    return content


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """Return the content of a regular file in UTF-8. Raises OSError, or UnicodeDecodeError, which is a ValueError."""
    return read_bytes(path, max_bytes).decode("utf-8-sig")


def write_atomically(path: Path, content: str | bytes | Iterator[str] | Iterator[bytes]) -> None:
    """Write `content` to `path` so that readers see the old file or the new one, never a part.

    An iterator yields one part after another, which are not held together in memory.
    Raises OSError (no space, no permission); the old file is untouched then.
    """
    with _written(path, content) as whole:
        whole.replace(path)
    flush_to_disk(path.parent)


def write_new(path: Path, content: str) -> None:
    """Write `content` to `path`, whole, if nothing has that name yet; of several writers one succeeds.

    Raises FileExistsError if something has the name, and OSError as `write_atomically` does.
    """
    with _written(path, content) as whole:
        os.link(whole, path)
    flush_to_disk(path.parent)


@contextmanager
def _written(path: Path, content: str | bytes | Iterator[str] | Iterator[bytes]) -> Iterator[Path]:
    """Yield a hidden file beside `path` with the whole content, flushed to disk; it is gone afterwards.

    Raises OSError about the folder if no file can be made in it, and about `path` if something else is wrong. The
    message never names the hidden file.
    """
    parts = content if isinstance(content, Iterator) else [content]
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        named = path if error.errno == errno.ENAMETOOLONG else path.parent
        raise OSError(error.errno, error.strerror, str(named)) from error
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part.encode() if isinstance(part, str) else part)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~umask())  # mkstemp's 0600 would hide a shared sweep from colleagues
        yield Path(name)
    except OSError as error:
        if error.errno is None or error.filename not in (None, name):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        Path(name).unlink(missing_ok=True)


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


def write_output(path: Path, content: bytes) -> None:
    """Write a file that the user named: atomically, through a link that it may be, or into a device such as /dev/null.

    Files of lmexp's own are written by `write_atomically`, which replaces a link: somebody else may have put it there.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file() and not target.is_dir():
        with target.open("wb") as device:
            device.write(content)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)


def clock_of(folder: Path) -> float:
    """Return the time, in seconds since the epoch, by the clock that dates the files in a folder.

    That of a file server may differ from this machine's, which is used for a folder that cannot be written to.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"t")
            file.flush()
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def umask() -> int:
    """Return the permissions that new files are not to have; they can only be read by setting them."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


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


def exchange_folders(one: Path, other: Path) -> None:
    """Give each of two folders of one file system the other's name. Raises OSError.

    On Linux that is one step (renameat2). Elsewhere, `other` has no folder for the moment between two renames.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename and rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return
    number = ctypes.get_errno() if rename else errno.ENOSYS
    if number not in (errno.ENOSYS, errno.EINVAL):
        raise OSError(number, os.strerror(number), str(other))
    aside = one.with_name(f"{one.name}.aside")
    other.rename(aside)
    one.rename(other)
    aside.rename(one)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically. NaN and infinity are refused: JSON has neither."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises OSError, or ValueError if it is not JSON or is nested too deeply."""
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None


def lines_of(text: str) -> list[str]:
    """Return the lines of a text without their endings; a line feed, with a carriage return before it or not, ends one.

    Nothing else ends a line. (`str.splitlines` also cuts at U+2028, U+0085, form feeds and five more, which occur in
    sentences.)
    """
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; bytes of the command line that are not UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def hash_text(text: str, length: int = 64) -> str:
    """Return the first `length` hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def digest_of(file: Path) -> bytes:
    """Return the SHA-256 of a file's content. Raises OSError."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def hash_files(paths: Iterable[Path], digest: Callable[[Path], bytes] = digest_of) -> str:
    """Return the SHA-256 over the contents of files, in the order given; names do not count.

    `digest` returns that of one file.
    """
    total = hashlib.sha256()
    for path in paths:
        total.update(digest(path))
    return total.hexdigest()

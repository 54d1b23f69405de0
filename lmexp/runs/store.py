"""A place for files that several machines share: a folder, or any address of fsspec (s3://, gs://, hf://, file://).

Credentials come from the environment or from the service's own config files, never from the address. Each file is
either complete or missing: object stores guarantee this, and in a folder a hidden file is written and then renamed.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from lmexp.errors import UserError, reason_of
from lmexp.files import user_path, write_atomically

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""Kinds of addresses, and the extra of lmexp that brings their package."""
_SECRET = re.compile(r"(?i)//[^/\s]*:(?!\d*(?:/|$)).*@|[?&;]\w*(?:key|secret|token|password|sig|signature)=")
"""A password in an address, as in s3://me:secret@bucket, or a key after a question mark."""


class Store:
    """The files below an address; their names are relative, with slashes."""

    def __init__(self, address: str) -> None:
        """Open the place. Raises UserError for an address that is wrong, holds a password, or needs a package."""
        import fsspec

        kind, mark, _ = address.partition("://")
        if not address or "::" in address or "\0" in address:
            raise UserError(f"{address!r} is neither a folder nor an address such as s3://bucket/studies")
        if mark and _SECRET.search(address):
            raise UserError(
                "the address holds a password or a key: leave it out, and set it in the environment or in the "
                "service's own config file, as for s3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        self.address = address
        self.folder = Path(user_path(address)).absolute() if not mark else None
        try:
            # fsspec would reuse the object of an earlier call, which keeps the credentials and the server of that time.
            file_system, root = fsspec.core.url_to_fs(str(self.folder or address), skip_instance_cache=True)
        except ImportError as error:
            extra = EXTRAS.get(kind)
            how = f"pip install 'lmexp[{extra}]'" if extra else reason_of(error)
            raise UserError(f"addresses {kind}:// need a package that is not installed: {how}") from None
        except Exception as error:
            hint = "" if kind in fsspec.available_protocols() else ". There are s3://, gs://, hf://, file:// and more"
            raise UserError(f"{address}: {reason_of(error)}{hint}") from None
        self._files: Any = file_system
        self._root = str(root).rstrip("/")
        if "file" in _listed(file_system.protocol):
            self.folder = Path(self._root or "/")

    @property
    def threads(self) -> int:
        """How many files may be written at a time. On the Hugging Face hub each is a commit, one after another."""
        return 1 if "hf" in _listed(self._files.protocol) else 8

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the names of all files below a folder, with their bytes; none if it is missing."""
        with self._as_user_error():
            self._files.invalidate_cache()
            try:
                entries = self._files.find(f"{self._root}/{prefix.rstrip('/')}", detail=True)
            except FileNotFoundError:
                return {}
        return {
            str(path).removeprefix(f"{self._root}/"): int(entry.get("size") or 0)
            for path, entry in entries.items()
            if entry.get("type") == "file"
        }

    def folders(self) -> list[str]:
        """Return the names of the folders at the top."""
        with self._as_user_error():
            try:
                entries = self._files.ls(self._root or "/", detail=True)
            except FileNotFoundError:
                return []
        return sorted(PurePosixPath(str(entry["name"])).name for entry in entries if entry.get("type") == "directory")

    def read(self, name: str) -> bytes:
        """Return the content of a file. The caller has checked its size. Raises UserError."""
        with self._as_user_error():
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
            return content

    def write(self, name: str, content: bytes | Path) -> None:
        """Write a file with this content, or with that of a local file. Raises UserError, or OSError for a folder."""
        if self.folder:
            place = self.folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, content if isinstance(content, bytes) else _parts(content))
            return
        with self._as_user_error():
            if isinstance(content, bytes):
                self._files.pipe_file(f"{self._root}/{name}", content)
            else:
                self._files.put_file(str(content), f"{self._root}/{name}")

    def fetch(self, names: Mapping[Path, str]) -> None:
        """Copy files to local ones, many at a time if the service can do it. Raises UserError."""
        if names:
            with self._as_user_error():
                self._files.get([f"{self._root}/{name}" for name in names.values()], [str(file) for file in names])

    @contextmanager
    def _as_user_error(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # each service has exceptions of its own
            raise UserError(f"{self.address}: {reason_of(error)}") from error


def _parts(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while part := stream.read(1 << 22):
            yield part


def _listed(protocol: str | tuple[str, ...]) -> tuple[str, ...]:
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)

"""Where a record comes from: machine, time, code and packages."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import lmexp
from lmexp.config.schema import SCHEMA_VERSION
from lmexp.files import hash_files
from lmexp.runs.record import Row

PACKAGES = ("lmexp", "torch", "pytorch-lightning", "numpy", "tokenizers")
"""Packages whose version can change a number."""
THEN = " then "
"""Stands between the versions of the code that trained one run, one after another."""


def origin_columns(started: float) -> Row:
    """Return the record's columns of origin; `started` is in seconds since the epoch."""
    sha, is_dirty = checkout()
    return {
        "git_sha": sha,
        "git_dirty": is_dirty,
        "packages": packages(),
        "host": platform.node(),
        "started": utc(started),
        "schema_version": SCHEMA_VERSION,
    }


def checkout() -> tuple[str | None, bool | None]:
    """Return the commit that lmexp runs from, and whether there are uncommitted changes; None outside of a checkout."""
    sha = _git("rev-parse", "HEAD")
    return sha, bool(_git("status", "--porcelain")) if sha else None


@cache
def code_version() -> str:
    """Return what trains a run now: the first digits of a hash of lmexp's own source, and the packages.

    It is read once, when a process starts: later the files on the disk may be others than those that were imported.
    """
    root = Path(lmexp.__file__).resolve().parent
    return f"source@{hash_files(sorted(root.rglob('*.py')))[:12]} {packages()}"


def packages() -> str:
    """Return the versions of Python and of the packages that can change a number."""
    return " ".join([f"python=={platform.python_version()}", *map(pinned, PACKAGES)])


@cache
def pinned(package: str) -> str:
    """Return `name==version` of an installed package; it is read once in a process, as is the package."""
    try:
        return f"{package}=={version(package)}"
    except PackageNotFoundError:
        return f"{package}==?"


def utc(seconds: float) -> str:
    """Return a time in seconds since the epoch as ISO 8601, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _git(*words: str) -> str | None:
    """Return what git prints about the checkout that lmexp runs from; None if it does not run from one."""
    root = Path(lmexp.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        asked = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None

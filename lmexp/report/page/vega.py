"""Vega for the pages: one script, which is built once by each user and kept in the folder of their caches.

vl-convert takes more than a second to build it and lets no other thread of Python run meanwhile, so a page that is
served would not answer. The kept file goes into every page, so it is used only if nobody else could have written it.
"""

import hashlib
import os
import stat
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import vl_convert

from lmexp.files import read_bytes, write_atomically

SNIPPET = "window.vegaEmbed = vegaEmbed;"
"""What the script does besides defining its libraries."""


@cache
def vega() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that sets `vegaEmbed`."""
    try:
        file = _folder() / f"vega-{version('vl-convert-python')}.js"
    except RuntimeError:  # the user has no home folder
        bundle = _built()
    else:
        bundle = _kept(file) or _build_and_keep(file)
    return bundle.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _folder() -> Path:
    """Return the folder of lmexp's caches, as freedesktop.org's Base Directory Specification has it."""
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (chosen if chosen.is_absolute() else Path.home() / ".cache") / "lmexp"


def _built() -> str:
    bundle: str = vl_convert.javascript_bundle(SNIPPET)
    return bundle


def _build_and_keep(file: Path) -> str:
    """Build the script, and keep it if that is possible: after its SHA-256, so that damage is noticed."""
    bundle = _built()
    with suppress(OSError):  # a full or a read-only disk
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, f"{_digest(bundle)}\n{bundle}")
        file.chmod(0o600)
    return bundle


def _kept(file: Path) -> str | None:
    """Return the kept script; None if there is none, if it is damaged, or if others may write it or its folder."""
    try:
        if not all(_is_ours(path.lstat()) for path in (file.parent, file)):
            return None
        digest, _, bundle = read_bytes(file).decode().partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return bundle if digest == _digest(bundle) else None


def _is_ours(status: os.stat_result) -> bool:
    """Whether a file or a folder is the user's own, and nobody else may write it; links are not followed."""
    is_plain = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return is_plain and status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _digest(bundle: str) -> str:
    return hashlib.sha256(bundle.encode()).hexdigest()

"""Garbage collection, kept away from what never becomes garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_kept() -> Iterator[None]:
    """Import large libraries without collections, and keep what they made out of all later ones.

    torch and Lightning make half a million objects that live as long as the process. Collections while they are
    imported take a fifth of that time, and later each full collection would look through all of them again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()

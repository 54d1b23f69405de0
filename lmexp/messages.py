"""How long work reports its progress: one short sentence at a time, to whatever the caller passes in."""

from collections.abc import Callable

Say = Callable[[str], None]
"""Receives a sentence about the progress of something that takes long, or a warning."""


def silent(message: str) -> None:
    """Ignore a message: the default where nobody listens."""

"""How long work reports its progress: one short sentence at a time, to whatever the caller passes in."""

from collections.abc import Callable, Sequence

Say = Callable[[str], None]
"""Receives a sentence about the progress of something that takes long, or a warning."""


def silent(message: str) -> None:
    """Ignore a message: the default where nobody listens."""


MAX_LINES = 8
"""Lines about as many runs or files that are said at once."""


def say_first(lines: Sequence[str], where: str, say: Say) -> None:
    """Say the first MAX_LINES of `lines`; if there are more, say how many, and `where` all of them are."""
    for line in lines[:MAX_LINES]:
        say(line)
    if len(lines) > MAX_LINES:
        say(f"and {len(lines) - MAX_LINES:,} more; {where}")

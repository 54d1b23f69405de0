"""The one exception that a wrong input raises."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """The input was wrong: its text is one short message for the person who gave it.

    The command line prints it and exits with 2; a traceback appears only with ``--debug``.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the known word nearest to `word`, or nothing."""
    match = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{match[0]}'?" if match else ""


def reason_of(error: BaseException) -> str:
    """Return an exception as one line: its type, unless it is ours, and its first line of text."""
    text = str(error).strip().split("\n", 1)[0][:300]
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

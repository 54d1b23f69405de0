"""Read what a run has printed, also while it is printing."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lmexp.files import lines_of, open_regular

LOOK_SECONDS = 0.3
"""Time between two looks for new lines."""


def last_lines(file: Path, count: int) -> tuple[list[str], int]:
    """Return the last complete lines of a log, and the position in bytes where they end."""
    try:
        with open_regular(file) as log:
            content = log.read()
    except OSError:  # the run has not printed anything
        return [], 0
    whole = content[: content.rfind(b"\n") + 1]
    return _lines(whole)[-count:] if count else [], len(whole)


def further_lines(file: Path, start: int, ended: Callable[[], bool]) -> Iterator[str]:
    """Yield the lines after the position `start` as they appear, until `ended` returns True."""
    while True:
        is_over = ended()  # before reading: what was written before the end is still read
        try:
            with open_regular(file) as log:
                log.seek(start)
                content = log.read()
        except OSError:
            content = b""
        if not is_over:
            content = content[: content.rfind(b"\n") + 1]
        start += len(content)
        yield from _lines(content)
        if is_over:
            return
        time.sleep(LOOK_SECONDS)


def _lines(content: bytes) -> list[str]:
    """Return the lines as a terminal shows them: of a progress bar, which returns to the start, the last state."""
    return [line.rsplit("\r", 1)[-1] for line in lines_of(content.decode(errors="replace"))]

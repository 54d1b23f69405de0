"""Reading what a run printed, also while it prints."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

LOOK_SECONDS = 0.3


def last_lines(file: Path, count: int) -> tuple[list[str], int]:
    """Return the last lines of a log, and the byte where they end; a line that is not whole yet is left for later."""
    try:
        content = file.read_bytes()
    except OSError:  # it has not printed anything
        return [], 0
    whole = content[: content.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines()[-count:] if count else [], len(whole)


def further_lines(file: Path, start: int, ended: Callable[[], bool]) -> Iterator[str]:
    """Yield the lines after a byte as they come, until `ended` says that no more will."""
    while True:
        is_over = ended()  # before reading: what was written before the end is still read
        try:
            with file.open("rb") as log:
                log.seek(start)
                content = log.read()
        except OSError:
            content = b""
        if not is_over:
            content = content[: content.rfind(b"\n") + 1]
        start += len(content)
        yield from content.decode(errors="replace").splitlines()
        if is_over:
            return
        time.sleep(LOOK_SECONDS)

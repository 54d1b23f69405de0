"""The one door to the terminal: whatever a person reads passes through a `Terminal`, which prints any text harmlessly.

Names, logs, generated texts and messages come from anywhere. Here brackets are no markup and `:100:` is no emoji, a
control character shows as a replacement and never moves the cursor, a letter that the output's encoding lacks is
replaced, a tab stays a tab in a line, and a reader of standard output that has gone (`lmexp list models | head`) is no
error.
"""

import codecs
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from lmexp.errors import UserError
from lmexp.units import CONTROL, duration, harmless

IN_ASCII = {"–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "≈": "~", "≤": "<=", "≥": ">=", "‘": "'", "’": "'"}
"""Characters of lmexp's own, and what stands for them where the output's encoding lacks them."""
PROGRESS_VARIABLE = "LMEXP_PROGRESS_SECONDS"
"""The environment variable with the seconds between two lines of progress, where there is no terminal."""
DEFAULT_PROGRESS_SECONDS = 25.0
SILENCE = 1.15
"""A reminder says that the work goes on if no line was printed for this many intervals: 28.75 s by default."""
LENIENT = "lmexp.lenient"
"""The error handler of encodings that replaces what cannot be encoded."""


def _replacement(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(IN_ASCII.get(letter, "?") for letter in lacking), error.end


codecs.register_error(LENIENT, _replacement)


def never_raise_for_letters(*streams: TextIO) -> None:
    """Let streams replace what their encoding lacks, also for text that does not pass through a `Terminal`."""
    for stream in streams:
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=LENIENT)


def progress_seconds() -> float:
    """Return the seconds between two lines of progress. Raises UserError if the environment has no such number."""
    text = os.environ.get(PROGRESS_VARIABLE) or str(DEFAULT_PROGRESS_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.01 <= seconds <= threading.TIMEOUT_MAX / SILENCE:
        raise UserError(f"{PROGRESS_VARIABLE}={text}: expected the seconds between two lines of progress, such as 25")
    return seconds


def _forget_sizes_of_zero() -> None:
    """Remove COLUMNS=0 and LINES=0 from the environment: a pseudo-terminal without a size may set them.

    rich would print nothing at all, neither results nor help.
    """
    for name in ("COLUMNS", "LINES"):
        if not os.environ.get(name, "1").strip("0"):
            del os.environ[name]


class Terminal(Console):
    """A console that prints every text as text."""

    last_print = 0.0
    """When any terminal of this process last printed, by the monotonic clock."""

    def __init__(self, **options: Any) -> None:
        _forget_sizes_of_zero()
        super().__init__(**{"highlight": False, "markup": False, "emoji": False, **options})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is printed of anything, with harmless text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=self._fitting(harmless(segment.text)))

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, and remember when."""
        Terminal.last_print = time.monotonic()
        super().print(*objects, **options)

    def print_piece(self, text: str) -> None:
        """Print a part of a line, or several lines, as they are: unwrapped, with their tabs."""
        self.print(_Lines(text), end="", soft_wrap=True)

    def print_line(self, text: str) -> None:
        """Print one line, unwrapped, so that paths stay whole."""
        self.print_piece(f"{text}\n")

    def print_document(self, document: Any, indent: int | None = 2) -> None:
        """Print a JSON document that any reader reads back as it was; without `indent`, on one line."""
        is_unicode = self.encoding.lower().startswith("utf")
        text = json.dumps(document, indent=indent, ensure_ascii=not is_unicode, allow_nan=False)
        self.file.write(CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", text) + "\n")
        self.file.flush()

    def on_broken_pipe(self) -> None:
        """Print nothing more. Raises BrokenPipeError if it was the result that nobody reads any longer."""
        self.quiet = True
        if not self.stderr:
            raise BrokenPipeError

    def _fitting(self, text: str) -> str:
        if text.isascii() or self.encoding.lower().startswith("utf"):
            return text
        return text.encode(self.encoding, LENIENT).decode(self.encoding)


@contextmanager
def reminders(console: Terminal) -> Iterator[None]:
    """Print that the work goes on whenever nothing was printed for a while; print nothing on a terminal.

    Without that, the log of CI or of a cluster does not show whether a long download still makes progress. Raises
    UserError if LMEXP_PROGRESS_SECONDS is not a valid interval.
    """
    patience = SILENCE * progress_seconds()
    if console.is_terminal:
        yield
        return
    ended = threading.Event()
    Terminal.last_print = time.monotonic()

    def remind() -> None:
        news = Terminal.last_print
        while not ended.wait(max(Terminal.last_print + patience - time.monotonic(), 0.0)):
            if time.monotonic() < Terminal.last_print + patience:
                news = Terminal.last_print
                continue
            console.print_line(f"still at work; nothing new for {duration(time.monotonic() - news)}")

    thread = threading.Thread(target=remind, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@dataclass(frozen=True)
class _Lines:
    """Text that rich neither wraps nor changes; as a `Text`, its tabs would become spaces."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        yield Segment(self.text)


def forget_output() -> None:
    """Send what is still to be printed to nowhere, so that the interpreter's end does not fail for lack of a reader."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())

"""What the verbs share: the application, the two consoles, and how errors are reported.

Results go to standard output, status lines and errors to standard error.
"""

import errno
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import wraps
from typing import Any, NoReturn

import typer

from lmexp.cli.options import flat
from lmexp.errors import UserError, reason_of
from lmexp.terminal import Terminal, forget_output, never_raise_for_letters, reminders

RUN, WATCH, DECIDE, USE, LOOK = "Run", "Watch and change", "Decide", "Use a model", "Look around"
"""The groups of verbs in `lmexp --help`."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="What does a better language model cost? Run sweeps over size, depth, precision and more, "
    "and compare quality and cost of every run side by side.",
)
out = Terminal()
err = Terminal(stderr=True)


def verb(
    panel: str, *examples: str, name: str | None = None, only_shows: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a verb, under its own name unless `name` is given; its help shows the examples.

    `only_shows` is for verbs that show something, perhaps until Ctrl-C: they print no reminders that work goes on.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        shown = ", or ".join(f"`{example}`" for example in examples)
        app.command(name or function.__name__, epilog=f"Example: {shown}", rich_help_panel=panel)(
            _until_nobody_reads(flat(function), only_shows)
        )
        return function

    return register


def _until_nobody_reads(command: Callable[..., None], only_shows: bool) -> Callable[..., None]:
    """Return a command that ends well when the reader of its output has gone, as in `lmexp list models | head`.

    While it works without a terminal, it prints a line at least every 30 seconds.
    """

    @wraps(command)
    def call(**values: Any) -> None:
        try:
            with nullcontext() if only_shows else reminders(err):
                command(**values)
            sys.stdout.flush()
        except BrokenPipeError:
            forget_output()
            raise typer.Exit(0) from None
        except EOFError as error:  # of a pipe to a process that was killed; click would print only "Aborted!"
            raise ConnectionError(errno.EPIPE, "a process that this command talks to was killed") from error

    return call


def say(line: str) -> None:
    """Print a status line to standard error."""
    err.print_line(line)


def say_all(lines: Iterable[str]) -> None:
    """Print status lines to standard error."""
    for line in lines:
        say(line)


def print_line(text: str) -> None:
    """Print one line of a result, unwrapped, so that paths stay whole."""
    out.print_line(text)


def print_json(document: Any) -> None:
    """Print the JSON document of `--json`."""
    out.print_document(document)


def main() -> None:
    """Run a verb. A wrong input is one line on standard error and exit code 2. SIGTERM stops it as Ctrl-C does."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    never_raise_for_letters(sys.stdout, sys.stderr)
    try:
        app()
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as problem:  # the panics of libraries written in Rust are no Exceptions
        if "--debug" in sys.argv:
            raise
        _end_with(problem)


def message_of(problem: BaseException) -> str:
    """Return what went wrong, in one line for the person at the terminal."""
    from lmexp.config.failures import explain, place_outside

    if isinstance(problem, UserError):
        return str(problem)
    if place_outside(problem):
        return explain(problem)
    if isinstance(problem, OSError):  # a full disk, a file where a folder should be
        return f"{problem.strerror or problem}{f': {problem.filename}' if problem.filename else ''}"
    return f"lmexp did not expect this: {reason_of(problem)}. The same command with --debug shows where"


def _end_with(problem: BaseException) -> NoReturn:
    """Print one line about what went wrong, and exit: with 2 if the input was wrong, with 1 if lmexp was.

    The user's own code is a part of the input.
    """
    from lmexp.config.failures import place_outside

    say(f"error: {message_of(problem)}")
    sys.exit(2 if isinstance(problem, UserError | OSError) or place_outside(problem) else 1)

"""What the verbs share: the application, the two consoles, and how errors are reported.

Results go to standard output, status lines and errors to standard error.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import typer
from rich.console import Console

from lmexp.cli.options import flat
from lmexp.errors import UserError

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
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def verb(panel: str, *examples: str, name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a verb, under its own name unless `name` is given; its help shows the examples."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        shown = ", or ".join(f"`{example}`" for example in examples)
        app.command(name or function.__name__, epilog=f"Example: {shown}", rich_help_panel=panel)(flat(function))
        return function

    return register


def say(line: str) -> None:
    """Print a status line to standard error."""
    err.print(line, markup=False, soft_wrap=True)


def say_all(lines: Iterable[str]) -> None:
    """Print status lines to standard error."""
    for line in lines:
        say(line)


def print_line(text: str) -> None:
    """Print one line of a result, unwrapped, so that paths stay whole."""
    out.print(text, soft_wrap=True, markup=False)


def print_json(document: Any) -> None:
    """Print the JSON document of `--json`."""
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def main() -> None:
    """Run a verb. A wrong input is one line on standard error and exit code 2."""
    try:
        app()
    except UserError as problem:
        if "--debug" in sys.argv:
            raise
        say(f"error: {problem}")
        sys.exit(2)
    except BrokenPipeError:  # `lmexp list models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as problem:  # a full disk, a file where a folder should be
        if "--debug" in sys.argv:
            raise
        say(f"error: {problem.strerror or problem}{f': {problem.filename}' if problem.filename else ''}")
        sys.exit(2)

"""What the verbs share: the application, the two consoles, options, and how things are said.

Results go to standard output; whatever tells of the way there goes to standard error.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lmexp.errors import UserError

RUN, WATCH, DECIDE, USE, LOOK = "Run", "Watch and change", "Decide", "Use a model", "Look around"
"""The verbs' groups in `lmexp --help`."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="What does a better language model cost? Sweeps over size, depth, precision and more, "
    "with quality and cost of every run side by side.",
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Words = Annotated[
    list[str] | None, typer.Argument(metavar="[OVERRIDES]...", help="Hydra overrides, as in model=gpt_nano")
]
Outputs = Annotated[
    Path,
    typer.Option("--output-dir", envvar="LMEXP_OUTPUTS", help="Where runs live.", show_default="outputs"),
]
Configs = Annotated[
    Path | None,
    typer.Option("--config-dir", help="A folder with your conf/ and sweeps/; else the current one, if it has them."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of a wrong input.")]
OnFailure = Annotated[
    str, typer.Option(help="continue; stop starts no further run; retry:N starts a run that raised again, N times.")
]
Timeout = Annotated[
    str | None, typer.Option(metavar="DURATION", help="Stop a run that takes longer, as in 90s, 15m, 2h.")
]
MaxHours = Annotated[
    float | None, typer.Option(min=0, help="Start no run that would bring all runs together to more hours.")
]
MaxDollars = Annotated[float | None, typer.Option(min=0, help="The same, in dollars.")]
MaxFlops = Annotated[float | None, typer.Option(min=0, help="The same, in training FLOPs.")]
Detach = Annotated[bool, typer.Option("--detach", help="Go on in the background, also when the terminal closes.")]
OUTPUTS = Path("outputs")


def say(line: str) -> None:
    """Print a status line to standard error."""
    err.print(line, markup=False, soft_wrap=True)


def say_all(lines: Iterable[str]) -> None:
    """Print status lines to standard error."""
    for line in lines:
        say(line)


def print_json(document: Any) -> None:
    """Print the one document of `--json`."""
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

"""`lmexp logs`: what a run, or a detached sweep, has printed."""

from typing import Annotated

import typer

from lmexp.cli.app import WATCH, print_line, say, verb
from lmexp.cli.options import OUTPUTS, Debug, OutputDir


@verb(WATCH, "lmexp logs demo -f", "lmexp logs train/gpt_nano", only_shows=True)
def logs(
    run: Annotated[str, typer.Argument(help="A run: its directory, or a part of its name. Or the name of a sweep.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Keep printing until it ends.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Number of lines to start with.")] = 100,
    output_dir: OutputDir = OUTPUTS,
    debug: Debug = False,
) -> None:
    """Print the log of a run, or of a detached sweep."""
    from lmexp.launch.control import LOG, check_has_ended, is_at_work
    from lmexp.runs.coordinators import has_coordinator
    from lmexp.runs.find import find_run, sweep_folder
    from lmexp.runs.log import further_lines, last_lines

    folder = sweep_folder(run, output_dir)
    directory = None if (folder / LOG).is_file() else find_run(run, output_dir)
    file = directory.log if directory else folder / LOG

    def has_ended() -> bool:
        return not (is_at_work(directory, say) if directory else has_coordinator(folder))

    shown, end = last_lines(file, lines)
    for line in shown:
        print_line(line)
    if follow:
        try:
            for line in further_lines(file, end, has_ended):
                print_line(line)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        if directory:
            check_has_ended(directory)

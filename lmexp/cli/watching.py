"""Verbs for what runs: status, logs, cancel, and sync of its mirrors."""

from typing import Annotated

import typer

from lmexp.cli.app import OUTPUTS, WATCH, AsJson, Debug, Outputs, app, out, print_json, say
from lmexp.errors import UserError


@app.command(epilog="Example: `lmexp status demo --watch`", rich_help_panel=WATCH)
def status(
    name: Annotated[str, typer.Argument(help="A sweep that has been started.")],
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it, until nothing runs any more.")] = False,
    output_dir: Outputs = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what each run of a sweep is doing."""
    from lmexp.launch.control import goes_on
    from lmexp.report.terminal.tables import print_status, watch_status
    from lmexp.runs.status import status

    if watch and as_json:
        raise UserError("--watch shows a table; --json prints one document")
    if watch:
        try:
            watch_status(lambda: status(output_dir / name), lambda: goes_on(output_dir / name), out)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        return
    rows = status(output_dir / name)
    if as_json:
        print_json({"sweep": name, "runs": rows})
    else:
        print_status(rows, lambda: goes_on(output_dir / name), out)


@app.command(epilog="Example: `lmexp logs demo -f`, or `lmexp logs train/gpt_nano`", rich_help_panel=WATCH)
def logs(
    run: Annotated[str, typer.Argument(help="A run: its directory, or a part of its name; or a sweep's name.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until it ends.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many lines to begin with.")] = 100,
    output_dir: Outputs = OUTPUTS,
    debug: Debug = False,
) -> None:
    """Print what a run printed, or what a detached sweep did."""
    from lmexp.launch.control import LOG
    from lmexp.runs.coordinators import has_coordinator
    from lmexp.runs.find import find_run
    from lmexp.runs.log import further_lines, last_lines
    from lmexp.units import printable

    folder = output_dir / run
    if (folder / LOG).is_file():
        file, ended = folder / LOG, lambda: not has_coordinator(folder)
    else:
        found = find_run(run, output_dir)
        file, ended = found.log, lambda: not found.is_under_way()
    seen, end = last_lines(file, lines)
    for line in seen:
        print(printable(line), flush=True)
    if follow:
        try:
            for line in further_lines(file, end, ended):
                print(printable(line), flush=True)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


@app.command(epilog="Example: `lmexp cancel demo`", rich_help_panel=WATCH)
def cancel(
    name: Annotated[str, typer.Argument(help="A sweep that has been started.")],
    output_dir: Outputs = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Stop a sweep and all its runs, wherever they were started; each is saved first, and goes on when run again."""
    from lmexp.launch.control import cancel

    cancelled = cancel(output_dir / name, say)
    if as_json:
        print_json({"sweep": name, "cancelled": [run.name for run in cancelled]})
    else:
        out.print(f"{len(cancelled)} runs cancelled; the same sweep command goes on from here", soft_wrap=True)


@app.command(epilog="Example: `lmexp sync demo --logger wandb`", rich_help_panel=WATCH)
def sync(
    name: Annotated[str, typer.Argument(help="A sweep that has been started.")],
    logger: Annotated[str | None, typer.Option(help="wandb, tensorboard, mlflow; each run's own.")] = None,
    mode: Annotated[str | None, typer.Option(help="W&B: offline, online.")] = None,
    project: Annotated[str | None, typer.Option(help="W&B's project, or MLflow's experiment.")] = None,
    output_dir: Outputs = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Rebuild clean mirrors (W&B, TensorBoard, MLflow) from the runs' own files."""
    from lmexp.runs.sync import sync

    changes = {key: value for key, value in (("name", logger), ("mode", mode), ("project", project)) if value}
    rows = sync(output_dir / name, changes, say)
    if as_json:
        print_json({"sweep": name, "runs": rows})
    results = {row["result"] for row in rows}
    if "stopped" in results and not results & {"mirrored", "offline"}:
        raise typer.Exit(1)

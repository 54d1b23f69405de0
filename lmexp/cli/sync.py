"""`lmexp sync`: rebuild a sweep's mirrors in other tools."""

from typing import Annotated, Any

import typer

from lmexp.cli.app import WATCH, print_json, say, verb
from lmexp.cli.options import CommonWithCode, StartedSweep


@verb(WATCH, "lmexp sync demo --logger wandb")
def sync(
    name: StartedSweep,
    common: CommonWithCode,
    logger: Annotated[
        str | None,
        typer.Option(help="Tool to copy the runs to: wandb, tensorboard, mlflow or trackio [default: each run's own]."),
    ] = None,
    mode: Annotated[str | None, typer.Option(help="Mode of W&B: offline or online [default: each run's own].")] = None,
    artifacts: Annotated[
        str | None,
        typer.Option(help="Files to copy to W&B or MLflow: model, report, or model,report [default: each run's own]."),
    ] = None,
    view: Annotated[
        bool,
        typer.Option(
            "--view",
            help="Also write wandb-view.json, a view that compares the runs; with --mode online, save it in W&B.",
        ),
    ] = False,
    project: Annotated[
        str | None, typer.Option(help="Project in W&B, or experiment in MLflow [default: each run's own].")
    ] = None,
) -> None:
    """Rebuild clean mirrors (W&B, TensorBoard, MLflow, trackio) from the runs' own files."""
    from lmexp.runs.find import sweep_folder
    from lmexp.runs.sync import sync

    changes: dict[str, Any] = {
        key: value for key, value in (("name", logger), ("mode", mode), ("project", project)) if value
    }
    if artifacts:
        changes["artifacts"] = [kind.strip() for kind in artifacts.split(",")]
    folder = sweep_folder(name, common.output_dir)
    rows = sync(folder, changes, say, with_view=view)
    if common.as_json:
        print_json({"sweep": name, "runs": rows})
    results = {row["result"] for row in rows}
    if "stopped" in results and not results & {"mirrored", "offline"}:
        raise typer.Exit(1)

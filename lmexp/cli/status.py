"""`lmexp status`: what each run of a sweep is doing."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from lmexp.cli.app import WATCH, out, print_json, say, verb
from lmexp.cli.options import CommonWithCode, StartedSweep
from lmexp.errors import UserError

if TYPE_CHECKING:
    from lmexp.runs.record import Row


@verb(WATCH, "lmexp status demo --watch", only_shows=True)
def status(
    name: StartedSweep,
    common: CommonWithCode,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until no run is active.")] = False,
) -> None:
    """Show what each run of a sweep is doing, and the final losses that are predicted."""
    from lmexp.analysis.final_loss.predict import FinalLossPredictor, add_predictions, calibrations_in_words
    from lmexp.launch.control import goes_on
    from lmexp.report.terminal.status import print_status, watch_status
    from lmexp.runs.find import sweep_folder
    from lmexp.runs.status import status

    folder = sweep_folder(name, common.output_dir)
    if watch and common.as_json:
        raise UserError("--watch shows a table that changes, and --json prints one document: use one of them")
    predictor = FinalLossPredictor(folder)

    def look() -> "list[Row]":
        return add_predictions(status(folder), predictor)

    def calibration() -> list[str]:
        return calibrations_in_words(predictor.calibrations())

    if watch:
        try:
            watch_status(look, lambda: goes_on(folder, say), out, calibration)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        return
    rows = look()
    if common.as_json:
        print_json({"sweep": name, "runs": rows, "calibration": list(map(asdict, predictor.calibrations()))})
    else:
        print_status(rows, lambda: goes_on(folder, say), out, calibration())

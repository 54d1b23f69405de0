"""`lmexp forecast`: predict runs before they exist, and score the predictions when they do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lmexp.cli.app import DECIDE, out, print_json, print_line, verb
from lmexp.cli.fit_options import LawOptions, SolverOptions, StudyColumns, amounts_in, described_runs
from lmexp.cli.options import CommonWithCode
from lmexp.errors import UserError


@dataclass(frozen=True)
class RunsToForecast:
    """Which runs to forecast."""

    at: Annotated[
        list[str] | None,
        typer.Option(metavar="FLOPS", help="Budgets whose best run to forecast, such as 1e13,1e14. Can be repeated."),
    ] = None
    predict: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN", help="Forecast the run of this size, such as params=1e7,tokens=1e9. Can be repeated."
        ),
    ] = None


@verb(DECIDE, "lmexp forecast scaling --at 1e12", "lmexp forecast --scores")
def forecast(
    runs: RunsToForecast,
    law: LawOptions,
    columns: StudyColumns,
    solver: SolverOptions,
    common: CommonWithCode,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="SWEEP", help="A sweep with finished runs; with --scores, any number [default: all]."),
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Instead: show all forecasts, their runs, and how often they were right.")
    ] = False,
) -> None:
    """Seal a prediction of a run before it exists; reports and --scores compare it with the run when it does."""
    from lmexp.runs.find import sweep_folder

    folders = [sweep_folder(name, common.output_dir) for name in names or []]
    if scores:
        if runs.at or runs.predict:
            raise UserError("--scores shows the forecasts that are there: --at and --predict make new ones")
        _show_scores(common.output_dir, folders, common.as_json)
        return
    if len(folders) != 1:
        raise UserError("a forecast comes from the runs of one sweep: name it, or use --scores")
    _seal(folders[0], runs, law, columns, solver, common.as_json)


def _show_scores(outputs: Path, folders: list[Path], as_json: bool) -> None:
    from lmexp.report.forecasts import forecasts_document
    from lmexp.report.terminal.forecast import print_forecasts
    from lmexp.study.forecast import score_forecasts

    result = score_forecasts(outputs, folders)
    if as_json:
        print_json(forecasts_document(result.scores))
    else:
        print_forecasts(result.scores, out)


def _seal(
    folder: Path, runs: RunsToForecast, law: LawOptions, columns: StudyColumns, solver: SolverOptions, as_json: bool
) -> None:
    from lmexp.analysis.forecasts.make import FitOptions
    from lmexp.report.terminal.forecast import print_new_forecasts
    from lmexp.study.forecast import seal_forecasts

    solver.check()
    budgets, described = amounts_in("--at", runs.at), described_runs("--predict", runs.predict)
    if not budgets and not described:
        raise UserError("name what to forecast: --at FLOPS, or --predict params=N,tokens=D")
    options = FitOptions(
        laws=law.laws(),
        columns=columns.parse(),
        where=columns.where,
        all_runs=columns.all_runs,
        delta=solver.delta,
        bootstraps=solver.bootstraps,
        seed=solver.seed,
    )
    sealed = seal_forecasts(folder, budgets, described, options)
    if as_json:
        each = [
            file.forecast.model_dump(mode="json") | {"file": str(file.path)} for file in sealed.files if file.forecast
        ]
        print_json({"forecasts": each, "warnings": list(sealed.warnings)})
        return
    print_new_forecasts(sealed.forecasts, sealed.warnings, out)
    for file in sealed.files:
        print_line(f"sealed: {file.path}")

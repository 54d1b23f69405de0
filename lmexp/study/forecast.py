"""Forecast runs of a sweep: fit a law to the finished runs, make sure that no such run exists, and seal the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmexp.analysis.forecasts.make import FitOptions, predictions
from lmexp.analysis.forecasts.same_size import begun, recorded, seen
from lmexp.analysis.forecasts.score import Calibration, Score, calibration, scores_of
from lmexp.analysis.table import load_study
from lmexp.errors import UserError
from lmexp.files import clock_of
from lmexp.runs.forecasts import FOLDER, Forecast, ForecastFile, write_forecast
from lmexp.units import si


@dataclass(frozen=True)
class SealedForecasts:
    """The forecasts that were sealed by one call."""

    files: tuple[ForecastFile, ...]
    warnings: tuple[str, ...]
    """What weakens the fit, as of `lmexp fit`."""

    @property
    def forecasts(self) -> tuple[Forecast, ...]:
        """What the files hold."""
        return tuple(file.forecast for file in self.files if file.forecast is not None)


@dataclass(frozen=True)
class ForecastScores:
    """All forecasts of some sweeps, each with its run if that exists, and how they did together."""

    scores: tuple[Score, ...]
    calibration: Calibration = field(init=False)

    def __post_init__(self) -> None:
        """Sum up."""
        object.__setattr__(self, "calibration", calibration(self.scores))


def seal_forecasts(
    folder: Path,
    budgets: Sequence[float] = (),
    runs: Sequence[Mapping[str, float | str]] = (),
    options: FitOptions | None = None,
) -> SealedForecasts:
    """Forecast the best run of each budget in FLOPs, and each of `runs`, and seal the forecasts beside the sweep.

    Either all of them are written or none. Raises UserError if there is no such sweep, if no law can be fitted, and if
    a run of that size has finished, is being trained or has shown a curve.
    """
    if not budgets and not runs:
        raise UserError("a forecast takes a budget in FLOPs, or a size with its tokens")
    options = options or FitOptions()
    study = load_study([folder], options.all_runs)
    if options.where is not None:
        study = study.kept(options.where)
    made, answered = predictions(study, budgets, runs, options)
    date = clock_of(folder)  # before the look at the runs: one that begins after the look began after the forecast
    forecasts = [each.at(date) for each in made]
    _refuse_late(forecasts, folder.resolve().parent)
    files = tuple(write_forecast(folder, forecast) for forecast in forecasts)
    return SealedForecasts(files, answered.warnings)


def _refuse_late(forecasts: Sequence[Forecast], outputs: Path) -> None:
    """Raise UserError if a run of a forecast's size is there already."""
    results, others = recorded(outputs), begun(outputs)
    for forecast in forecasts:
        if late := seen(forecast, results):
            finished = late.row.get("finished")
            when = f", finished {finished}" if finished else ""
            raise UserError(f"{late.name} is a run of {_size(forecast)}{when}: a forecast must come before its run")
        if late := seen(forecast, others):
            doing = "is being trained" if late.run.is_alive(late.run.read_state()) else "was begun"
            raise UserError(
                f"{late.name} is a run of {_size(forecast)} and {doing}, so its curve may have been seen: a forecast "
                "must come before its run"
            )


def _size(forecast: Forecast) -> str:
    if forecast.at == "flops":
        return f"{forecast.run['flops']:.3g} FLOPs and about the best size"
    return f"about {si(forecast.run['params'])} parameters and {si(forecast.run['tokens'])} tokens"


def score_forecasts(outputs: Path, folders: Sequence[Path] = ()) -> ForecastScores:
    """Return the scores of all forecasts of the sweeps in `folders` [default: all sweeps of `outputs`].

    Raises UserError if a folder is missing, or if there is no forecast at all.
    """
    for folder in folders:
        if not folder.is_dir():
            load_study([folder])  # says which sweeps there are
    chosen = list(folders) or sorted(each.parent for each in outputs.glob(f"[!.]*/{FOLDER}"))
    scores = scores_of(chosen, outputs)
    if not scores:
        where = " or ".join(folder.name for folder in folders) if folders else str(outputs)
        raise UserError(f"there is no forecast in {where}: `lmexp forecast SWEEP --at FLOPS` makes one")
    return ForecastScores(tuple(scores))

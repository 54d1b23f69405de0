"""Forecasts as text: the same cells and sentences in the terminal and on the page."""

import math
from collections.abc import Sequence
from typing import Any

from lmexp.analysis.forecasts.score import Calibration, Score, calibration
from lmexp.analysis.scaling.words import MIN_WIDER, beyond
from lmexp.report.values import json_value
from lmexp.runs.forecasts import Forecast
from lmexp.units import counted, flops_text, si

HEADINGS = ("sealed (UTC)", "for a run of", "loss, 95 % interval", "measured", "off", "result")
RIGHT = ("measured", "off")


def forecast_rows(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """Return a row of text for each forecast, under HEADINGS."""
    return [
        (
            day(file.forecast) if (file := score.file).forecast else file.path.name,
            about(file.forecast) if file.forecast else "–",
            _interval(score),
            "–" if score.measured is None else f"{score.measured:.4f}",
            _off(score),
            _outcome(score),
        )
        for score in scores
    ]


def day(forecast: Forecast) -> str:
    """Return when a forecast was sealed, in UTC, to the minute."""
    return forecast.date_utc[:16].replace("T", " ")


def about(forecast: Forecast) -> str:
    """Return what run a forecast is about: its budget or its size."""
    size = f"{si(forecast.run['params'])} parameters, {si(forecast.run['tokens'])} tokens"
    return f"{flops_text(forecast.run['flops'])} FLOPs, {size}" if forecast.at == "flops" else size


def _interval(score: Score) -> str:
    """Return the predicted loss with its interval, at the size that was run if there is a run."""
    forecast = score.file.forecast
    if forecast is None:
        return "–"
    ends = (score.value, score.low, score.high) if score.value is not None else tuple(dict(forecast.loss).values())
    value, low, high = (f"{end:.4f}" for end in ends)
    return f"{value}\n{low} to {high}"


def _off(score: Score) -> str:
    """Return how far off a forecast was, in percent and in halves of its interval."""
    if score.error is None or score.off is None:
        return "–"
    return f"{score.error:+.2%}\n{score.off:+.2f} half"


def _outcome(score: Score) -> str:
    """Return what became of a forecast."""
    if score.status == "scored":
        return f"{'inside' if score.is_inside else 'OUTSIDE'}: {score.run}"
    return score.status + (f": {score.reason}" if score.reason else "")


def calibration_sentences(result: Calibration) -> list[str]:
    """Return how forecasts did together."""
    waiting = []
    if result.pending:
        waiting.append(f"{result.pending} pending")
    if result.not_scored:
        waiting.append(f"{result.not_scored} not scored")
    rest = f" Besides: {', '.join(waiting)}." if waiting else ""
    if not result.scored or result.share is None or result.low is None or result.high is None:
        return [f"No forecast has its run yet.{rest}"]
    forecasts = counted(result.scored, "forecast", "has")
    said = [
        f"{forecasts} a run: {result.inside} inside the 95 % interval, {result.share:.0%} "
        f"({result.low:.0%} to {result.high:.0%}, Clopper-Pearson).{rest}",
        f"Median error {result.median_error:.2%}; mean interval score {result.interval_score:.4f} in ln(loss), lower "
        "is better.",
    ]
    if result.runs < result.scored:
        said.append(f"They are of {counted(result.runs, 'run')}: forecasts of one run are not independent.")
    return said


OFF_NOTE = (
    "off: predicted/measured - 1, and ln(predicted/measured) in halves of the interval, where -1 and +1 are its ends. "
    "The forecast is moved along its law to the size and tokens that were run."
)


def new_forecast_sentences(forecast: Forecast) -> list[str]:
    """Return what a forecast says, as it is sealed."""
    low, high = f"{forecast.loss.low:.4f}", f"{forecast.loss.high:.4f}"
    far = beyond(forecast.beyond)
    place = (
        f"{far}, among the runs it is fitted to: this is no extrapolation"
        if forecast.beyond <= 1
        else f"{far.replace('largest run', 'largest fitted run')}"
    )
    said = [
        f"{about(forecast)} ({place}): loss {forecast.loss.value:.4f} ({low} to {high}) for one run, by "
        f"{forecast.law.name}."
    ]
    if forecast.wider >= MIN_WIDER:
        said.append(
            f"The interval is {forecast.wider:.2g} times as wide as the fit alone gives. Fitted without its largest "
            f"runs, {forecast.law.name} missed them by more than its interval allowed."
        )
    return said


LEFT_OUT = (
    "The interval has the uncertainty of the law's constants, the scatter of a single run, and what the law missed on "
    "its own largest runs. It leaves out that the law may fit worse at a new size; see docs/forecast.md."
)


def forecast_document(score: Score) -> dict[str, Any]:
    """Return a forecast and its score as JSON has them."""
    forecast = score.file.forecast
    return json_value(
        {
            "file": str(score.file.path),
            "status": score.status,
            "reason": score.reason,
            "sweep": forecast.sweep if forecast else None,
            "date": forecast.date_utc if forecast else None,
            "at": forecast.at if forecast else None,
            "run": dict(forecast.run) if forecast else None,
            "beyond": forecast.beyond if forecast else None,
            "law": forecast.law.name if forecast else None,
            "forecast": dict(forecast.loss) if forecast else None,
            "wider": forecast.wider if forecast else None,
            "scored_by": score.run,
            "measured": score.measured,
            "moved_to_run": None
            if score.value is None
            else {"value": score.value, "low": score.low, "high": score.high},
            "inside": score.is_inside,
            "error": score.error,
            "off_in_halves": score.off if score.off is None or math.isfinite(score.off) else None,
            "interval_score": score.interval_score,
        }
    )


def forecasts_document(scores: Sequence[Score]) -> dict[str, Any]:
    """Return forecasts, and how they did together, as JSON has them."""
    result = calibration(scores)
    together = json_value({**vars(result), "share": result.share})
    return {"sealed": [forecast_document(score) for score in scores], "calibration": together}

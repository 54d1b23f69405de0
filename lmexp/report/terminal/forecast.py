"""Forecasts in the terminal: what was sealed, and how the sealed ones did."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from lmexp.analysis.forecasts.score import Score, calibration
from lmexp.report.forecasts import (
    HEADINGS,
    LEFT_OUT,
    OFF_NOTE,
    RIGHT,
    calibration_sentences,
    forecast_rows,
    new_forecast_sentences,
)
from lmexp.report.terminal.layout import small_table
from lmexp.runs.forecasts import Forecast


def print_new_forecasts(forecasts: Sequence[Forecast], warnings: Sequence[str], console: Console) -> None:
    """Print what was sealed, what the interval leaves out, and the warnings of the fit."""
    for forecast in forecasts:
        for sentence in new_forecast_sentences(forecast):
            console.print(Text(sentence, style="bold"))
    console.print(Text(LEFT_OUT))
    for warning in warnings:
        console.print(Text(f"- {warning}"))


def print_forecasts(scores: Sequence[Score], console: Console) -> None:
    """Print a table of forecasts, with the runs that they were about, and how they did together."""
    console.print(small_table(HEADINGS, forecast_rows(scores), RIGHT))
    for sentence in [*calibration_sentences(calibration(scores)), OFF_NOTE]:
        console.print(Text(sentence))

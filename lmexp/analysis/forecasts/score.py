"""How forecasts did: each against the first run of its size that began after it, and all of them together.

A run that began before a forecast proves nothing, so such a forecast is not scored. Of several runs that came later,
the one that finished first counts, so that the run cannot be chosen by its loss.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from lmexp.analysis.forecasts.same_size import Candidate, recorded
from lmexp.analysis.quantiles import LEVEL
from lmexp.analysis.scaling.laws import law_named
from lmexp.errors import UserError
from lmexp.runs.forecasts import Forecast, ForecastFile, read_forecasts

Status = Literal["scored", "pending", "not scored"]


@dataclass(frozen=True)
class Score:
    """One forecast, and the run that it is compared with."""

    file: ForecastFile
    status: Status
    reason: str | None = None
    """Why it is not scored, or what a run of the size lacks; None if there is nothing to say."""
    run: str | None = None
    """The sweep and name of its run."""
    measured: float | None = None
    value: float | None = None
    """The predicted loss, moved along the sealed law to the size and tokens that were run; so are `low` and `high`."""
    low: float | None = None
    high: float | None = None

    @property
    def is_inside(self) -> bool | None:
        """Whether the measured loss is in the interval; None without one."""
        return None if self.off is None else abs(self.off) <= 1

    @property
    def error(self) -> float | None:
        """predicted/measured - 1: above 0 if the predicted loss was too high."""
        return None if self.measured is None or self.value is None else self.value / self.measured - 1

    @property
    def off(self) -> float | None:
        """ln(predicted/measured) in halves of the interval: -1 and 1 are its ends."""
        if self.measured is None or self.value is None or self.half is None:
            return None
        gap = math.log(self.value / self.measured)
        return gap / self.half if self.half else math.copysign(math.inf, gap) if gap else 0.0

    @property
    def half(self) -> float | None:
        """Half of the interval, as ln(high/predicted)."""
        return None if self.value is None or self.high is None else math.log(self.high / self.value)

    @property
    def interval_score(self) -> float | None:
        """The interval's width in ln(loss), plus 2/0.05 times the distance of a loss outside it (lower is better).

        Gneiting and Raftery 2007, Strictly Proper Scoring Rules, Prediction, and Estimation, equation 43.
        """
        if self.off is None or self.half is None or self.measured is None or self.value is None:
            return None
        outside = max(abs(math.log(self.value / self.measured)) - self.half, 0.0)
        return 2 * self.half + 2 / (1 - LEVEL) * outside


@dataclass(frozen=True)
class Calibration:
    """How forecasts did together."""

    scored: int
    runs: int
    """Different runs among them: forecasts of one run are not independent."""
    inside: int
    pending: int
    not_scored: int
    low: float | None
    high: float | None
    """95 % interval of the share inside, by Clopper and Pearson, as if forecasts were independent; None without any."""
    median_error: float | None
    """Median of |predicted/measured - 1|."""
    interval_score: float | None
    """Mean of Score.interval_score."""

    @property
    def share(self) -> float | None:
        """The share of the measured losses that lie in their 95 % intervals."""
        return self.inside / self.scored if self.scored else None


def scores_of(folders: Sequence[Path], outputs: Path) -> list[Score]:
    """Return the score of every forecast of the sweeps in `folders`; their runs may lie in any sweep of `outputs`."""
    files = [file for folder in folders for file in read_forecasts(folder)]
    rows = recorded(outputs) if any(file.problem is None for file in files) else []
    return [score(file, rows) for file in files]


def score(file: ForecastFile, rows: Iterable[Candidate]) -> Score:
    """Return the score of one forecast, given the rows of all results."""
    forecast = file.forecast
    if forecast is None or file.problem is not None:
        return Score(file, "not scored", file.problem)
    others = None
    later: list[tuple[str, Candidate]] = []
    for row in rows:
        if not row.is_of_size(forecast) or not math.isfinite(row.sizes(forecast.columns).get("loss", math.nan)):
            continue
        if differs := row.differs(forecast):
            others = f"{row.name} is of this size, but {differs}"
            continue
        started = _seconds(row.row.get("started"))
        if started is None:
            return Score(file, "not scored", f"it is unknown when {row.name} began", row.name)
        if started < math.floor(forecast.date):  # records have whole seconds
            return Score(file, "not scored", f"{row.name} began before it", row.name)
        later.append((str(row.row.get("finished")), row))
    if not later:
        return Score(file, "pending", others)
    first = min(later, key=lambda pair: (pair[0], pair[1].name))[1]
    try:
        moved = _moved(forecast, first.sizes(forecast.columns))
    except UserError as error:
        return Score(file, "not scored", str(error), first.name)
    value, low, high = (end * moved for end in (forecast.loss.value, forecast.loss.low, forecast.loss.high))
    if not (low > 0 and math.isfinite(high)):
        return Score(file, "not scored", "its law gives no loss at the size that was run", first.name)
    return Score(file, "scored", None, first.name, first.sizes(forecast.columns)["loss"], value, low, high)


def _moved(forecast: Forecast, sizes: dict[str, float]) -> float:
    """Return the sealed law's loss at the size and tokens that were run, over that at the forecast's.

    Raises UserError if the file names a law or constants that there are not.
    """
    law, inputs = law_named(forecast.law.name), ("params", "tokens")
    names = list(law.parameters)
    if not law.has_optimum or len(forecast.law.effective) != 2 or not set(names) <= set(forecast.law.theta):
        raise UserError(f"it does not have the constants of {law.name}")
    theta = np.array([forecast.law.theta[name] for name in names])
    there = forecast.law.effective
    here = [then * sizes[key] / forecast.run[key] for then, key in zip(there, inputs, strict=True)]
    with np.errstate(all="ignore"):
        moved = float(law.loss(theta, *here) / law.loss(theta, *there))
    if not (math.isfinite(moved) and moved > 0):
        raise UserError("its law gives no loss at the size that was run")
    return moved


def _seconds(text: object) -> float | None:
    """Return an ISO time, in UTC unless it says otherwise, as seconds since the epoch; None if it is none."""
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def calibration(scores: Sequence[Score]) -> Calibration:
    """Return how forecasts did together."""
    from scipy.stats import binomtest

    done = [each for each in scores if each.status == "scored"]
    inside = sum(bool(each.is_inside) for each in done)
    ends = binomtest(inside, len(done)).proportion_ci(LEVEL, method="exact") if done else None
    return Calibration(
        scored=len(done),
        runs=len({each.run for each in done}),
        inside=inside,
        pending=sum(each.status == "pending" for each in scores),
        not_scored=sum(each.status == "not scored" for each in scores),
        low=None if ends is None else float(ends.low),
        high=None if ends is None else float(ends.high),
        median_error=float(np.median([abs(each.error or 0.0) for each in done])) if done else None,
        interval_score=float(np.mean([each.interval_score for each in done])) if done else None,
    )

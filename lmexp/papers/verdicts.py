"""From an interval and a band to a verdict, and what would decide where the verdict is open."""

import math
from dataclasses import dataclass
from typing import Literal

from lmexp.papers.evidence import Estimated

Verdict = Literal["borne out", "contradicted", "undecided", "not run", "not judged"]
"""`not run` if the runs are missing, `not judged` if the expression does not fit them."""


@dataclass(frozen=True)
class Band:
    """The values that count as the same as the published one, both ends included; an open end is infinite."""

    low: float = -math.inf
    high: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:g}"
        if math.isinf(self.low):
            return f"at most {self.high:g}"
        return f"at least {self.low:g}" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}"


def verdict(ours: Estimated, band: Band) -> Verdict:
    """Return `borne out` if the whole interval lies in the band, `contradicted` if none of it does."""
    if math.isnan(ours.value):
        return "not run"
    if ours.low in band and ours.high in band:
        return "borne out"
    return "contradicted" if ours.high < band.low or ours.low > band.high else "undecided"


def verdict_on_coverage(ours: Estimated, band: Band) -> Verdict:
    """Return `borne out` if our interval holds the whole band, `contradicted` if it holds none of it.

    An interval that is not known holds nothing.
    """
    if math.isnan(ours.value):
        return "not run"
    if ours.low <= band.low and band.high <= ours.high and math.isfinite(ours.high - ours.low):
        return "borne out"
    return "contradicted" if ours.high < band.low or ours.low > band.high else "undecided"


def runs_factor(ours: Estimated, band: Band) -> float | None:
    """Return how many times as many runs would decide an open claim, if its value stays; None if that is unknown.

    The interval shrinks with the square root of the number of runs, and must become as narrow as the distance between
    the value and the nearest end of the band. At an end no number of runs is enough: infinite.
    """
    ends = [end for end in (band.low, band.high) if math.isfinite(end)]
    half = max(ours.high - ours.value, ours.value - ours.low)
    distance = min((abs(ours.value - end) for end in ends), default=0.0)
    if not math.isfinite(half):
        return None
    return max((half / distance) ** 2, 1.0) if distance else math.inf

"""The curves that the page draws, thinned so that the file of a large study still opens at once.

All curves together have at most MAX_POINTS points. Of a study with very many runs, the training curves are left out
first, then the curves of whole runs; a note says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.frontier import numbers
from lmexp.analysis.table import Study, curve_point
from lmexp.report.values import json_value
from lmexp.runs.directory import RunDir
from lmexp.units import counted

MAX_RUN_POINTS = 300
"""Points of one curve: as many as a screen can show."""
MAX_POINTS = 60_000
"""Points of all curves together, which a browser draws in a second or two."""
MIN_RUN_POINTS = 6
"""A curve with fewer points has no recognisable shape."""
DIGITS = 6
"""Significant digits that a screen can show."""


def page_curves(study: Study) -> tuple[list[dict[str, Any]], str]:
    """Return the curves as objects of lists of equal length, and what was left out of them, in words.

    Curves are read one by one and thinned at once, because all points of 10,000 runs would be gigabytes.
    """
    share = MAX_POINTS // max(len(study.runs), 1)
    kinds = ("train", "validation") if share >= 2 * MIN_RUN_POINTS else ("validation",)
    most = min(MAX_RUN_POINTS, max(share // len(kinds), MIN_RUN_POINTS))
    prices = _dollars_per_second(study.table)
    all_runs = list(study.runs.items())
    kept = [all_runs[i] for i in spread(len(all_runs), MAX_POINTS // MIN_RUN_POINTS)]
    curves = []
    is_thinned = False
    for run_id, run in kept:
        for kind, points in _by_kind(run).items():
            if kind in kinds:
                is_thinned = is_thinned or len(points) > most
                points = [points[i] for i in spread(len(points), most)]
                curves.append({"run_id": run_id, "kind": kind, **_as_lists(points, prices.get(run_id))})
    notes = ["Long curves are thinned."] if is_thinned else []
    if "train" not in kinds:
        notes.append("With this many runs, only validation curves are kept.")
    if len(kept) < len(study.runs):
        notes.append(f"{counted(len(study.runs) - len(kept), 'run', 'has')} no curve here.")
    return curves, " ".join(notes)


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` positions among `count`, evenly spread, with the first and the last."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _by_kind(run: RunDir) -> dict[str, list[dict[str, Any]]]:
    """Return the points of a run's curve with a loss, by kind: train and validation."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for point in map(curve_point, run.read_curve()):
        if "loss" in point:
            by_kind.setdefault(point["kind"], []).append(point)
    return by_kind


def _as_lists(points: Sequence[Mapping[str, Any]], price: float | None) -> dict[str, list[float | None]]:
    """Return points as lists, one for each axis and one for the loss; `price` is in dollars per second."""
    names = ("tokens", "flops", "seconds", "loss")
    lists = {name: [_rounded(point.get(name)) for point in points] for name in names}
    dollars = [None if price is None or seconds is None else _rounded(price * seconds) for seconds in lists["seconds"]]
    return {**lists, "dollars": dollars}


def _rounded(value: float | None) -> float | None:
    rounded: float | None = None if value is None else json_value(float(value), DIGITS)
    return rounded


def _dollars_per_second(table: pd.DataFrame) -> dict[str, float]:
    """Return the price of a second of each run that has one: for its processes' devices, or its share of them."""
    hourly, processes = numbers(table, "dollars_per_hour"), np.nan_to_num(numbers(table, "world_size"), nan=1.0)
    shares = np.nan_to_num(numbers(table, "device_share"), nan=1.0)  # older records have none
    prices = zip(table["run_id"], hourly * processes * shares / 3600, strict=True)
    return {str(run_id): float(price) for run_id, price in prices if np.isfinite(price)}

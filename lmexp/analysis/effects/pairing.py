"""Which runs of a study to compare: the runs of one cell, and pairs that differ in one axis alone.

Runs are compared inside one sweep only. If two runs of a sweep agree in every axis, something else tells them apart, so
neither of them is compared with anything.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.frontier import numbers
from lmexp.analysis.table import Study, final_rows, plain

Key = tuple[Any, ...]
"""Names a cell: the sweep, then the values of axes."""


@dataclass(frozen=True)
class RunPairs:
    """All pairs of runs that differ in one axis alone, for one value of the axis and its first value, the base."""

    axis: str
    base: Any
    value: Any
    before: tuple[str, ...]
    """The run with the base in each pair."""
    after: tuple[str, ...]
    """The run with the value in each pair."""
    cells: tuple[int, ...]
    """A number for what the runs of each pair have in common except for the seed."""


def comparable_runs(study: Study, quality: str) -> pd.DataFrame:
    """Return the last row of each finished run that has the quality."""
    runs = final_rows(study.table)
    return runs[np.isfinite(numbers(runs, quality))]


def pairs_of(study: Study, runs: pd.DataFrame, axis: str) -> list[RunPairs]:
    """Return the pairs of `runs` for each value of `axis` but the first, in the order of the sweep file.

    The first value is the first that one of the runs has. Values without a pair are left out.
    """
    groups = runs_by_cell(study, runs, axis)
    present = {value for group in groups.values() for value in group}
    listed = dict.fromkeys([*map(axis_value, study.axes.get(axis, [])), *axis_values(runs[axis])])
    base, *others = [value for value in listed if value in present] or [None]
    cell_of_pair: dict[Any, dict[tuple[str, str], Key]] = {value: {} for value in others}
    other_axes = [name for name in study.varied if name != axis]
    seed_at = other_axes.index("seed") + 1 if "seed" in other_axes else None  # the sweep comes first in a key
    for key, group in groups.items():
        cell = key if seed_at is None else key[:seed_at] + key[seed_at + 1 :]
        for value, run in group.items():
            if base in group and value != base:
                # Two sweeps may share both runs of a pair, which then counts once.
                cell_of_pair[value].setdefault((group[base], run), cell)
    pairs = []
    for value, cells in cell_of_pair.items():
        if cells:
            ordered = sorted(cells)
            before, after = zip(*ordered, strict=True)
            numbered = {cell: number for number, cell in enumerate(dict.fromkeys(cells.values()))}
            pairs.append(RunPairs(axis, base, value, before, after, tuple(numbered[cells[pair]] for pair in ordered)))
    return pairs


def runs_by_cell(study: Study, runs: pd.DataFrame, axis: str) -> dict[Key, dict[Any, str]]:
    """Return for each setting of all other axes the id of the run with each value of `axis`.

    If the axis is the seed, the fingerprints of data and tokenizer belong to the setting: a difference between texts is
    not noise.
    """
    other_axes = [name for name in study.varied if name != axis]
    fingerprints = ("data_fingerprint", "tokenizer_fingerprint") if axis == "seed" else ()
    settings = [axis_values(runs[name]) for name in (axis, *other_axes, *fingerprints)]
    setting_of = dict(zip(runs["run_id"], zip(*settings, strict=True), strict=True))
    groups: dict[Key, dict[Any, str]] = {}
    ambiguous: set[tuple[Key, Any]] = set()
    for sweep, members in study.members.items():
        for run_id in sorted(members & setting_of.keys()):
            value, *setting = setting_of[run_id]
            if value is None:
                continue
            key = (sweep, *setting)
            group = groups.setdefault(key, {})
            if value in group:
                ambiguous.add((key, value))
            group[value] = run_id
    for key, value in ambiguous:
        del groups[key][value]
    return groups


def axis_values(values: pd.Series) -> list[Any]:
    """Return a column as plain values of Python, null as None."""
    return [axis_value(value) for value in values.astype(object).where(values.notna(), None)]


def axis_value(value: Any) -> Any:
    """Return a value of an axis as a key of a cell: numbers of numpy as Python's, lists and mappings as JSON text."""
    value = plain(value)
    return value.item() if isinstance(value, np.generic) else value

"""What an axis does, read from pairs: two runs of one sweep that differ in that axis and in no other.

A pair's difference is free of whatever else varies, which a difference of group means is not where cells are missing.
Pairs that agree in all but the seed say how far chance moves the difference: the test is a paired t with the scatter
pooled within cells. Where no cell has two seeds, the scatter is taken over the cells, settings of the other axes: that
holds chance too, so the interval is rather wide than narrow. Of all effects of a study together, p values are adjusted
by Holm's method.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.comparable import crowded
from lmexp.analysis.effects.noise import LEVEL, Noise, holm, p_value, pooled, t_quantile
from lmexp.analysis.frontier import Floats, numbers
from lmexp.analysis.table import Study, final_rows, plain
from lmexp.runs.columns import DEVICE_BOUND

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Effect:
    """What another value of an axis does than its first, over the pairs that differ in it alone."""

    axis: str
    base: Any
    value: Any
    changes: tuple[float, ...]
    """Change of quality, one a pair."""
    cells: tuple[Key, ...]
    """What each pair's runs have in common, but for the seed."""
    cost_ratio: float | None
    """Geometric mean over the pairs of (cost with `value`) / (cost with `base`); None where unknown."""
    speed_ratio: float | None
    """The same of tokens per second. Both are None where a pair's runs were on different devices."""
    adjusted: float | None = None
    """The p value, adjusted by Holm's method over all effects that were looked at with this one."""

    @property
    def mean(self) -> float:
        """The mean change."""
        return float(np.mean(self.changes))

    @property
    def noise(self) -> Noise | None:
        """The scatter of the difference between seeds of one cell; None where no cell has two."""
        of_cell = defaultdict(list)
        for cell, change in zip(self.cells, self.changes, strict=True):
            of_cell[cell].append(change)
        return pooled(list(of_cell.values()))

    @property
    def error(self) -> tuple[float, int] | None:
        """The standard error of the mean change, and its degrees of freedom; None for one pair."""
        n, noise = len(self.changes), self.noise
        if noise:
            return noise.sd / math.sqrt(n), noise.df
        return (float(np.std(self.changes, ddof=1)) / math.sqrt(n), n - 1) if n > 1 else None

    @property
    def half(self) -> float | None:
        """Half the width of the 95 % interval of the mean change, not adjusted for other effects."""
        return None if self.error is None else t_quantile(self.error[1]) * self.error[0]

    @property
    def p(self) -> float | None:
        """The p value of this effect alone, two-sided."""
        return None if self.error is None else p_value(self.mean, *self.error)

    @property
    def is_within_noise(self) -> bool | None:
        """Whether seeds alone may have done it; None where no cell has two, or all of a cell are equal."""
        known = self.noise is not None and self.noise.sd > 0 and self.adjusted is not None
        return self.adjusted > LEVEL if known and self.adjusted is not None else None


def all_effects(study: Study, quality: str, cost: str) -> dict[str, list[Effect]]:
    """Return the effects of every varied axis but the seed, with p values adjusted over all of them."""
    runs = comparable(study, quality)
    found = {axis: effects_among(study, runs, axis, quality, cost) for axis in study.varied if axis != "seed"}
    tested = [effect for effects in found.values() for effect in effects if effect.p is not None]
    adjusted = iter(holm([effect.p for effect in tested if effect.p is not None]))
    return {
        axis: [replace(effect, adjusted=next(adjusted)) if effect.p is not None else effect for effect in effects]
        for axis, effects in found.items()
    }


def effects(study: Study, axis: str, quality: str, cost: str) -> list[Effect]:
    """Return the effects of each value of `axis` against its first, those without a pair left out."""
    return effects_among(study, comparable(study, quality), axis, quality, cost)


def comparable(study: Study, quality: str) -> pd.DataFrame:
    """Return the last row of each finished run that has the quality."""
    runs = final_rows(study.table)
    return runs[np.isfinite(numbers(runs, quality))]


def effects_among(study: Study, runs: pd.DataFrame, axis: str, quality: str, cost: str) -> list[Effect]:
    """Return the paired effects of `axis` among `runs`, in the order of its values."""
    groups = cells(study, runs, axis)
    measures = [numbers(runs, quality), numbers(runs, cost), _speeds(runs)]
    measured = dict(zip(runs["run_id"], zip(*measures, strict=True), strict=True))
    device = dict(zip(runs["run_id"], map(cell_value, runs["device_name"]), strict=True))
    present = {value for group in groups.values() for value in group}
    listed = [*map(cell_value, study.axes.get(axis, [])), *map(cell_value, runs[axis].dropna())]
    base, *others = [value for value in dict.fromkeys(listed) if value in present] or [None]
    pairs: dict[Any, dict[tuple[str, str], Key]] = {value: {} for value in others}
    seed = [name for name in study.varied if name != axis]
    at = seed.index("seed") + 1 if "seed" in seed else None  # the sweep comes first in a key
    for key, group in groups.items():
        if base in group:
            cell = key if at is None else key[:at] + key[at + 1 :]
            for value, run in group.items():
                if value != base:
                    # By its runs, for two sweeps may share both of a pair.
                    pairs[value].setdefault((group[base], run), cell)
    found = []
    for value, of_value in pairs.items():
        if not of_value:
            continue
        ordered = sorted(of_value)
        before = np.array([measured[first] for first, _ in ordered])
        after = np.array([measured[second] for _, second in ordered])
        moved = any(device[first] != device[second] for first, second in ordered)
        found.append(
            Effect(
                axis=axis,
                base=base,
                value=value,
                changes=tuple(float(change) for change in after[:, 0] - before[:, 0]),
                cells=tuple(of_value[pair] for pair in ordered),
                cost_ratio=None if moved and cost in DEVICE_BOUND else _ratio(before[:, 1], after[:, 1]),
                speed_ratio=None if moved else _ratio(before[:, 2], after[:, 2]),
            )
        )
    return found


def noise_floor(study: Study, quality: str) -> Noise | None:
    """Return how far seeds alone move the quality of a cell; None where no cell has two finished seeds."""
    if "seed" not in study.axes:
        return None
    runs = comparable(study, quality)
    values = dict(zip(runs["run_id"], numbers(runs, quality), strict=True))
    return pooled([[values[run] for run in group.values()] for group in cells(study, runs, "seed").values()])


def paired_noise(found: dict[str, list[Effect]], floor: Noise) -> Noise | None:
    """Return the scatter of a difference between arms that share seeds, pooled over all effects and cells.

    Effects share runs, so that there are no more degrees of freedom than in `floor`, that of the seeds themselves.
    """
    differences: dict[tuple[int, Key], list[float]] = defaultdict(list)
    for i, effect in enumerate(effect for effects in found.values() for effect in effects):
        for cell, change in zip(effect.cells, effect.changes, strict=True):
            differences[i, cell].append(change)
    return pooled(list(differences.values()), floor.df)


def cells(study: Study, runs: pd.DataFrame, axis: str) -> dict[Key, dict[Any, str]]:
    """Return, for each setting of everything but `axis`, the run that has each value of it.

    A key is the sweep, then the values of the other varied axes; for seeds also what they were trained and scored on,
    for a difference of texts is no noise. Where two runs of a sweep have all axes in common,
    something else tells them apart: neither counts.
    """
    others = [name for name in study.varied if name != axis]
    alike = ("data_fingerprint", "tokenizer_fingerprint") if axis == "seed" else ()
    settings = [[cell_value(value) for value in runs[name]] for name in (axis, *others, *alike)]
    of_run = dict(zip(runs["run_id"], zip(*settings, strict=True), strict=True))
    groups: dict[Key, dict[Any, str]] = {}
    ambiguous: set[tuple[Key, Any]] = set()
    for sweep, members in study.members.items():
        for run_id in sorted(members & of_run.keys()):
            value, *setting = of_run[run_id]
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


def cell_value(value: Any) -> Any:
    """Return a value of an axis as the pairing compares it: null is None, a number is a plain number."""
    value = plain(value)
    if not isinstance(value, str) and pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _speeds(runs: pd.DataFrame) -> Floats:
    """Return tokens per second, unknown where something else ran on the device."""
    return np.where(crowded(runs), np.nan, numbers(runs, "tokens_per_second"))


def _ratio(before: Floats, after: Floats) -> float | None:
    """Return the geometric mean of ratios; None where one is unknown or not above 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.exp(np.mean(np.log(after / before))))
    return ratio if math.isfinite(ratio) and ratio > 0 else None

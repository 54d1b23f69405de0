"""What an axis does to a quality, read from pairs: two runs of one sweep that differ in that axis alone.

The difference inside a pair is free of everything else that varies. A difference between means of groups is not, if
cells are missing. RunPairs that agree in all but the seed show how far chance moves the difference, so the test is a
paired t test whose scatter is pooled within cells. If no cell has two seeds, the scatter is that between cells, the
settings of the other axes. It includes chance, so the interval is too wide rather than too narrow. The p values of all
effects of a study are adjusted together by Holm's method.

The findings, the JSON document and the page all take effects from here.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Floats
from lmexp.analysis.comparable import crowded, slowed
from lmexp.analysis.effects.noise import LEVEL, Noise, holm, p_value, pooled, t_quantile
from lmexp.analysis.effects.pairing import RunPairs, comparable_runs, pairs_of, runs_by_cell
from lmexp.analysis.frontier import numbers
from lmexp.analysis.table import Study, final_rows
from lmexp.runs.columns import DEVICE_BOUND


@dataclass(frozen=True)
class Effect:
    """The change of a quality between the first value of an axis, the base, and another one."""

    pairs: RunPairs
    changes: tuple[float, ...]
    """Change of the quality in each pair."""
    cost_ratio: float | None
    """Geometric mean over the pairs of (cost with the value) / (cost with the base); None if unknown."""
    speed_ratio: float | None
    """The same for tokens per second. Both are None if the runs of a pair were on different devices."""
    adjusted: float | None = None
    """The p value, adjusted by Holm's method over all effects that were tested together."""
    is_slowed: bool = False
    """Whether the cost depends on the speed of a device that other work slowed down in one of the runs."""

    @property
    def axis(self) -> str:
        """The axis whose value changes."""
        return self.pairs.axis

    @property
    def base(self) -> Any:
        """The first value of the axis."""
        return self.pairs.base

    @property
    def value(self) -> Any:
        """The value that is compared with the base."""
        return self.pairs.value

    @property
    def mean(self) -> float:
        """The mean change."""
        return float(np.mean(self.changes))

    @cached_property
    def noise(self) -> Noise | None:
        """The scatter of the change between seeds of one cell; None if no cell has two seeds."""
        by_cell = defaultdict(list)
        for cell, change in zip(self.pairs.cells, self.changes, strict=True):
            by_cell[cell].append(change)
        return pooled(list(by_cell.values()))

    @cached_property
    def scatter(self) -> tuple[float, int] | None:
        """The standard deviation of one pair's change and its degrees of freedom; None for a single pair.

        It is that between seeds of one cell, or that between cells if no cell has two seeds.
        """
        if self.noise:
            return self.noise.sd, self.noise.df
        n = len(self.changes)
        return (float(np.std(self.changes, ddof=1)), n - 1) if n > 1 else None

    @property
    def half_of_one_pair(self) -> float | None:
        """Half the width of the 95 % interval if the mean were over one pair; over n pairs, it shrinks by sqrt(n)."""
        return None if self.scatter is None else t_quantile(self.scatter[1]) * self.scatter[0]

    @property
    def half(self) -> float | None:
        """Half the width of the 95 % interval of the mean change, not adjusted for other effects."""
        return None if self.half_of_one_pair is None else self.half_of_one_pair / math.sqrt(len(self.changes))

    @property
    def p(self) -> float | None:
        """The two-sided p value of this effect alone."""
        if self.scatter is None:
            return None
        sd, df = self.scatter
        return p_value(self.mean, sd / math.sqrt(len(self.changes)), df)

    @property
    def is_within_noise(self) -> bool | None:
        """Whether seeds alone may explain it; None if no cell has two seeds, or all seeds of a cell are equal."""
        if self.noise is None or self.noise.sd == 0 or self.adjusted is None:
            return None
        return self.adjusted > LEVEL


Effects = dict[str, list[Effect]]
"""The effects of each axis."""


def all_effects(study: Study, quality: str, cost: str) -> Effects:
    """Return the effects of every varied axis but the seed, with p values adjusted over all of them."""
    return effects_by_quality(study, [quality], cost)[quality]


def effects(study: Study, axis: str, quality: str, cost: str) -> list[Effect]:
    """Return the effect of each value of `axis` that has a pair, with p values adjusted over all axes."""
    return all_effects(study, quality, cost)[axis]


def effects_by_quality(study: Study, qualities: Sequence[str], cost: str) -> dict[str, Effects]:
    """Return what `all_effects` returns for each of several qualities; qualities of the same runs share the pairing."""
    runs = final_rows(study.table)
    axes = [axis for axis in study.varied if axis != "seed"]
    known_pairs: dict[bytes, dict[str, list[RunPairs]]] = {}
    by_quality = {}
    for quality in qualities:
        has_quality = np.isfinite(numbers(runs, quality))
        known = runs[has_quality]
        same_runs = has_quality.tobytes()
        if same_runs not in known_pairs:
            known_pairs[same_runs] = {axis: pairs_of(study, known, axis) for axis in axes}
        measure = _Measure(known, quality, cost)
        by_quality[quality] = _adjusted(
            {axis: [measure.effect(pairs) for pairs in of_axis] for axis, of_axis in known_pairs[same_runs].items()}
        )
    return by_quality


class _Measure:
    """Measures pairs among `runs`: what a change of an axis does to the quality, the cost and the speed."""

    def __init__(self, runs: pd.DataFrame, quality: str, cost: str) -> None:
        self.ids = pd.Index(runs["run_id"])
        self.values, self.costs = numbers(runs, quality), numbers(runs, cost)
        self.speeds = np.where(crowded(runs), np.nan, numbers(runs, "tokens_per_second"))
        self.devices = pd.factorize(runs["device_name"])[0]
        self.cost_is_device_bound = cost in DEVICE_BOUND
        self.slowed = slowed(runs, cost).to_numpy()

    def effect(self, pairs: RunPairs) -> Effect:
        """Return the effect that pairs show."""
        before, after = self.ids.get_indexer(pd.Index(pairs.before)), self.ids.get_indexer(pd.Index(pairs.after))
        moved = bool((self.devices[before] != self.devices[after]).any())
        return Effect(
            pairs,
            changes=tuple((self.values[after] - self.values[before]).tolist()),
            cost_ratio=None if moved and self.cost_is_device_bound else _ratio(self.costs[before], self.costs[after]),
            is_slowed=bool((self.slowed[before] | self.slowed[after]).any()),
            speed_ratio=None if moved else _ratio(self.speeds[before], self.speeds[after]),
        )


def _adjusted(effects: Effects) -> Effects:
    """Return effects with their p values adjusted over all of them."""
    p_values = {id(effect): effect.p for of_axis in effects.values() for effect in of_axis}
    tested = {key: p for key, p in p_values.items() if p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {
        axis: [replace(effect, adjusted=adjusted.get(id(effect))) for effect in of_axis]
        for axis, of_axis in effects.items()
    }


def noise_floor(study: Study, quality: str) -> Noise | None:
    """Return how far seeds alone move the quality of a cell; None if no cell has two finished seeds.

    It is the one noise floor: of the findings, the frontier, advice and searches.
    """
    if "seed" not in study.axes:
        return None
    runs = comparable_runs(study, quality)
    values = dict(zip(runs["run_id"], numbers(runs, quality), strict=True))
    cells = {tuple(sorted(cell.values())) for cell in runs_by_cell(study, runs, "seed").values()}
    return pooled([[values[run] for run in cell] for cell in sorted(cells)])  # cells that two sweeps share count once


def paired_noise(effects: Effects, floor: Noise) -> Noise | None:
    """Return the scatter of a difference between arms that share seeds, pooled over all effects and cells.

    Effects share runs, so the scatter has no more degrees of freedom than `floor`, that of the seeds themselves.
    """
    differences: dict[tuple[int, int], list[float]] = defaultdict(list)
    for i, effect in enumerate(effect for of_axis in effects.values() for effect in of_axis):
        for cell, change in zip(effect.pairs.cells, effect.changes, strict=True):
            differences[i, cell].append(change)
    return pooled(list(differences.values()), floor.df)


def _ratio(before: Floats, after: Floats) -> float | None:
    """Return the geometric mean of ratios; None if one of them is unknown or not above 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.exp(np.mean(np.log(after / before))))
    return ratio if math.isfinite(ratio) and ratio > 0 else None

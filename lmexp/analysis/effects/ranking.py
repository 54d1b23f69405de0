"""Arms: the settings of a study, each with its seeds, and which of them can be told apart.

If two arms share two or more seeds, the differences of equal seeds are tested, as in pairing.py: what a seed does to
both is no noise between them. The scatter of the differences is what arms and seeds leave unexplained in all arms
together (noise.unexplained). Two other arms are compared with the scatter of single seeds, which is the noise floor, so
that an arm of one seed can be compared as well. Both take the scatter to be alike in all arms.

The data choose which pairs are looked at: the best arm is the one that came out best. So p values are adjusted by
Holm's method over all pairs of arms, whatever pairs are looked at. A study of equal arms then has a pair that is told
apart in at most 5 % of cases, and a pair has the same p value in the first sentence, on the frontier and elsewhere.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lmexp.analysis.arrays import Floats
from lmexp.analysis.columns import in_words, setting_in_words
from lmexp.analysis.comparable import slowed
from lmexp.analysis.effects.effects import noise_floor
from lmexp.analysis.effects.noise import LEVEL, Noise, Spread, holm, p_values, spread, unexplained
from lmexp.analysis.effects.pairing import Key, axis_values, comparable_runs, runs_by_cell
from lmexp.analysis.frontier import is_done, numbers
from lmexp.analysis.table import Study
from lmexp.runs.columns import DEVICE_BOUND, higher_is_better

Ints = npt.NDArray[np.intp]
"""Positions of arms."""

MAX_ARMS = 1000
"""Of more arms, not all pairs are tested: each p value is multiplied by the number of pairs, Holm's first step."""


@dataclass(frozen=True)
class RankedArm:
    """One setting of everything but the seed."""

    name: str
    quality: Spread
    cost: float | None
    """The mean over its seeds; None if one is unknown, or if devices differ."""
    is_slowed: bool = False
    """Whether other work slowed down the device of one of its runs, so that its cost is too high."""
    seeds: Mapping[Any, float] = field(default_factory=dict)
    """The quality of each seed."""
    rows: tuple[Any, ...] = ()
    """The rows of its runs: their labels in the study's table."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """The arms from best to worst."""

    arms: tuple[RankedArm, ...]
    noise: Noise

    @property
    def n_pairs(self) -> int:
        """How many pairs of arms there are, over which p values are adjusted."""
        return math.comb(len(self.arms), 2)

    @property
    def test_in_words(self) -> str:
        """The test, and what its p values are adjusted for."""
        over = f" with Holm's correction over all {self.n_pairs:,} pairs of settings"
        return f"t test{over if self.n_pairs > 1 else ''}"

    @cached_property
    def adjusted(self) -> tuple[float, ...]:
        """The adjusted p value of each arm after the first against it."""
        others = np.arange(1, len(self.arms))
        return tuple(map(float, self.adjusted_p(others, np.zeros_like(others))))

    @property
    def ties(self) -> list[RankedArm]:
        """The arms that these seeds do not tell from the best."""
        return [arm for arm, p in zip(self.arms[1:], self.adjusted, strict=True) if p > LEVEL]

    def adjusted_p(self, ones: Ints, others: Ints) -> Floats:  # (n,), (n,) -> (n,)
        """Return the p values of pairs of arms, given by their positions, adjusted over all pairs of arms."""
        p = self._p(ones, others)
        if self._all_p is None:
            return np.minimum(p * self.n_pairs, 1.0)
        ordered, adjusted = self._all_p
        at = np.searchsorted(ordered, p * (1 - 1e-12))  # the same number, but for rounding
        return adjusted[np.minimum(at, len(adjusted) - 1)]

    @cached_property
    def _all_p(self) -> tuple[Floats, Floats] | None:
        """The p values of all pairs in rising order, and the same adjusted; None if they are too many."""
        if len(self.arms) > MAX_ARMS:
            return None
        p = np.sort(self._p(*np.triu_indices(len(self.arms), 1)))
        return p, np.array(holm(p))

    @cached_property
    def _values(self) -> Floats:  # (arms, seeds)
        """The quality of each arm and seed, NaN where there is no run."""
        seeds = {seed: at for at, seed in enumerate(dict.fromkeys(seed for arm in self.arms for seed in arm.seeds))}
        values = np.full((len(self.arms), len(seeds)), np.nan)
        for i, arm in enumerate(self.arms):
            values[i, [seeds[seed] for seed in arm.seeds]] = list(arm.seeds.values())
        return values

    @cached_property
    def _paired(self) -> tuple[float, int] | None:
        """The scatter that arms and seeds leave unexplained; with no more freedom than the noise floor has."""
        rest = unexplained(self._values)
        return None if rest is None else (rest[0], min(rest[1], self.noise.df))

    def _p(self, ones: Ints, others: Ints) -> Floats:
        """Return the p values of pairs of arms, each by itself."""
        means = np.array([arm.quality.mean for arm in self.arms])
        n = np.array([arm.quality.n for arm in self.arms])
        change = means[ones] - means[others]
        error = self.noise.sd * np.sqrt(1 / n[ones] + 1 / n[others])
        df = np.full(len(ones), self.noise.df)
        if self._paired is not None:
            changes = self._values[ones] - self._values[others]
            shared = np.isfinite(changes).sum(axis=1)
            many = shared > 1
            change[many] = np.nansum(changes[many], axis=1) / shared[many]
            error[many] = self._paired[0] * np.sqrt(2 / shared[many])
            df[many] = self._paired[1]
        return p_values(change, error, df)


def ranking(study: Study, quality: str, cost: str) -> Ranking | None:
    """Return the arms of a study by the mean quality of their last rows; None if no arm has two finished seeds."""
    noise = noise_floor(study, quality)
    return None if noise is None else _ranked(study, [comparable_runs(study, quality)], quality, cost, noise)


def ranking_of_rows(study: Study, quality: str, cost: str) -> Ranking | None:
    """Return the same with milestones: rows of one setting and one number of tokens are an arm."""
    table = study.table
    if not table["run_id"][is_done(table)].duplicated().any():
        return ranking(study, quality, cost)
    noise = noise_floor(study, quality)
    known = table[is_done(table) & np.isfinite(numbers(table, quality))]
    parts = [part.drop_duplicates("run_id") for _, part in known.groupby("tokens")]
    return None if noise is None else _ranked(study, parts, quality, cost, noise)


def _ranked(study: Study, parts: Sequence[pd.DataFrame], quality: str, cost: str, noise: Noise) -> Ranking:
    """Return the arms of some rows, of which no two of one part are of one run."""
    arms = [arm for rows in parts for arm in _arms(study, rows, quality, cost, has_tokens=len(parts) > 1)]
    sign = -1 if higher_is_better(quality) else 1
    arms.sort(key=lambda arm: (sign * arm.quality.mean, arm.cost if arm.cost is not None else np.inf))
    return Ranking(tuple(arms), noise)


def _arms(study: Study, rows: pd.DataFrame, quality: str, cost: str, has_tokens: bool) -> Iterator[RankedArm]:
    values, spent, label, beside, device = (
        dict(zip(rows["run_id"], column, strict=True))
        for column in (
            numbers(rows, quality),
            numbers(rows, cost),
            rows.index,
            slowed(rows, cost),
            axis_values(rows["device_name"]),
        )
    )
    groups = runs_by_cell(study, rows, "seed")
    by_runs = {tuple(sorted(group.values())): key for key, group in groups.items() if group}  # two sweeps may share all
    names = _names(study, by_runs)
    tokens = f" at {in_words('tokens', float(rows['tokens'].iloc[0]))}" if has_tokens else ""
    for of_arm, key in by_runs.items():
        paid = float(np.mean([spent[run] for run in of_arm]))
        moved = cost in DEVICE_BOUND and len({device[run] for run in of_arm}) > 1
        yield RankedArm(
            names[of_arm] + tokens,
            spread([values[run] for run in of_arm]),
            paid if np.isfinite(paid) and not moved else None,
            any(beside[run] for run in of_arm),
            {seed: values[run] for seed, run in groups[key].items()},
            tuple(label[run] for run in of_arm),
        )


def _names(study: Study, by_runs: Mapping[tuple[str, ...], Key]) -> dict[tuple[str, ...], str]:
    """Return what each arm is called: texts as they are, numbers with the name of their axis."""
    axes = [axis for axis in study.varied if axis != "seed"]
    several = len({key[0] for key in by_runs.values()}) > 1
    return {
        runs: ", ".join(filter(None, [str(key[0]) * several, setting_in_words(axes, key[1:], with_nulls=False)]))
        or str(key[0])
        for runs, key in by_runs.items()
    }

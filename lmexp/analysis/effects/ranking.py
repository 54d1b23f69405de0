"""Arms: the settings of a study, each with its seeds, and which of them can be told from the best.

Where an arm shares two or more seeds with the best, the differences of equal seeds are tested, as in pairs.py: what
a seed does to both is no noise between them. Their scatter is pooled over all such arms. Any other arm is held against
the best with the scatter of single seeds, pooled over all arms, so that an arm of one seed can be compared as well.
Both take the scatter to be alike in all arms. p values are adjusted by Holm's method.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmexp.analysis.columns import axis_headings
from lmexp.analysis.comparable import slowed
from lmexp.analysis.effects.noise import LEVEL, Noise, Spread, holm, p_value, pooled, spread
from lmexp.analysis.effects.pairing import Key, axis_values, comparable_runs, runs_by_cell
from lmexp.analysis.frontier import numbers
from lmexp.analysis.table import Study
from lmexp.runs.columns import DEVICE_BOUND, higher_is_better


@dataclass(frozen=True)
class RankedArm:
    """One setting of everything but the seed."""

    name: str
    quality: Spread
    cost: float | None
    """The mean over its seeds; None where one is unknown, or devices differ."""
    is_slowed: bool = False
    """Whether other work slowed down the device of one of its runs, so that its cost is too high."""


@dataclass(frozen=True)
class Ranking:
    """The arms from best to worst."""

    arms: tuple[RankedArm, ...]
    noise: Noise
    adjusted: tuple[float, ...]
    """p of each arm after the first against it, adjusted by Holm's method."""

    @property
    def ties(self) -> list[RankedArm]:
        """The arms that these seeds do not tell from the best."""
        return [arm for arm, p in zip(self.arms[1:], self.adjusted, strict=True) if p > LEVEL]


def ranking(study: Study, quality: str, cost: str) -> Ranking | None:
    """Return the arms of a study by their mean quality; None where no arm has two finished seeds."""
    if "seed" not in study.axes:
        return None
    runs = comparable_runs(study, quality)
    values = dict(zip(runs["run_id"], numbers(runs, quality), strict=True))
    spent = dict(zip(runs["run_id"], numbers(runs, cost), strict=True))
    beside = dict(zip(runs["run_id"], slowed(runs, cost), strict=True))
    groups = runs_by_cell(study, runs, "seed")
    noise = pooled([[values[run] for run in group.values()] for group in groups.values()])
    if noise is None:
        return None
    device = dict(zip(runs["run_id"], axis_values(runs["device_name"]), strict=True))
    by_runs = {tuple(sorted(group.values())): key for key, group in groups.items() if group}  # two sweeps may share all
    names = _names(study, by_runs)
    ranked = []
    for of_arm, key in by_runs.items():
        paid = float(np.mean([spent[run] for run in of_arm]))
        scatter = spread([values[run] for run in of_arm])
        moved = cost in DEVICE_BOUND and len({device[run] for run in of_arm}) > 1
        price = paid if np.isfinite(paid) and not moved else None
        arm = RankedArm(names[of_arm], scatter, price, any(beside[run] for run in of_arm))
        ranked.append((arm, {seed: values[run] for seed, run in groups[key].items()}))
    sign = -1 if higher_is_better(quality) else 1
    ranked.sort(key=lambda each: (sign * each[0].quality.mean, each[0].cost if each[0].cost is not None else np.inf))
    return Ranking(tuple(arm for arm, _ in ranked), noise, tuple(holm(_against_best(ranked, noise))))


def _against_best(ranked: Sequence[tuple[RankedArm, dict[Any, float]]], noise: Noise) -> list[float]:
    """Return p of each arm after the first against it; an arm comes with the quality of each of its seeds."""
    (best, of_best), *others = ranked
    changes = [[quality - of_best[seed] for seed, quality in of_arm.items() if seed in of_best] for _, of_arm in others]
    paired = pooled(changes, noise.df)  # all against one arm: no more degrees of freedom than the seeds have
    p = []
    for (arm, _), of_pairs in zip(others, changes, strict=True):
        if paired is not None and len(of_pairs) > 1:
            p.append(p_value(float(np.mean(of_pairs)), paired.sd / math.sqrt(len(of_pairs)), paired.df))
        else:
            error = noise.sd * math.sqrt(1 / arm.quality.n + 1 / best.quality.n)
            p.append(p_value(arm.quality.mean - best.quality.mean, error, noise.df))
    return p


def _names(study: Study, by_runs: Mapping[tuple[str, ...], Key]) -> dict[tuple[str, ...], str]:
    """Return what each arm is called: texts as they are, numbers with the name of their axis."""
    axes = [axis for axis in study.varied if axis != "seed"]
    headings = axis_headings(axes)

    def word(axis: str, value: Any) -> str:
        return value if isinstance(value, str) else f"{headings[axis]} {'null' if value is None else value}"

    several = len({key[0] for key in by_runs.values()}) > 1
    return {
        runs: ", ".join(
            [str(key[0])] * several + [word(axis, value) for axis, value in zip(axes, key[1:], strict=False)]
        )
        or str(key[0])
        for runs, key in by_runs.items()
    }

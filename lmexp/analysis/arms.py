"""Arms: the settings of a study, each with its seeds, and which of them can be told from the best.

The scatter of seeds is pooled over all arms, so an arm of one seed can be compared as well; that takes their scatter to
be alike. p values of "the best against each other arm" are adjusted by Holm's method.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmexp.analysis.columns import DEVICE_BOUND, axis_headings, higher_is_better
from lmexp.analysis.frontier import numbers
from lmexp.analysis.pairs import Key, cell_value, cells, comparable
from lmexp.analysis.seeds import LEVEL, Noise, Spread, holm, p_value, pooled, spread
from lmexp.analysis.table import Study


@dataclass(frozen=True)
class Arm:
    """One setting of everything but the seed."""

    name: str
    quality: Spread
    cost: float | None
    """The mean over its seeds; None where one is unknown, or devices differ."""


@dataclass(frozen=True)
class Ranking:
    """The arms from best to worst."""

    arms: tuple[Arm, ...]
    noise: Noise
    adjusted: tuple[float, ...]
    """p of each arm after the first against it, adjusted by Holm's method."""

    @property
    def ties(self) -> list[Arm]:
        """The arms that these seeds do not tell from the best."""
        return [arm for arm, p in zip(self.arms[1:], self.adjusted, strict=True) if p > LEVEL]


def ranking(study: Study, quality: str, cost: str) -> Ranking | None:
    """Return the arms of a study by their mean quality; None where no arm has two finished seeds."""
    if "seed" not in study.axes:
        return None
    runs = comparable(study, quality)
    values = dict(zip(runs["run_id"], numbers(runs, quality), strict=True))
    spent = dict(zip(runs["run_id"], numbers(runs, cost), strict=True))
    groups = cells(study, runs, "seed")
    noise = pooled([[values[run] for run in group.values()] for group in groups.values()])
    if noise is None:
        return None
    device = dict(zip(runs["run_id"], map(cell_value, runs["device_name"]), strict=True))
    by_runs = {tuple(sorted(group.values())): key for key, group in groups.items() if group}  # two sweeps may share all
    names = _names(study, by_runs)
    arms = []
    for of_arm in by_runs:
        paid = float(np.mean([spent[run] for run in of_arm]))
        scatter = spread([values[run] for run in of_arm])
        moved = cost in DEVICE_BOUND and len({device[run] for run in of_arm}) > 1
        arms.append(Arm(names[of_arm], scatter, paid if np.isfinite(paid) and not moved else None))
    sign = -1 if higher_is_better(quality) else 1
    arms.sort(key=lambda arm: (sign * arm.quality.mean, arm.cost if arm.cost is not None else np.inf))
    best, *others = arms
    p = [
        p_value(
            arm.quality.mean - best.quality.mean,
            noise.sd * float(np.sqrt(1 / arm.quality.n + 1 / best.quality.n)),
            noise.df,
        )
        for arm in others
    ]
    return Ranking(tuple(arms), noise, tuple(holm(p)))


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

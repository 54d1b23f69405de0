"""Which settings on the frontier, or next to it, are tied with one that costs no more.

The frontier of runs (frontier.py) marks single runs, and a lucky seed may be one of them. So ties are about arms: the
means over the seeds of each setting (ranking.py). Each arm is compared with one other, the best arm among those that
cost no more: on the frontier of the means, that is the next cheaper point, and off the frontier the best point that
beats it. If the seeds do not tell the two apart, they are tied: what the better one is better by may be chance. The
test, its noise floor and its correction are those of the ranking.

Only the first quality has a test. All other columns count as measured: the other arm must be as good in each of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Floats
from lmexp.analysis.effects.looks import about_looks
from lmexp.analysis.effects.more_seeds import about_unknown_noise
from lmexp.analysis.effects.noise import LEVEL, Noise
from lmexp.analysis.effects.ranking import Ints, RankedArm, ranking_of_rows
from lmexp.analysis.frontier import Names, names_of, numbers, objectives, undominated
from lmexp.analysis.table import Study
from lmexp.runs.columns import DEVICE_BOUND, column
from lmexp.units import counted, listed


@dataclass(frozen=True)
class Tie:
    """Two settings that these seeds do not tell apart."""

    arm: RankedArm
    other: RankedArm
    """It costs no more, and is on the frontier of the means."""
    is_on_frontier: bool
    """Whether `arm` is on the frontier of the means too."""
    difference: float
    """(quality of the arm) - (quality of the other one)."""
    p: float
    """Adjusted over all pairs of settings."""


@dataclass(frozen=True)
class FrontierTies:
    """The ties of one frontier."""

    quality: str
    noise: Noise
    compared: int
    """Settings that were compared with one that costs no more."""
    n_pairs: int
    """Pairs of settings over which p values are adjusted."""
    test_in_words: str
    ties: tuple[Tie, ...]
    """From the best setting to the worst."""


def frontier_ties(study: Study, quality: Names, cost: Names) -> FrontierTies | None:
    """Return the ties of the frontier of a study whose rows can be ranked together.

    None if no setting has two finished seeds, or if seeds were added after looks at the results, which this test does
    not allow for. Raises UserError for a column that is not numeric.
    """
    names = list(dict.fromkeys([*names_of(quality), *names_of(cost)]))
    ranked = None if study.looks else ranking_of_rows(study, names[0], names[-1])
    if ranked is None:
        return None
    losses = objectives(_means(study, ranked.arms, names), names[0], names[1:] or names)
    known = np.isfinite(losses).all(axis=1)
    on = np.zeros(len(losses), dtype=bool)
    on[known] = undominated(losses[known])
    pairs = _pairs(losses, np.flatnonzero(known), np.flatnonzero(on))
    ones, others = (np.array(side, dtype=np.intp) for side in (zip(*pairs, strict=True) if pairs else ((), ())))
    ties = [
        Tie(
            arm := ranked.arms[one],
            arm_below := ranked.arms[other],
            bool(on[one]),
            arm.quality.mean - arm_below.quality.mean,
            float(p),
        )
        for one, other, p in zip(ones, others, ranked.adjusted_p(ones, others), strict=True)
        if p > LEVEL
    ]
    return FrontierTies(names[0], ranked.noise, len(pairs), ranked.n_pairs, ranked.test_in_words, tuple(ties))


def _means(study: Study, arms: Sequence[RankedArm], names: Sequence[str]) -> pd.DataFrame:
    """Return the mean of each column over the runs of each arm; NaN if one is unknown, or if devices differ."""
    position = {label: at for at, label in enumerate(study.table.index)}
    at = [[position[label] for label in arm.rows] for arm in arms]
    device = pd.factorize(study.table["device_name"])[0]
    moved = [len(set(device[rows])) > 1 for rows in at]
    values = {name: numbers(study.table, name) for name in names}
    return pd.DataFrame(
        {
            name: [
                np.nan if has_moved and name in DEVICE_BOUND else float(values[name][rows].mean())
                for rows, has_moved in zip(at, moved, strict=True)
            ]
            for name in names
        }
    )


def _pairs(losses: Floats, arms: Ints, frontier: Ints) -> list[tuple[int, int]]:
    """Return each arm with the best one on the frontier that is as good in all columns but the first, if there is one.

    Of equally good ones it is the cheapest. `losses` are (arms, columns), of which less is better.
    """
    order = frontier[np.lexsort(losses[frontier].T[::-1])]  # by the first column, then the second, ...
    pairs = []
    for arm in arms:
        below = (losses[order, 1:] <= losses[arm, 1:]).all(axis=1) & (order != arm)
        if below.any():
            pairs.append((int(arm), int(order[np.argmax(below)])))
    return pairs


def about_frontier(study: Study, quality: Names, cost: Names, ties: FrontierTies | None) -> list[str]:
    """Say which settings are tied with one that costs no more; if that is not known, why, and how to know it."""
    if ties is None:
        first, spent = names_of(quality)[0], names_of(cost)[0]
        return about_looks(study, first) if study.looks else about_unknown_noise(study, first, spent)
    if not ties.compared or ties.noise.sd == 0:
        return []
    compared = counted(ties.compared, "setting", "was")
    how = f"(by {column(ties.quality).title}, {ties.test_in_words}; {compared} compared)"
    if not ties.ties:
        return [f"No setting is within noise of one that costs no more {how}."]
    named = [f"{tie.arm.name} (of {tie.other.name})" for tie in ties.ties]
    return [f"Within noise of a setting that costs no more: {listed(named)} {how}."]


def tied_with(table: pd.DataFrame, ties: FrontierTies) -> pd.Series:
    """Return for each row of a table the name of the setting that its own is tied with; null if there is none."""
    names = {label: tie.other.name for tie in ties.ties for label in tie.arm.rows}
    return pd.Series([names.get(label) for label in table.index], index=table.index, dtype="string")

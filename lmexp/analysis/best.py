"""The best run of a study in words, or the best arm if seeds are repeated, and what comes close to it."""

import numpy as np
import pandas as pd

from lmexp.analysis.columns import in_words
from lmexp.analysis.comparable import slowed
from lmexp.analysis.effects.noise import t_quantile
from lmexp.analysis.effects.ranking import Ranking
from lmexp.analysis.frontier import frontier, is_done, numbers
from lmexp.analysis.groups import default_grouping, group_numbers
from lmexp.analysis.phrases import mark, price_text, ratio_text, size_text, value_text
from lmexp.analysis.table import Study, name_at
from lmexp.runs.columns import column, higher_is_better
from lmexp.units import counted

NEAR = 0.01
"""A run within this share of the best quality counts as nearly as good."""


def headline(study: Study, quality: str = "loss", cost: str = "train_seconds", ranked: Ranking | None = None) -> str:
    """Return the most important sentence: the best run or the best of the ranked arms, and its cost."""
    at = best_at(study.table, quality, cost)
    if at is None:
        return f"No run has finished with a {column(quality).title} yet."
    degree = "highest" if higher_is_better(quality) else "lowest"
    if ranked:
        best = ranked.arms[0]
        half = t_quantile(ranked.noise.df) * ranked.noise.sd / np.sqrt(best.quality.n)
        seeds = counted(best.quality.n, "seed")
        price = price_text(cost, best.cost, best.is_slowed)
        value = f"{value_text(quality, best.quality.mean, half)} (95 %, {seeds}){price}."
        if len(ranked.arms) == 1:
            return f"All runs are of one setting: mean {value}"
        return f"{best.name} has the {degree} mean {value}"
    best_row = study.table.iloc[at]
    spent = None if pd.isna(best_row[cost]) else float(best_row[cost])
    price = price_text(cost, spent, bool(slowed(study.table, cost).iloc[at]))
    name = name_at(study.table, at)
    if int(is_done(study.table).sum()) == 1:
        return f"{name} is the only finished run: {value_text(quality, best_row[quality])}{price}."
    return f"{name} has the {degree} {value_text(quality, best_row[quality])}{price}."


def best_at(table: pd.DataFrame, quality: str, cost: str) -> int | None:
    """Return the position of the finished row with the best quality, or None. A tie goes to the cheaper row."""
    values, spent = numbers(table, quality), numbers(table, cost)
    known = is_done(table) & np.isfinite(values)
    if not known.any():
        return None
    loss = -values if higher_is_better(quality) else values
    order = np.lexsort((np.nan_to_num(spent, nan=np.inf), np.where(known, loss, np.inf), ~known))
    return int(order[0])


def about_ties(ranked: Ranking, quality: str, cost: str) -> list[str]:
    """Say whether these seeds are enough to distinguish the best arm from the others."""
    if len(ranked.arms) < 2 or ranked.noise.sd == 0:
        return []
    best, second = ranked.arms[:2]
    gap = size_text(quality, abs(second.quality.mean - best.quality.mean))
    others = len(ranked.arms) - 1
    if not ranked.ties:
        p = f"p {ranked.adjusted[0]:.2g}" if ranked.adjusted[0] >= 1e-4 else "p below 0.0001"
        return [f"The second, {second.name}, is {gap} behind, more than seeds explain ({ranked.test_in_words}, {p})."]
    said = f"The second, {second.name}, is {gap} behind: within noise."
    if len(ranked.ties) > 1:
        tied = "All" if len(ranked.ties) == others else f"{len(ranked.ties)} of the"
        said = f"{tied} {others} other settings are within noise of it, the second, {second.name}, by {gap}."
    priced = [arm for arm in ranked.ties if arm.cost is not None]
    cheap = min(priced, key=lambda arm: arm.cost or 0, default=None)
    if cheap is None or cheap.cost is None or not best.cost or cheap.cost >= best.cost:
        return [said]
    share = f"{mark(cheap.is_slowed or best.is_slowed)}{ratio_text(cheap.cost / best.cost)} the {column(cost).title}"
    if len(ranked.ties) == 1:
        return [f"{said[:-1]}, at {share}."]
    return [said, f"The cheapest of these, {cheap.name}, takes {share}."]


def nearly_as_good(study: Study, quality: str, cost: str) -> list[str]:
    """Name the cheapest row of the frontier that is within NEAR of the best row, unless it is the best row itself.

    Another seed of the best row's setting is not named: it is no cheaper, except by chance.
    """
    table = study.table
    at = best_at(table, quality, cost)
    on = np.flatnonzero(frontier(table, quality, cost))
    if at is None or not len(on):
        return []
    if (by := default_grouping(study)) is not None:
        settings = group_numbers(table, by).to_numpy()
        on = on[settings[on] != settings[at]]
    values, spent = numbers(table, quality), numbers(table, cost)
    near = on[np.abs(values[on] - values[at]) <= NEAR * abs(values[at])]
    if not len(near):
        return []
    cheap = int(near[np.argmin(spent[near])])
    if not spent[cheap] < spent[at]:
        return []
    shared = mark(bool(slowed(table, cost).iloc[[at, cheap]].any()))
    return [
        f"{name_at(table, cheap)} comes within {NEAR:.0%} of {name_at(table, at)} ({in_words(quality, values[cheap])}) "
        f"at {shared}{ratio_text(spent[cheap] / spent[at])} the {column(cost).title}."
    ]

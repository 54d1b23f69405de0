"""Answers about a study: which run reaches a bound most cheaply, and which is the best within limits."""

from collections.abc import Mapping, Sequence

import pandas as pd

from lmexp.analysis.columns import in_words
from lmexp.analysis.comparable import slowed
from lmexp.analysis.effects.pairing import comparable_runs, runs_by_cell
from lmexp.analysis.phrases import mark
from lmexp.analysis.select import best, cheapest, meets
from lmexp.analysis.table import Study, name_at
from lmexp.report.options import ViewOptions
from lmexp.runs.columns import column, higher_is_better


def cheapest_that_reaches(study: Study, options: ViewOptions) -> str:
    """Say which run is the cheapest that meets `options.reach` (and `options.under`), or that none does."""
    quality, cost = options.quality[0], options.cost[0]
    bounds = _bounds(options.reach) + (f" with {_bounds(options.under)}" if options.under else "")
    at = cheapest(study.table, options.reach | options.under, quality, cost)
    if at is None:
        return f"No finished run reaches {bounds}{_closest(study, options.reach)}."
    names = [quality, *(name for name in options.reach if name != quality), cost]
    sentence = f"The cheapest run that reaches {bounds} is {name_at(study.table, at)}"
    return f"{sentence}: {row_in_words(study.table, at, names)}{_other_seeds(study, options, at)}."


def best_within_limits(study: Study, options: ViewOptions) -> str:
    """Say which run is the best within `options.under`, or that none is within it."""
    quality = options.quality[0]
    at = best(study.table, options.under, quality, options.cost[0])
    if at is None:
        return f"No finished run has {_bounds(options.under)}{_closest(study, options.under)}."
    values = row_in_words(study.table, at, [quality, *options.under])
    return f"The best run with {_bounds(options.under)} is {name_at(study.table, at)}: {values}."


def row_in_words(table: pd.DataFrame, at: int, names: Sequence[str]) -> str:
    """Return some numbers of the row at a position: `loss 2.5, training time 12 s`; `~12 s` if other work slowed it."""
    words = []
    for name in dict.fromkeys(names):
        value, title = table[name].iloc[at], column(name).title
        shared = mark(bool(slowed(table.iloc[[at]], name).any()))
        words.append(f"no {title}" if pd.isna(value) else f"{title} {shared}{in_words(name, float(value))}")
    return ", ".join(words)


def _closest(study: Study, limits: Mapping[str, float]) -> str:
    """Return which run comes closest to the first of some bounds, as the end of a sentence."""
    name = next(iter(limits))
    at = best(study.table, {}, name, name)
    if at is None:
        return f": none has a {column(name).title}"
    return f"; the closest, {name_at(study.table, at)}, has {row_in_words(study.table, at, [name])}"


def _other_seeds(study: Study, options: ViewOptions, at: int) -> str:
    """Return how many of the other seeds of a run's setting do not meet `options.reach`."""
    runs = comparable_runs(study, options.quality[0])
    run = study.table["run_id"].iloc[at]
    if "seed" not in study.axes or run not in set(runs["run_id"]):
        return ""
    settings = [set(group.values()) for group in runs_by_cell(study, runs, "seed").values() if run in group.values()]
    if not settings or len(settings[0]) < 2:
        return "; its setting has one finished seed"
    seeds = runs[runs["run_id"].isin(settings[0])]
    short = int((~meets(seeds, options.reach)).sum())
    return f"; {short} of the {len(seeds)} seeds of its setting do not" if short else "; so do all its seeds"


def _bounds(limits: Mapping[str, float]) -> str:
    """Return bounds in words: `loss of at most 3 and accuracy of at least 0.8`."""
    return " and ".join(
        f"{column(name).title} of at {'least' if higher_is_better(name) else 'most'} {value:g}"
        for name, value in limits.items()
    )

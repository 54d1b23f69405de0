"""What a study says, in sentences, and no more than its rows bear out.

The effect of an axis is read from pairs: two runs of one sweep that differ in that axis and in no other.
A pair's difference is free of whatever else varies, which a difference of group means is not where cells are
missing. Differences between seeds say how large a difference must be before it means anything; with one seed
nobody knows, and a sentence says that.
"""

from collections import Counter
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.columns import column, format_number, higher_is_better, in_words, number_format
from lmexp.analysis.frontier import frontier, numbers
from lmexp.analysis.table import Study, plain

NEAR = 0.01
"""A run within this share of the best quality counts as nearly as good."""
SEVERAL = 6
"""Of more values than these, only the best and the worst are told."""
PENDING = ("queued", "running")

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Effect:
    """What another value of an axis does than its first, over the pairs that differ in it alone."""

    axis: str
    base: Any
    value: Any
    changes: tuple[float, ...]
    """Change of quality, one a pair."""
    cost_ratio: float | None
    """Geometric mean over the pairs of (cost with `value`) / (cost with `base`); None where unknown."""


def findings(study: Study, quality: str = "loss", cost: str = "train_seconds") -> list[str]:
    """Return the study's answer as plain sentences, the headline first; of several tasks, each with its name.

    Raises UserError for a quality or cost that is no column of numbers.
    """
    several = study.tasks if len(study.tasks) > 1 else []
    by_task = [f"{task}: {said}" for task in several for said in _of_one_task(study.of_task(task), quality, cost)]
    return (by_task or _of_one_task(study, quality, cost)) + _about_the_rest(study)


def _of_one_task(study: Study, quality: str, cost: str) -> list[str]:
    sentences = [headline(study, quality, cost)]
    sentences += _about_mixtures(study, quality)
    sentences += _nearly_as_good(study.table, quality, cost)
    runs = final_rows(study.table)
    runs = runs[np.isfinite(numbers(runs, quality))]
    for axis in study.varied:
        sentences += _about_axis(study, runs, axis, quality, cost)
    if len(runs) > 1 and study.axes:
        sentences += _about_seeds(study, runs, quality)
    return sentences + _about_peaks(study.table)


def headline(study: Study, quality: str = "loss", cost: str = "train_seconds") -> str:
    """Return the one sentence that matters most: the best run and what it cost."""
    best = _best_row(study.table, quality, cost)
    if best is None:
        return f"No run has finished with a {column(quality).title} yet."
    spent = best[cost]
    price = "" if pd.isna(spent) else f", for {in_words(cost, float(spent))} of {column(cost).title}"
    degree = "highest" if higher_is_better(quality) else "lowest"
    only = int((study.table["state"] == "done").sum()) == 1
    name = name_of(best, study.table)
    if only:
        return f"{name} is the only finished run: {_value(quality, best[quality])}{price}."
    return f"{name} has the {degree} {_value(quality, best[quality])}{price}."


def effects(study: Study, axis: str, quality: str, cost: str) -> list[Effect]:
    """Return the paired effects of each value of `axis` against its first, those without a pair left out."""
    runs = final_rows(study.table)
    return _effects(study, runs[np.isfinite(numbers(runs, quality))], axis, quality, cost)


def final_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each finished run: its last, where milestones gave it several."""
    done = table[(table["state"] == "done").to_numpy(dtype=bool, na_value=False)]
    return done.sort_values("tokens", kind="stable", na_position="first").drop_duplicates("run_id", keep="last")


def name_of(row: pd.Series, table: pd.DataFrame) -> str:
    """Return what a row is called: its slug, and its tokens where its run has several rows."""
    name = str(row["slug"] if pd.notna(row["slug"]) else row["run_id"])
    if pd.notna(row["tokens"]) and (table["run_id"] == row["run_id"]).sum() > 1:
        return f"{name} at {in_words('tokens', float(row['tokens']))}"
    return name


def _best_row(table: pd.DataFrame, quality: str, cost: str) -> pd.Series | None:
    """Return the finished row of the best quality, the cheaper one of equals, or None."""
    values, spent = numbers(table, quality), numbers(table, cost)
    known = (table["state"] == "done").to_numpy(dtype=bool, na_value=False) & np.isfinite(values)
    if not known.any():
        return None
    loss = -values if higher_is_better(quality) else values
    order = np.lexsort((np.nan_to_num(spent, nan=np.inf), np.where(known, loss, np.inf)))
    return table.iloc[order[0]]


def _nearly_as_good(table: pd.DataFrame, quality: str, cost: str) -> list[str]:
    """Name the cheapest row of the frontier that is within NEAR of the best, unless that is the best."""
    best = _best_row(table, quality, cost)
    on = table[frontier(table, quality, cost)]
    if best is None or pd.isna(best[cost]) or on.empty:
        return []
    gap = np.abs(numbers(on, quality) - float(best[quality]))
    near = on[gap <= NEAR * abs(float(best[quality]))]
    cheap = near.iloc[int(np.argmin(numbers(near, cost)))]
    if not float(cheap[cost]) < float(best[cost]):
        return []
    share = _ratio(float(cheap[cost]) / float(best[cost]))
    return [
        f"{name_of(cheap, table)} comes within {NEAR:.0%} of it ({in_words(quality, float(cheap[quality]))}) "
        f"at {share} the {column(cost).title}."
    ]


def _about_axis(study: Study, runs: pd.DataFrame, axis: str, quality: str, cost: str) -> list[str]:
    """Say what each value of an axis does against the first, or why that cannot be read off."""
    if axis == "seed" or runs[axis].dropna().nunique() < 2:
        return []
    found = _effects(study, runs, axis, quality, cost)
    if not found:
        return [f"No two finished runs differ in {axis} alone, so its effect cannot be told from the others'."]
    told = found
    if len(found) > SEVERAL:
        ranked = sorted(found, key=lambda effect: fmean(effect.changes), reverse=higher_is_better(quality))
        told = [ranked[0], ranked[-1]]
    between = [f"The other {len(found) - 2} values of {axis} lie between these."] if told != found else []
    return [_effect_in_words(effect, quality, cost) for effect in told] + between


def _effect_in_words(effect: Effect, quality: str, cost: str) -> str:
    """Return an effect as a sentence."""
    spec = number_format(quality, effect.changes) or ",.4g"
    signed = [_signed(change, spec) for change in (fmean(effect.changes), *sorted(effect.changes))]
    pairs = len(effect.changes)
    extent = f"mean of {pairs} pairs, from {signed[1]} to {signed[-1]}" if pairs > 1 else "one pair"
    price = f", {_ratio(effect.cost_ratio)} the {column(cost).title}" if effect.cost_ratio else ""
    return f"{effect.axis} {effect.value} against {effect.base}: {column(quality).title} {signed[0]} ({extent}){price}."


def _effects(study: Study, runs: pd.DataFrame, axis: str, quality: str, cost: str) -> list[Effect]:
    """Return the paired effects of `axis` among `runs`, in the order of its values."""
    cells = _cells(study, runs, axis)
    measured = dict(zip(runs["run_id"], zip(numbers(runs, quality), numbers(runs, cost), strict=True), strict=True))
    values = list(dict.fromkeys([*map(_cell_value, study.axes[axis]), *map(_cell_value, runs[axis].dropna())]))
    base, *others = [value for value in values if any(value in group for group in cells.values())] or [None]
    found = []
    for value in others:
        # A set, for two sweeps may share both runs of a pair.
        pairs = {(group[base], group[value]) for group in cells.values() if base in group and value in group}
        if not pairs:
            continue
        before = np.array([measured[first] for first, _ in sorted(pairs)])
        after = np.array([measured[second] for _, second in sorted(pairs)])
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = float(np.exp(np.mean(np.log(after[:, 1] / before[:, 1]))))
        found.append(
            Effect(
                axis=axis,
                base=base,
                value=value,
                changes=tuple(float(change) for change in after[:, 0] - before[:, 0]),
                cost_ratio=ratio if np.isfinite(ratio) and ratio > 0 else None,
            )
        )
    return found


def _cells(study: Study, runs: pd.DataFrame, axis: str) -> dict[Key, dict[Any, str]]:
    """Return, for each setting of everything but `axis`, the run that has each value of it.

    Where two runs of a sweep have all axes in common, something else tells them apart: neither counts.
    """
    others = [name for name in study.varied if name != axis]
    settings = {name: [_cell_value(value) for value in runs[name]] for name in [axis, *others]}
    groups: dict[Key, dict[Any, str]] = {}
    ambiguous: set[tuple[Key, Any]] = set()
    for sweep, members in study.members.items():
        for i, run_id in enumerate(runs["run_id"]):
            value = settings[axis][i]
            if run_id not in members or value is None:
                continue
            key = (sweep, *(settings[name][i] for name in others))
            group = groups.setdefault(key, {})
            if value in group:
                ambiguous.add((key, value))
            group[value] = run_id
    for key, value in ambiguous:
        del groups[key][value]
    return groups


def _about_mixtures(study: Study, quality: str) -> list[str]:
    """Warn where rows stand side by side that do not compare."""
    if not study.has_one_tokenizer:
        advice = "" if quality == "bits_per_byte" else "; bits per byte do"
        return [f"The runs cut text into different tokens: losses per token do not compare{advice}."]
    if (study.table.groupby("tokenizer_fingerprint")["data_fingerprint"].nunique() > 1).any():
        return ["The runs were scored on different texts: their qualities do not compare."]
    return []


def _about_seeds(study: Study, runs: pd.DataFrame, quality: str) -> list[str]:
    """Say how far seeds alone move the quality, or that nobody knows."""
    spreads = []
    if "seed" in study.axes:
        values = dict(zip(runs["run_id"], numbers(runs, quality), strict=True))
        groups = _cells(study, runs, "seed").values()
        spreads = [np.var([values[run] for run in group.values()], ddof=1) for group in groups if len(group) > 1]
    title = column(quality).title
    if not spreads:
        return ["No cell has two finished seeds: differences of this size may be noise."]
    deviation = float(np.sqrt(np.mean(spreads)))
    spec = number_format(quality, [deviation]) or ",.4g"
    cells = "1 cell" if len(spreads) == 1 else f"{len(spreads)} cells"
    return [
        f"Seeds alone move the {title} by {format_number(deviation, spec)} "
        f"(standard deviation within {cells}): smaller differences may be noise."
    ]


def _about_peaks(table: pd.DataFrame) -> list[str]:
    """Warn of utilisation that cannot be."""
    above = int((numbers(table, "mfu") > 1).sum())
    if not above:
        return []
    runs = "1 run has" if above == 1 else f"{above} runs have"
    return [f"{runs} an MFU above 1: the peak that it is held against is too low."]


def _about_the_rest(study: Study) -> list[str]:
    """Say how many runs did not finish and in which states, what is still to come, and what was skipped."""
    states = study.table.drop_duplicates("run_id")["state"]
    total, count = len(states), Counter(states)
    ended = {state: n for state, n in count.items() if state != "done" and state not in PENDING}
    pending = {state: count[state] for state in PENDING if count[state]}
    sentences = []
    if ended:
        sentences.append(f"{sum(ended.values())} of {total} runs did not finish: {_tally(ended)}.")
    if pending:
        sentences.append(f"{sum(pending.values())} of {total} runs are still to come: {_tally(pending)}.")
    if study.skipped:
        cells = "cell was" if len(study.skipped) == 1 else "cells were"
        sentences.append(f"{len(study.skipped)} {cells} skipped before the start.")
    return sentences


def _tally(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {state}" for state, n in counts.items())


def _value(name: str, value: float) -> str:
    return f"{column(name).title}, {in_words(name, float(value))}"


def _signed(change: float, spec: str) -> str:
    sign = "−" if change < 0 else "+"
    return sign + format_number(abs(change), spec)


def _ratio(value: float) -> str:
    return f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


def _cell_value(value: Any) -> Any:
    """Return a value of an axis as the pairing compares it: null is None, a number is a plain number."""
    value = plain(value)
    if not isinstance(value, str) and pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value

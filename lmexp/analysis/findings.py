"""The findings of a study as sentences that claim no more than its rows show.

The answer comes first: the best run or, if seeds are repeated, the best arm, with its cost and the arms that are
within noise of it. Then comes the effect of each axis (effects/effects.py), with an interval if there is one. Repeated
seeds show how large a difference must be to be more than noise. With one seed that is unknown, and a sentence says so.
"""

from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.columns import format_number, in_words, number_format
from lmexp.analysis.comparable import SHARED_MARK, crowded, mixtures, slowed
from lmexp.analysis.effects.effects import Effect, all_effects
from lmexp.analysis.effects.noise import t_quantile
from lmexp.analysis.effects.pairing import comparable_runs
from lmexp.analysis.effects.ranking import Ranking, ranking
from lmexp.analysis.floor import shared_floor
from lmexp.analysis.frontier import frontier, is_done, numbers
from lmexp.analysis.rankable import obstacles
from lmexp.analysis.table import Study, name_at
from lmexp.runs.columns import column, higher_is_better
from lmexp.runs.origin import THEN

NEAR = 0.01
"""A run within this share of the best quality counts as nearly as good."""
SEVERAL = 6
"""An axis with more values than this is reported by its best and its worst value only."""
MAX_SHOWN_AXES = 5
"""If more axes than this have an effect, only those with the largest effects are reported one by one."""
PENDING = ("queued", "running")


def findings(study: Study, quality: str = "loss", cost: str = "train_seconds") -> list[str]:
    """Return the findings as plain sentences, the headline first.

    If rows cannot be ranked together (rankable.py), the first sentences say why, and each part of the study has
    sentences that start with its name. Raises UserError for a quality or a cost that is not a numeric column.
    """
    sentences = obstacles(study.table[is_done(study.table)], quality)
    parts = study.rankable(quality)
    for name, part in parts.items():
        prefix = f"{name}: " if len(parts) > 1 else ""
        sentences += [prefix + sentence for sentence in _of_one_part(part, quality, cost)]
    return sentences + _about_the_rest(study)


def _of_one_part(study: Study, quality: str, cost: str) -> list[str]:
    ranked = ranking(study, quality, cost)
    sentences = [headline(study, quality, cost, ranked)]
    sentences += _about_ties(ranked, quality, cost) if ranked else []
    sentences += _about_tokenizers(study, quality)
    sentences += _nearly_as_good(study.table, quality, cost)
    runs = comparable_runs(study, quality)
    sentences += _about_axes(study, runs, quality, cost)
    if len(runs) > 1 and study.axes:
        sentences += _about_seeds(runs, ranked, quality)
    sentences += _about_baselines(study.table)
    sentences += _about_floor(study.table, quality)
    return sentences + _about_unknown(study.table, quality) + _about_peaks(study.table)


def _about_code(table: pd.DataFrame) -> list[str]:
    """Return a sentence that names the runs which were resumed under other code than they began with."""
    changed = table["trained_by"].astype("string").str.contains(THEN, regex=False).fillna(False)
    names = list(table["slug"][changed].astype(str).drop_duplicates())
    if not names:
        return []
    return [
        f"Resumed under other code or packages than at the start: {_listed(names)}. Perhaps no single version of the "
        "code reproduces these results (column trained_by)."
    ]


def headline(study: Study, quality: str = "loss", cost: str = "train_seconds", ranked: Ranking | None = None) -> str:
    """Return the most important sentence: the best run or the best of the ranked arms, and its cost."""
    at = _best_at(study.table, quality, cost)
    if at is None:
        return f"No run has finished with a {column(quality).title} yet."
    degree = "highest" if higher_is_better(quality) else "lowest"
    if ranked:
        best = ranked.arms[0]
        half = t_quantile(ranked.noise.df) * ranked.noise.sd / np.sqrt(best.quality.n)
        seeds = "1 seed" if best.quality.n == 1 else f"{best.quality.n} seeds"
        value = f"{_value(quality, best.quality.mean, half)} (95 %, {seeds}){_price(cost, best.cost, best.is_slowed)}."
        if len(ranked.arms) == 1:
            return f"All runs are of one setting: mean {value}"
        return f"{best.name} has the {degree} mean {value}"
    best_row = study.table.iloc[at]
    spent = None if pd.isna(best_row[cost]) else float(best_row[cost])
    price = _price(cost, spent, bool(slowed(study.table, cost).iloc[at]))
    name = name_at(study.table, at)
    if int(is_done(study.table).sum()) == 1:
        return f"{name} is the only finished run: {_value(quality, best_row[quality])}{price}."
    return f"{name} has the {degree} {_value(quality, best_row[quality])}{price}."


def _price(cost: str, spent: float | None, is_slowed: bool) -> str:
    return "" if spent is None else f", for {_mark(is_slowed)}{in_words(cost, spent)} of {column(cost).title}"


def _mark(is_slowed: bool) -> str:
    """Return the mark of a number that was measured beside other work, or nothing."""
    return SHARED_MARK if is_slowed else ""


def _best_at(table: pd.DataFrame, quality: str, cost: str) -> int | None:
    """Return the position of the finished row with the best quality, or None. A tie goes to the cheaper row."""
    values, spent = numbers(table, quality), numbers(table, cost)
    known = is_done(table) & np.isfinite(values)
    if not known.any():
        return None
    loss = -values if higher_is_better(quality) else values
    order = np.lexsort((np.nan_to_num(spent, nan=np.inf), np.where(known, loss, np.inf), ~known))
    return int(order[0])


def _about_ties(ranked: Ranking, quality: str, cost: str) -> list[str]:
    """Say whether these seeds are enough to distinguish the best arm from the others."""
    if len(ranked.arms) < 2 or ranked.noise.sd == 0:
        return []
    best, second = ranked.arms[:2]
    gap = _size(quality, abs(second.quality.mean - best.quality.mean))
    others = len(ranked.arms) - 1
    if not ranked.ties:
        over = f", Holm's correction over {others} arms" if others > 1 else ""
        p = f"p {ranked.adjusted[0]:.2g}" if ranked.adjusted[0] >= 1e-4 else "p below 0.0001"
        return [f"The second, {second.name}, is {gap} behind, more than seeds explain (t test, {p}{over})."]
    said = f"The second, {second.name}, is {gap} behind: within noise."
    if len(ranked.ties) > 1:
        said = (
            f"{len(ranked.ties)} of the {others} other settings are within noise of it, the second, {second.name}, "
            f"by {gap}."
        )
    priced = [arm for arm in ranked.ties if arm.cost is not None]
    cheap = min(priced, key=lambda arm: arm.cost or 0, default=None)
    if cheap is None or cheap.cost is None or not best.cost or cheap.cost >= best.cost:
        return [said]
    share = f"{_mark(cheap.is_slowed or best.is_slowed)}{_ratio(cheap.cost / best.cost)} the {column(cost).title}"
    if len(ranked.ties) == 1:
        return [f"{said[:-1]}, at {share}."]
    return [said, f"The cheapest of these, {cheap.name}, takes {share}."]


def _nearly_as_good(table: pd.DataFrame, quality: str, cost: str) -> list[str]:
    """Name the cheapest row of the frontier that is within NEAR of the best row, unless it is the best row itself."""
    at = _best_at(table, quality, cost)
    on = np.flatnonzero(frontier(table, quality, cost))
    if at is None or not len(on):
        return []
    values, spent = numbers(table, quality), numbers(table, cost)
    near = on[np.abs(values[on] - values[at]) <= NEAR * abs(values[at])]
    if not len(near):
        return []
    cheap = int(near[np.argmin(spent[near])])
    if not spent[cheap] < spent[at]:
        return []
    mark = _mark(bool(slowed(table, cost).iloc[[at, cheap]].any()))
    return [
        f"{name_at(table, cheap)} comes within {NEAR:.0%} of {name_at(table, at)} "
        f"({in_words(quality, values[cheap])}) at {mark}{_ratio(spent[cheap] / spent[at])} the {column(cost).title}."
    ]


def _about_axes(study: Study, runs: pd.DataFrame, quality: str, cost: str) -> list[str]:
    """Say what each axis does, or only the strongest if there are many; then name the axes whose effect is unknown."""
    varied = [axis for axis in study.varied if axis != "seed" and runs[axis].dropna().nunique() > 1]
    every = all_effects(study, quality, cost) if varied else {}
    effects = {axis: every[axis] for axis in varied if every[axis]}
    reach = {axis: max(abs(effect.mean) for effect in of_axis) for axis, of_axis in effects.items()}
    told = set(islice(sorted(reach, key=lambda axis: -reach[axis]), MAX_SHOWN_AXES))
    sentences = [said for axis in effects if axis in told for said in _about_axis(axis, effects[axis], quality, cost)]
    rest = [axis for axis in effects if axis not in told]
    if rest:
        most = _size(quality, max(reach[axis] for axis in rest))
        sentences.append(f"{_listed(rest)} move the {column(quality).title} by at most {most}.")
    unclear = [axis for axis in varied if axis not in effects]
    if len(unclear) == 1:
        sentences.append(
            f"No two finished runs differ in {unclear[0]} alone, so its effect cannot be told from the others'."
        )
    elif unclear:
        sentences.append(
            f"No two finished runs differ in one of {_listed(unclear)} alone, so their effects cannot be told apart."
        )
    return sentences


def _about_axis(axis: str, effects: list[Effect], quality: str, cost: str) -> list[str]:
    """Say what each value of an axis does compared with the first; if there are many, only the best and the worst."""
    told = effects
    if len(effects) > SEVERAL:
        ranked = sorted(effects, key=lambda effect: effect.mean, reverse=higher_is_better(quality))
        told = [ranked[0], ranked[-1]]
    between = [f"The other {len(effects) - 2} values of {axis} lie between these."] if told != effects else []
    return [_effect_in_words(effect, quality, cost) for effect in told] + between


def _effect_in_words(effect: Effect, quality: str, cost: str) -> str:
    """Return an effect as a sentence."""
    pairs, half = len(effect.changes), effect.half
    spec = number_format(quality, effect.changes) or ",.4g"
    signed = [_signed(change, spec) for change in (effect.mean, *sorted(effect.changes))]
    if effect.noise is not None and half is not None:
        judged = {True: ", within noise", False: ", more than seeds explain", None: ""}[effect.is_within_noise]
        change = f"{signed[0]} ± {_half(half, spec)} (95 %, {pairs} pairs of equal seed){judged}"
    elif pairs > 1:
        change = f"{signed[0]} (mean of {pairs} pairs, from {signed[1]} to {signed[-1]})"
    else:
        change = f"{signed[0]} (one pair)"
    mark = _mark(effect.is_slowed)
    price = f", {mark}{_ratio(effect.cost_ratio)} the {column(cost).title}" if effect.cost_ratio else ""
    speed = f", {_ratio(effect.speed_ratio)} the tokens/s" if effect.speed_ratio and cost != "tokens_per_second" else ""
    return f"{effect.axis} {effect.value} against {effect.base}: {column(quality).title} {change}{price}{speed}."


def _about_tokenizers(study: Study, quality: str) -> list[str]:
    """Say why rows of several tokenizers are ranked by bits per byte."""
    if quality != "bits_per_byte" or study.has_one_tokenizer:
        return []
    return ["The runs cut text into different tokens: losses per token do not compare."]


def _about_seeds(runs: pd.DataFrame, ranked: Ranking | None, quality: str) -> list[str]:
    """Say how much the seed alone changes the quality, or that this is unknown."""
    if ranked is None:
        ends = np.sort(numbers(runs, quality) * (-1 if higher_is_better(quality) else 1))[:2]
        gap = _size(quality, float(ends[1] - ends[0]))
        return [
            "No cell has two finished seeds: differences of this size may be noise, "
            f"the {gap} between the first and the second too."
        ]
    noise, title = ranked.noise, column(quality).title
    cells = "1 cell" if noise.cells == 1 else f"{noise.cells} cells"
    if noise.sd == 0:
        return [f"All seeds of a cell gave the same {title} ({cells}): they say nothing of noise."]
    spec = number_format(quality, [noise.sd]) or ",.4g"
    low, sd, high = (format_number(value, spec) for value in (noise.low, noise.sd, noise.high))
    said = (
        f"Seeds alone move the {title} by {sd} (standard deviation within {cells}; 95 % interval {low} to {high}). "
        "What a t test with that scatter does not find, two-sided at 5 % with Holm's correction, is within noise."
    )
    alone = sum(arm.quality.n == 1 for arm in ranked.arms)
    if not alone:
        return [said]
    arms = "1 setting rests" if alone == 1 else f"{alone} settings rest"
    return [said, f"{arms} on one finished seed."]


def _about_baselines(table: pd.DataFrame) -> list[str]:
    """Name the classifiers that are no better than a guess without a model: the commonest label, a bag of words."""
    sentences = []
    for name in ("majority_accuracy", "bag_of_words_accuracy"):
        if name not in table:
            continue
        baseline = numbers(table, name)
        lost = np.flatnonzero(is_done(table) & (numbers(table, "accuracy") <= baseline))  # NaN is not
        if len(lost):
            does = "does" if len(lost) == 1 else f"({len(lost)} of {int(np.isfinite(baseline).sum())}) do"
            value = format_number(float(baseline[lost].max()), column(name).format)
            names = _listed([name_at(table, int(at)) for at in lost])
            sentences.append(f"{names} {does} not beat the {column(name).title}, {value}.")
    return sentences


def _about_floor(table: pd.DataFrame, quality: str) -> list[str]:
    """Say how far the best row is above what no model can beat, if all rows have one floor."""
    at, floor = _best_at(table, quality, "train_flops"), shared_floor(table, quality)
    if at is None or floor is None:
        return []
    gap = float(numbers(table, quality)[at]) - floor
    side = "above it" if gap >= 0 else "below it, by chance, since the text is finite"
    return [
        f"No model can be expected to beat a {column(quality).title} of {in_words(quality, floor)} on this text: "
        f"{name_at(table, at)} is {_size(quality, abs(gap))} {side}."
    ]


def _about_unknown(table: pd.DataFrame, quality: str) -> list[str]:
    """Say how many finished rows lack the quality, if others have it."""
    known = np.isfinite(numbers(table, quality))[is_done(table)]
    missing = int((~known).sum())
    if not missing or not known.any():
        return []
    rows = "1 finished row has" if missing == 1 else f"{missing} finished rows have"
    return [f"{rows} no finite {column(quality).title} and cannot be compared."]


def _about_peaks(table: pd.DataFrame) -> list[str]:
    """Warn about an MFU above 1, which is impossible."""
    above = int((numbers(table, "mfu") > 1).sum())
    if not above:
        return []
    runs = "1 run has" if above == 1 else f"{above} runs have"
    return [f"{runs} an MFU above 1: the peak that it is held against is too low."]


def _about_milestones(table: pd.DataFrame) -> list[str]:
    """Say what rows that share the steps of a trunk took together, and what each of them alone would have taken."""
    spent, alone = (numbers(table, name) for name in ("spent_flops", "train_flops"))
    known = is_done(table) & np.isfinite(spent) & np.isfinite(alone)
    total, separate = float(spent[known].sum()), float(alone[known].sum())
    if not total < separate:
        return []
    return [
        f"Rows of one run share its steps: together they took {in_words('spent_flops', total)}, and separate runs "
        f"would have taken {in_words('train_flops', separate)}."
    ]


def _about_the_rest(study: Study) -> list[str]:
    """Say what the rows mix, and how many runs did not finish, are still to come or were skipped."""
    sentences = [mixture.sentence for mixture in mixtures(study.table)] + _about_code(study.table)
    sentences += _about_milestones(study.table)
    beside = int((crowded(study.table) & is_done(study.table)).sum())
    if beside:
        rows, they = ("1 row was", "it") if beside == 1 else (f"{beside} rows were", "they")
        sentences.append(f"{rows} measured while other work was on the device: alone {they} would be faster.")
    states = study.table.drop_duplicates("run_id")["state"]
    total, count = len(states), Counter(states)
    ended = {state: n for state, n in count.items() if state != "done" and state not in PENDING}
    pending = {state: count[state] for state in PENDING if count[state]}
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


def _listed(names: list[str]) -> str:
    """Return `a, b and c`; if there are many, the first ones and the number of the others."""
    shown = (
        names if len(names) <= MAX_SHOWN_AXES + 1 else [*names[:MAX_SHOWN_AXES], f"{len(names) - MAX_SHOWN_AXES} more"]
    )
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _value(name: str, value: Any, half: float | None = None) -> str:
    """Return a value with its title and unit, such as `loss, 2.5010 ± 0.0030 nats`."""
    text = in_words(name, float(value))
    if half is not None:
        spec = number_format(name, [float(value)]) or ",.4g"
        number = format_number(float(value), spec)
        text = f"{number} ± {_half(half, spec)}{text.removeprefix(number)}"
    return f"{column(name).title}, {text}"


def _half(half: float, spec: str) -> str:
    """Return half an interval with the digits of its value, or with one significant digit if that would show 0."""
    text = format_number(half, spec)
    return text if half == 0 or text.strip("0.,") else np.format_float_positional(half, precision=1, fractional=False)


def _size(name: str, value: float) -> str:
    """Return the size of a difference, with the column's number of digits."""
    return format_number(value, number_format(name, [value]) or ",.4g")


def _signed(change: float, spec: str) -> str:
    sign = "−" if change < 0 else "+"
    return sign + format_number(abs(change), spec)


def _ratio(value: float) -> str:
    return f"{value:.2f}x" if value < 10 else f"{value:.0f}x"

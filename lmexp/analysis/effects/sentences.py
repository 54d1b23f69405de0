"""What the axes of a study do, and what its seeds say about noise, as sentences."""

from itertools import islice

import pandas as pd

from lmexp.analysis.columns import format_number, number_format, value_text
from lmexp.analysis.effects.effects import Effect, Effects
from lmexp.analysis.effects.ranking import Ranking
from lmexp.analysis.phrases import half_text, mark, ratio_text, signed_text, size_text
from lmexp.analysis.table import Study
from lmexp.runs.columns import column, higher_is_better
from lmexp.units import counted, listed

SEVERAL = 6
"""An axis with more values than this is reported by its best and its worst value only."""
MAX_AXES = 5
"""If more axes than this have an effect, only those with the largest effects are reported one by one."""


def about_axes(study: Study, runs: pd.DataFrame, every: Effects, quality: str, cost: str) -> list[str]:
    """Say what each axis does, or only the strongest if there are many; then name the axes whose effect is unknown."""
    varied = [axis for axis in study.varied if axis != "seed" and runs[axis].dropna().nunique() > 1]
    effects = {axis: every[axis] for axis in varied if every[axis]}
    reach = {axis: max(abs(effect.mean) for effect in of_axis) for axis, of_axis in effects.items()}
    told = set(islice(sorted(reach, key=lambda axis: -reach[axis]), MAX_AXES))
    sentences = [
        said for axis in effects if axis in told for said in _about_axis(effects[axis], quality, cost, not study.looks)
    ]
    rest = [axis for axis in effects if axis not in told]
    if rest:
        most = size_text(quality, max(reach[axis] for axis in rest))
        sentences.append(f"{listed(rest)} move the {column(quality).title} by at most {most}.")
    unclear = [axis for axis in varied if axis not in effects]
    if len(unclear) == 1:
        sentences.append(
            f"No two finished runs differ in {unclear[0]} alone, so its effect cannot be told apart from the others'."
        )
    elif unclear:
        sentences.append(
            f"No two finished runs differ in one of {listed(unclear)} alone, so their effects cannot be told apart."
        )
    return sentences


def _about_axis(effects: list[Effect], quality: str, cost: str, is_judged: bool) -> list[str]:
    """Say what each value of an axis does compared with the first; if there are many, only the best and the worst."""
    told = effects
    if len(effects) > SEVERAL:
        ranked = sorted(effects, key=lambda effect: effect.mean, reverse=higher_is_better(quality))
        told = [ranked[0], ranked[-1]]
    between = (
        [f"The other {len(effects) - 2} values of {effects[0].axis} lie between these."] if told != effects else []
    )
    return [effect_in_words(effect, quality, cost, is_judged) for effect in told] + between


def effect_in_words(effect: Effect, quality: str, cost: str, is_judged: bool = True) -> str:
    """Return an effect as a sentence; unless `is_judged`, without whether seeds may explain it."""
    shared = mark(effect.is_slowed)
    price = f", {shared}{ratio_text(effect.cost_ratio)} the {column(cost).title}" if effect.cost_ratio else ""
    speed = (
        f", {ratio_text(effect.speed_ratio)} the tokens/s" if effect.speed_ratio and cost != "tokens_per_second" else ""
    )
    against = f"{effect.axis} {value_text(effect.value)} against {value_text(effect.base)}"
    return f"{against}: {change_in_words(effect, quality, is_judged)}{price}{speed}."


def change_in_words(effect: Effect, quality: str, is_judged: bool = True) -> str:
    """Return the change of the quality with its interval: `loss −0.0123 ± 0.0045 (95 %, 6 pairs of equal seed)`."""
    pairs, half = len(effect.changes), effect.half
    spec = number_format(quality, effect.changes) or ",.4g"
    signed = [signed_text(change, spec) for change in (effect.mean, *sorted(effect.changes))]
    if effect.noise is not None and half is not None:
        judged = {True: ", within noise", False: ", more than seeds explain", None: ""}[
            effect.is_within_noise if is_judged else None
        ]
        change = f"{signed[0]} ± {half_text(half, spec)} (95 %, {pairs} pairs of equal seed){judged}"
    elif pairs > 1:
        change = f"{signed[0]} (mean of {pairs} pairs, from {signed[1]} to {signed[-1]})"
    else:
        change = f"{signed[0]} (one pair)"
    return f"{column(quality).title} {change}"


def about_seeds(ranked: Ranking, quality: str, is_fixed: bool = True) -> list[str]:
    """Say how much the seed alone changes the quality; `is_fixed`: whether the number of seeds was not a result."""
    noise, title = ranked.noise, column(quality).title
    cells = counted(noise.cells, "cell")
    if noise.sd == 0:
        return [f"All seeds of a cell gave the same {title} ({cells}): they say nothing of noise."]
    spec = number_format(quality, [noise.sd]) or ",.4g"
    low, sd, high = (format_number(value, spec) for value in (noise.low, noise.sd, noise.high))
    said = f"Seeds alone move the {title} by {sd} (standard deviation within {cells}; 95 % interval {low} to {high})."
    if is_fixed:
        said += (
            " What a t test with that scatter does not find, two-sided at 5 % with Holm's correction, is within noise."
        )
    alone = sum(arm.quality.n == 1 for arm in ranked.arms)
    if not alone:
        return [said]
    arms = counted(alone, "setting", "rests")
    return [said, f"{arms} on one finished seed."]

"""Seeds that are added after looks at the results, with no more wrong findings than a fixed number of seeds gives.

At each look, each arm is compared with the best one by the interval of Student's t of the differences of equal seeds. A
t interval of 95 % would be wrong too often: there are many looks and pairs, and the data choose the best arm. So the
5 % are divided (Bonferroni): among the looks, n seeds of a cap having spent the share (n / cap)^2 (a spending function
of Lan and DeMets, Biometrika 70, 1983, in the form of Kim and DeMets, Biometrika 74, 1987), and among all pairs of
arms. Whatever arms the data choose and whenever they stop, all intervals of all looks hold together in at least 95 % of
sweeps, if the differences of two arms are independent among seeds and normal. Arms may scatter differently.

From the same intervals follow both decisions. An arm is worse than the best if its interval is above 0. A difference
is ruled out if the interval is inside of it on both sides, as two one-sided tests would say (Schuirmann, Journal of
Pharmacokinetics and Biopharmaceutics 15, 1987).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lmexp.analysis.columns import setting_in_words
from lmexp.analysis.effects.noise import LEVEL
from lmexp.analysis.effects.pairing import axis_values, comparable_runs
from lmexp.analysis.quantiles import student
from lmexp.analysis.table import Study
from lmexp.runs.columns import column, higher_is_better
from lmexp.runs.manifest import LookRule
from lmexp.runs.state import RESULTS
from lmexp.units import counted

START = 3
"""Seeds of each arm at the first look."""

Results = Mapping[int, float | None]
"""The quality of each seed of an arm whose run has ended; None if it ended without one, as a diverged run does."""


@dataclass(frozen=True)
class Gap:
    """How much worse an arm is than the best, in the unit of the quality: an interval at the level of the look."""

    arm: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Look:
    """What one look shows."""

    seeds: int
    """Seeds of each arm that still got some."""
    best: str
    """The arm with the best mean."""
    worse: tuple[Gap, ...]
    """Arms that this look shows to be worse than the best; they get no more seeds."""
    tied: tuple[Gap, ...]
    """Arms that cannot be told apart from the best."""
    lost: tuple[str, ...]
    """Arms with fewer than two results; they get no more seeds."""
    ruled_out: bool
    """Whether no tied arm differs from the best by the difference or more."""
    is_last: bool
    """Whether no seed follows."""
    runs: tuple[frozenset[str], ...] = ()
    """The run ids of each arm that gets another seed, or would if the look were not the last; of a study alone."""

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that may still be the best."""
        return (self.best, *(gap.arm for gap in self.tied))


def looks(arms: Mapping[str, Results], rule: LookRule, higher: bool) -> list[Look]:
    """Return the looks that results allow, in order; they follow from the results alone.

    A look is made as soon as every arm that still gets seeds has its runs ended.

    Args:
        arms: the results of each arm by seed 0, 1, ...
        rule: the difference that matters, and the most seeds.
        higher: whether a higher quality is better.
    """
    made: list[Look] = []
    pairs = math.comb(len(arms), 2)
    remaining = list(arms)
    for n in range(START, rule.cap + 1):
        if any(seed not in arms[arm] for arm in remaining for seed in range(n)):
            break
        known = {arm: _known(arms[arm], n) for arm in remaining}
        lost = tuple(arm for arm in remaining if len(known[arm]) < 2)
        ranked = [arm for arm in remaining if arm not in lost]
        if not ranked:
            break
        sign = -1 if higher else 1
        best = min(ranked, key=lambda arm: sign * float(np.mean(list(known[arm].values()))))
        level = level_of_look(n, rule.cap) / pairs
        gaps = [_gap(arm, known[arm], known[best], sign, level) for arm in ranked if arm != best]
        worse, tied = tuple(gap for gap in gaps if gap.low > 0), tuple(gap for gap in gaps if gap.low <= 0)
        ruled_out = all(-rule.difference < gap.low and gap.high < rule.difference for gap in tied)
        made.append(Look(n, best, worse, tied, lost, ruled_out, ruled_out or n == rule.cap))
        remaining = list(made[-1].arms)
        if made[-1].is_last:
            break
    return made


def looks_of(study: Study, rule: LookRule) -> list[Look]:
    """Return the looks that the runs of one sweep allow."""
    arms: dict[str, dict[int, float | None]] = {}
    ids: dict[str, set[str]] = {}
    names = arm_names(study)
    values = dict(zip(*(comparable_runs(study, rule.quality)[c] for c in ("run_id", rule.quality)), strict=True))
    runs = study.table.drop_duplicates("run_id", keep="last")
    for run_id, seed, state, arm in zip(runs["run_id"], runs["seed"], runs["state"], names[runs.index], strict=True):
        ids.setdefault(arm, set()).add(run_id)
        of_arm = arms.setdefault(arm, {})
        if state in RESULTS:
            of_arm[int(seed)] = float(values[run_id]) if run_id in values else None
    made = looks(arms, rule, higher_is_better(rule.quality))
    return [replace(look, runs=tuple(frozenset(ids[arm]) for arm in look.arms)) for look in made]


def arm_names(study: Study) -> pd.Series:
    """Return for each row what its arm is called: its values of all axes but the seed."""
    axes = [axis for axis, values in study.axes.items() if axis != "seed" and len(values) > 1]
    words = [
        setting_in_words(axes, row) for row in zip(*(axis_values(study.table[axis]) for axis in axes), strict=True)
    ]
    return pd.Series(words, index=study.table.index)


def look_in_words(look: Look, rule: LookRule) -> str:
    """Return what a look shows and what follows from it, as sentences."""
    title = column(rule.quality).title
    said = [f"Look at {look.seeds} seeds: {look.best} has the best mean {title}"]
    said += [f"{_size(gap)}: worse, and gets no more seeds" for gap in look.worse]
    said += [f"{_size(gap)}: not told apart" for gap in look.tied]
    said += [f"{arm} has fewer than two results, and gets no more seeds" for arm in look.lost]
    if not look.tied:
        then = "No other arm is left, so it leads"
    elif look.ruled_out:
        then = f"A difference of {rule.difference:g} or more is ruled out between it and the arms that are left"
    elif look.is_last:
        then = f"The cap of {rule.cap} seeds is reached, and a difference of {rule.difference:g} is not ruled out"
    else:
        then = f"{counted(len(look.arms), 'arm', 'gets')} another seed"
    return f"{'; '.join(said)}. {then}."


def _size(gap: Gap) -> str:
    if not math.isfinite(gap.low):
        return f"{gap.arm} (fewer than two seeds in common with it)"
    return f"{gap.arm} behind by {gap.mean:.4g} ({gap.low:.4g} to {gap.high:.4g})"


def about_looks(study: Study, quality: str) -> list[str]:
    """Return what was decided while seeds were added, as sentences; of a part of a sweep, where to find that."""
    (rule, *others), whole = study.looks, set(study.table["run_id"]) == set().union(*study.members.values())
    if others or len(study.members) > 1 or rule.quality != quality or not whole:
        return [
            f"Seeds were added after looks at the {column(rule.quality).title}: tests and intervals here are not "
            "corrected for that. The report of the whole sweep by this quality has the result of the looks."
        ]
    return result_in_words(study, looks_of(study, rule), rule)


def result_in_words(study: Study, made: Sequence[Look], rule: LookRule) -> list[str]:
    """Return what all looks together show, as sentences."""
    runs = study.table["run_id"].nunique()
    level = (
        f"Seeds were added after looks at the {column(rule.quality).title} ({runs} runs, at most {rule.cap} seeds an "
        "arm). All intervals of all looks together hold at 95 %. No other test in this report is corrected for looks."
    )
    if not made:
        return [f"No look yet. {level}"]
    worse = [gap.arm for look in made for gap in look.worse]
    told = f" Worse than the best, in this look or an earlier one: {'; '.join(worse)}." if worse else ""
    return [look_in_words(made[-1], rule) + told, level]


def level_of_look(seeds: int, cap: int) -> float:
    """Return what the look at this many seeds may spend of the 5 %; over all looks it adds up to them."""
    before = 0 if seeds == START else seeds - 1
    return LEVEL * (seeds**2 - before**2) / cap**2


def _known(results: Results, seeds: int) -> dict[int, float]:
    return {seed: value for seed, value in results.items() if seed < seeds and value is not None}


def _gap(arm: str, of_arm: Mapping[int, float], of_best: Mapping[int, float], sign: int, level: float) -> Gap:
    changes = np.array([sign * (value - of_best[seed]) for seed, value in of_arm.items() if seed in of_best])
    if len(changes) < 2:
        return Gap(arm, float(changes.mean()) if len(changes) else math.nan, -math.inf, math.inf)
    mean, n = float(changes.mean()), len(changes)
    half = float(student(n - 1, 1 - level)) * float(changes.std(ddof=1)) / math.sqrt(n)
    return Gap(arm, mean, mean - half, mean + half)

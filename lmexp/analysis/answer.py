"""The answer to the question of a study, in a few sentences that its design determines.

- A grid of sizes and tokens, or of sizes at several amounts of compute, is answered by a law: the best size for the
  compute, its loss, and what ten times the compute would give (scaling/answers.py, as `lmexp fit` prints them). Sizes
  at too few amounts of compute for a law are answered by the best size for each amount.
- A search is answered by its best run, the runs that are tied with it and, with several objectives, by the ends of
  their frontier. If trials were stopped early, it says whether that was for a difference that may be noise.
- Anything else is answered by the best setting, the settings that cannot be told apart from it, and the largest
  effects; of two arms, also by the compute that one needs for the quality of the other.

Where settings are ranked and none has two finished seeds, the third sentence, or the last one if there are fewer, says
that it is unknown which differences are noise, and what it takes to find out. The terminal, the page, the JSON document
and Python have the sentences in this order.

An answer keeps what it rests on, so that the chart beside it (report/charts/lead.py) shows the same numbers.
"""

import pickle
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

import numpy as np
import pandas as pd

from lmexp.analysis.best import about_ties, headline
from lmexp.analysis.columns import in_words
from lmexp.analysis.effects.effects import Effects
from lmexp.analysis.effects.looks import about_looks
from lmexp.analysis.effects.more_seeds import about_unknown_noise
from lmexp.analysis.effects.ranking import Ranking
from lmexp.analysis.effects.rungs import about_rungs
from lmexp.analysis.effects.sentences import effect_in_words
from lmexp.analysis.frontier import frontier, is_done, numbers
from lmexp.analysis.scaling.answers import Answer as Fitted
from lmexp.analysis.scaling.answers import answer as fitted_answer
from lmexp.analysis.scaling.approaches import EqualCompute, equal_compute
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.readers import points_of_study
from lmexp.analysis.scaling.words import about_budgets, about_compute
from lmexp.analysis.table import Study, final_rows, name_at
from lmexp.analysis.versus.arms import arms_by_words
from lmexp.analysis.versus.versus import Versus, versus
from lmexp.analysis.versus.versus import in_words as speedup_in_words
from lmexp.errors import UserError
from lmexp.runs.columns import column, higher_is_better

SAME_SIZE = 1.5
"""Models whose parameters differ by a smaller factor than this are shapes of one size, so no size is the best."""
MAX_SENTENCES = 5
"""An answer has no more sentences than this; the findings have the rest."""
MAX_FIRST = 3
"""Sentences of the answer that a reader of the page sees first."""


class Design(StrEnum):
    """What kind of question a study's cells can answer."""

    ISOFLOP = "isoFLOP"
    """Sizes at equal amounts of compute."""
    LAW = "law"
    """Sizes and tokens, enough of them for a law."""
    SEARCH = "search"
    ARMS = "arms"
    """Arms whose runs say how much less compute one needs for the quality of another."""
    EFFECTS = "effects"
    """Axes with at least one pair of runs that differ in one axis alone."""
    RUNS = "runs"
    """Anything else, such as a single run."""


OF_COMPUTE = (Design.ISOFLOP, Design.LAW)
"""Designs whose axes are sizes and budgets, so that the effect of one value of them answers nothing."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to a study's question."""

    design: Design
    sentences: tuple[str, ...]
    """At most MAX_SENTENCES, the most important first."""
    unknown_noise: str | None = None
    """The sentence which says that it is unknown which differences are noise."""
    points: Points | None = None
    """The runs of the designs OF_COMPUTE."""
    law: Fitted | None = None
    """Their fit; None if they are not enough for one."""
    budgets: tuple[EqualCompute, ...] = ()
    """The amounts of compute of an isoFLOP study."""
    speedups: Versus | None = None
    """The arms against the first of them, in training FLOPs."""


def answer(study: Study, quality: str, cost: str, ranked: Ranking | None, effects: Effects) -> Answer:
    """Return the answer of a study whose rows can be ranked together.

    `ranked` are its arms if seeds are repeated, `effects` those of its axes. Raises UserError for a quality or a cost
    that is not a numeric column.
    """
    by_compute = _by_compute(study, quality)
    best = headline(study, quality, cost, ranked)
    noise = [] if ranked else about_unknown_noise(study, quality, cost)
    if by_compute is not None:
        said = _about_compute(by_compute)
        if by_compute.law:
            return replace(by_compute, sentences=tuple(said[:MAX_SENTENCES]))
        return replace(by_compute, sentences=_ordered([*said, best], noise), unknown_noise=next(iter(noise), None))
    unknown = next(iter(noise), None)
    if study.objectives:
        ties = about_ties(ranked, quality, cost) if ranked else []
        rungs = about_rungs(study, quality, ranked.noise if ranked else None)
        said = [best, *ties, *_about_objectives(study), *rungs]
        return Answer(Design.SEARCH, _ordered(said, noise), unknown)
    speedups = _speedups(study, quality)
    said = [best, *_about_two_arms(speedups)]
    if study.looks:
        said += about_looks(study, quality)
    elif ranked:
        said += about_ties(ranked, quality, cost)
    said += _largest_effects(effects, quality, cost, is_judged=not study.looks)
    design = Design.ARMS if speedups else Design.EFFECTS if any(effects.values()) else Design.RUNS
    return Answer(design, _ordered(said, noise), unknown, speedups=speedups)


def _about_compute(of: Answer) -> list[str]:
    """Return the best size at the amounts of compute that were run, and what the law says beyond them."""
    if of.law:
        return about_compute(of.law, of.budgets[-1] if of.budgets else None)
    return about_budgets(of.points, of.budgets) if of.points else []


def _ordered(said: list[str], noise: list[str]) -> tuple[str, ...]:
    """Return the sentences of an answer: what was found comes before the sentence that the noise is unknown.

    That sentence is among the first MAX_FIRST, so that no reader misses it.
    """
    before = MAX_FIRST - len(noise)
    return (*said[:before], *noise, *said[before:])[:MAX_SENTENCES]


def _by_compute(study: Study, quality: str) -> Answer | None:
    """Return the runs of a study of sizes and budgets alone with what they give; None for another design.

    In such a study, parameters and tokens say all that varies: no two runs of one seed agree in both. Axes that are
    texts, such as kinds of positions, are no sizes, and neither are depths and widths of one size. It is an isoFLOP
    study if FLOPs are the only budget that varies, or if no budget does and all rows have compute in common with
    others, as milestones of a budget in FLOPs do.
    """
    rows = final_rows(study.table)
    if quality != study.default_quality or study.objectives or len(rows) < 2:
        return None
    axes = [axis for axis in study.varied if axis not in ("seed", "model")]
    alike = ["family", "precision", "task"]
    if not all(pd.api.types.is_numeric_dtype(rows[axis]) for axis in axes) or (rows[alike].nunique() > 1).any():
        return None
    if rows.duplicated(["n_params", "tokens", "seed"]).any():
        return None
    if rows["n_params"].nunique() > 1 and rows["n_params"].max() < SAME_SIZE * rows["n_params"].min():
        return None
    try:
        points = points_of_study(study)
    except UserError:
        return None
    law = _law(points)
    points = law.points if law else points
    budgets = equal_compute(points) if points.has_sizes else ()
    varied = {axis for axis in axes if axis.startswith("budget.")}
    in_budgets = sum(len(budget.members) for budget in budgets)
    if budgets and (varied == {"budget.flops"} or (not varied and in_budgets == len(points))):
        return Answer(Design.ISOFLOP, (), points=points, law=law, budgets=budgets)
    return Answer(Design.LAW, (), points=points, law=law) if law else None


def _law(points: Points) -> Fitted | None:
    """Return the fitted laws; None if no law can be fitted."""
    try:
        return _fitted(_Hashed(points))
    except UserError:
        return None


class _Hashed:
    """Points that compare by their content, so that the terminal, the page and a page that is served fit them once."""

    def __init__(self, points: Points) -> None:
        self.points = points
        self._content = pickle.dumps(points)

    def __hash__(self) -> int:
        return hash(self._content)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and self._content == other._content


@lru_cache(maxsize=8)
def _fitted(points: _Hashed) -> Fitted:
    return fitted_answer(points.points)


def _largest_effects(effects: Effects, quality: str, cost: str, is_judged: bool) -> list[str]:
    """Return the largest effect of each axis in words; first those that are more than noise, the largest first."""
    largest = [max(of_axis, key=lambda effect: abs(effect.mean)) for of_axis in effects.values() if of_axis]
    largest.sort(key=lambda effect: (bool(effect.is_within_noise), -abs(effect.mean)))
    return [effect_in_words(effect, quality, cost, is_judged) for effect in largest]


def _speedups(study: Study, quality: str) -> Versus | None:
    """Return how much less compute arms need for equal quality (versus/versus.py); None if the runs do not say it.

    Arms are the values of the only axis, or of the only axis of texts beside axes of numbers. Each must have a speedup
    over all cells that both it and the first one have.
    """
    axes = [axis for axis in study.varied if axis != "seed"]
    texts = [axis for axis in axes if not pd.api.types.is_numeric_dtype(study.table[axis])]
    (axis, *others) = texts or axes or [""]
    if others or not axis or study.table[axis].nunique() < 2 or not (texts or len(axes) == 1):
        return None
    try:
        compared = versus(study, arms_by_words(study, [axis]), quality, ["flops"])
    except UserError:
        return None
    costs = [arm.costs.get("flops") for arm in compared.arms]
    known = [one is not None and one.overall.value is not None and not one.unknown for one in costs]
    return compared if known and all(known) else None


def _about_two_arms(compared: Versus | None) -> list[str]:
    """Return how much less compute one of two arms needs for the quality of the other."""
    if compared is None or len(compared.arms) != 1:
        return []
    (arm,) = compared.arms
    one = arm.costs["flops"]
    return [speedup_in_words(one.overall, compared.baseline, arm.arm, one.cost, compared.confidence)]


def _about_objectives(study: Study) -> list[str]:
    """Return what the frontier of a search with several objectives reaches from; nothing for one objective."""
    if len(study.objectives) < 2:
        return []
    table, (first, *others) = study.table, study.objectives
    on = np.flatnonzero(frontier(table, first, others))
    if len(on) < 2:
        return []
    values = numbers(table, first)[on]
    ends = on[[int(np.argmin(values)), int(np.argmax(values))]]
    ends = ends[::-1] if higher_is_better(first) else ends

    def said(at: int) -> str:
        values = [in_words(name, numbers(table, name)[at]) for name in study.objectives]
        return f"{name_at(table, at)} ({', '.join(values)})"

    titles = " and ".join(column(name).title for name in study.objectives)
    return [
        f"{len(on)} of {int(is_done(table).sum())} finished runs are on the frontier of {titles}, "
        f"from {said(int(ends[0]))} to {said(int(ends[1]))}."
    ]

"""The findings of a study as sentences that claim no more than its rows show.

First comes the answer (answer.py), a few sentences that the design determines. Then comes the rest: the effect of
each axis (effects/effects.py), with an interval if there is one, what the seeds say about noise, and what does not
compare, did not finish or was measured beside other work.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lmexp.analysis.answer import MAX_FIRST, OF_COMPUTE, Answer, answer
from lmexp.analysis.best import best_at, headline, nearly_as_good
from lmexp.analysis.columns import format_number, in_words
from lmexp.analysis.comparable import crowded, mixtures
from lmexp.analysis.effects.effects import all_effects
from lmexp.analysis.effects.more_seeds import without_commands
from lmexp.analysis.effects.pairing import comparable_runs
from lmexp.analysis.effects.ranking import ranking
from lmexp.analysis.effects.rungs import about_rungs
from lmexp.analysis.effects.sentences import about_axes, about_seeds
from lmexp.analysis.floor import shared_floor
from lmexp.analysis.frontier import is_done, numbers
from lmexp.analysis.phrases import size_text
from lmexp.analysis.rankable import obstacles
from lmexp.analysis.table import Study, name_at
from lmexp.runs.columns import column
from lmexp.runs.origin import THEN
from lmexp.units import counted, listed

PENDING = ("queued", "running")


@dataclass(frozen=True)
class Findings:
    """What a study says."""

    answer: tuple[str, ...]
    """The answer to its question; if rows cannot be ranked together, why, and an answer of each part by its name."""
    rest: tuple[str, ...]
    basis: Answer | None = field(default=None, compare=False)
    """What the answer rests on; None if rows cannot be ranked together, because each part has an answer of its own."""

    of_parts: tuple[str, ...] = ()
    """The first sentence of the answer of each part; before them, why the rows cannot be ranked together, if there is a
    reason to give. Empty if all rows can be ranked together."""

    @property
    def first(self) -> tuple[str, ...]:
        """The sentences of the answer to read first, at most MAX_FIRST.

        The one that the noise is unknown leaves out the commands that measure it, which stand in `answer`.
        """
        if self.of_parts:
            return self.of_parts[:MAX_FIRST]
        unknown = self.basis.unknown_noise if self.basis else None
        first = self.answer[:MAX_FIRST]
        return tuple(without_commands(sentence) if sentence == unknown else sentence for sentence in first)

    @property
    def sentences(self) -> list[str]:
        """All sentences, the answer first."""
        return [*self.answer, *self.rest]


def findings(study: Study, quality: str = "loss", cost: str = "train_seconds") -> Findings:
    """Return the findings of a study.

    If rows cannot be ranked together (rankable.py), the first sentences say why, and each part of the study has
    sentences that start with its name. Raises UserError for a quality or a cost that is not a numeric column.
    """
    answered = obstacles(study.table[is_done(study.table)], quality)
    heads = list(answered)
    rest: list[str] = []
    parts = study.rankable(quality)
    for name, part in parts.items():
        prefix = f"{name}: " if len(parts) > 1 else ""
        of_part = _of_one_part(part, quality, cost)
        answered += [prefix + sentence for sentence in of_part.answer]
        heads += [prefix + sentence for sentence in of_part.first[:1]]
        rest += [prefix + sentence for sentence in of_part.rest]
    rest += _about_the_rest(study)
    if len(parts) == 1:
        return Findings(tuple(answered), tuple(rest), of_part.basis)
    return Findings(tuple(answered), tuple(rest), of_parts=tuple(heads))


def _of_one_part(study: Study, quality: str, cost: str) -> Findings:
    ranked = ranking(study, quality, cost)
    runs = comparable_runs(study, quality)
    effects = all_effects(study, quality, cost) if any(axis != "seed" for axis in study.varied) else {}
    answered = answer(study, quality, cost, ranked, effects)
    is_of_compute = answered.design in OF_COMPUTE
    rest = [headline(study, quality, cost, ranked)] if is_of_compute else []
    rest += _about_tokenizers(study, quality)
    rest += nearly_as_good(study, quality, cost)
    rest += about_rungs(study, quality, ranked.noise if ranked else None)
    if not is_of_compute:
        rest += about_axes(study, runs, effects, quality, cost)
    if ranked:
        rest += about_seeds(ranked, quality, is_fixed=not study.looks)
    rest += _about_baselines(study.table)
    rest += _about_floor(study.table, quality)
    rest += _about_unknown(study.table, quality) + _about_peaks(study.table)
    rest = [sentence for sentence in rest if sentence not in answered.sentences]
    return Findings(answered.sentences, tuple(rest), answered)


def _about_code(table: pd.DataFrame) -> list[str]:
    """Return a sentence that names the runs which were resumed under other code than they began with."""
    changed = table["trained_by"].astype("string").str.contains(THEN, regex=False).fillna(False)
    names = list(table["slug"][changed].astype(str).drop_duplicates())
    if not names:
        return []
    return [
        f"Resumed under other code or packages than at the start: {listed(names)}. Perhaps no single version of the "
        "code reproduces these results (column trained_by)."
    ]


def _about_tokenizers(study: Study, quality: str) -> list[str]:
    """Say why rows of several tokenizers are ranked by bits per byte."""
    if quality != "bits_per_byte" or study.has_one_tokenizer:
        return []
    return ["The runs cut text into different tokens: losses per token do not compare."]


def _about_baselines(table: pd.DataFrame) -> list[str]:
    """Name the classifiers that are no better than a guess without a model: the commonest label, a bag of words."""
    sentences = []
    for name in ("majority_accuracy", "bag_of_words_accuracy"):
        if name not in table:
            continue
        baseline = numbers(table, name)
        accuracy = numbers(table, "accuracy")
        known = int((is_done(table) & np.isfinite(accuracy) & np.isfinite(baseline)).sum())
        lost = np.flatnonzero(is_done(table) & (accuracy <= baseline))  # NaN is not
        if len(lost):
            value = format_number(float(baseline[lost].max()), column(name).format)
            if len(lost) == known > 1:
                which = f"None of the {known} runs beats"
            else:
                does = "does" if len(lost) == 1 else f"({len(lost)} of {known}) do"
                which = f"{listed([name_at(table, int(at)) for at in lost])} {does} not beat"
            sentences.append(f"{which} the {column(name).title}, {value}.")
    return sentences


def _about_floor(table: pd.DataFrame, quality: str) -> list[str]:
    """Say how far the best row is above what no model can beat, if all rows have one floor."""
    at, floor = best_at(table, quality, "train_flops"), shared_floor(table, quality)
    if at is None or floor is None:
        return []
    gap = float(numbers(table, quality)[at]) - floor
    side = "above it" if gap >= 0 else "below it, by chance, since the text is finite"
    return [
        f"No model can be expected to beat a {column(quality).title} of {in_words(quality, floor)} on this text: "
        f"{name_at(table, at)} is {size_text(quality, abs(gap))} {side}."
    ]


def _about_unknown(table: pd.DataFrame, quality: str) -> list[str]:
    """Say how many finished rows lack the quality, if others have it."""
    known = np.isfinite(numbers(table, quality))[is_done(table)]
    missing = int((~known).sum())
    if not missing or not known.any():
        return []
    rows = counted(missing, "finished row", "has")
    return [f"{rows} no finite {column(quality).title} and cannot be compared."]


def _about_peaks(table: pd.DataFrame) -> list[str]:
    """Warn about an MFU above 1, which is impossible."""
    above = int((numbers(table, "mfu") > 1).sum())
    if not above:
        return []
    runs = counted(above, "run", "has")
    return [f"{runs} an MFU above 1: the peak that it is compared with is too low."]


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
        rows, they = counted(beside, "row", "was"), "it" if beside == 1 else "they"
        sentences.append(f"{rows} measured while other work was on the device: alone {they} would be faster.")
    states = study.table.drop_duplicates("run_id")["state"]
    total, count = len(states), Counter(states)
    ended = {state: n for state, n in count.items() if state != "done" and state not in PENDING}
    pending = {state: count[state] for state in PENDING if count[state]}
    if ended:
        sentences.append(f"{sum(ended.values())} of {total} runs did not finish: {_tally(ended)}.")
    if pending:
        left = sum(pending.values())
        sentences.append(f"{counted(left, 'run', 'is', of=total)} still to come: {_tally(pending)}.")
    if study.skipped:
        sentences.append(f"{counted(len(study.skipped), 'cell', 'was')} skipped before the start.")
    return sentences


def _tally(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {state}" for state, n in counts.items())

"""Compare arms of studies: read the folders, name the arms, compute the speedups, and judge them by a gate."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from lmexp.analysis.effects.sentences import change_in_words
from lmexp.analysis.table import load_study
from lmexp.analysis.versus.arms import arms_by_sweep, arms_by_words, with_baseline
from lmexp.analysis.versus.gate import Gate, Judgement, judge
from lmexp.analysis.versus.versus import CONFIDENCE, ArmVersus, CostVersus, Versus, in_words, versus
from lmexp.errors import UserError


@dataclass(frozen=True)
class VersusReport:
    """A comparison, and what a gate says of it."""

    result: Versus
    judgement: Judgement | None
    """None without a gate."""

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row for each arm, cost and scale: `speedup` with its interval from `low` to `high`, `raw`, `n`, `why`."""
        return self.result.table

    @property
    def passes(self) -> bool:
        """Whether the gate is passed; always true without one."""
        return self.judgement is None or self.judgement.verdict == "pass"

    @cached_property
    def sentences(self) -> list[str]:
        """What each arm saves of the first cost, or of the gate's, and how its quality differs in the same cells."""
        result = self.result
        sentences = []
        for arm in result.arms:
            one = first_cost(arm, None if self.judgement is None else self.judgement.gate)
            said = in_words(one.overall, result.baseline, arm.arm, one.cost, result.confidence)
            if arm.effect is not None:
                change = change_in_words(arm.effect, result.quality)
                said += f" In the cells that both have run, {arm.arm} against {result.baseline}: {change}."
            sentences.append(said)
        return sentences


def first_cost(arm: ArmVersus, gate: Gate | None) -> CostVersus:
    """Return the cost of an arm that comes first, or the gate's."""
    return arm.costs[gate.cost] if gate and gate.cost in arm.costs else next(iter(arm.costs.values()))


def compare(
    folders: Sequence[Path],
    arms: Sequence[str] = (),
    baseline: str | None = None,
    quality: str | None = None,
    costs: Sequence[str] = (),
    scale: str | None = None,
    best: str | None = None,
    where: str | None = None,
    all_runs: bool = False,
    confidence: float | None = None,
    gate: Gate | None = None,
) -> VersusReport:
    """Compare arms of sweeps, or the sweeps themselves if `arms` is empty.

    The options are those of `lmexp versus`. Raises UserError for wrong input.
    """
    if gate is not None and confidence is not None:
        raise UserError("the gate says the confidence of its interval: leave out --confidence")
    study = load_study(list(folders), all_runs)
    if where is not None:
        study = study.kept(where)
    named = arms_by_words(study, arms) if arms else arms_by_sweep(study)
    level = gate.confidence if gate else CONFIDENCE if confidence is None else confidence
    wanted = list(costs)
    if gate is not None and costs and gate.cost not in costs:
        wanted.append(gate.cost)
    result = versus(study, with_baseline(named, baseline), quality, wanted, scale, best, level)
    return VersusReport(result, None if gate is None else judge(gate, result))

"""The effective speedup of arms against a baseline: how many times less each cost is for the same quality.

    a speedup of 1.3 in FLOPs: the baseline needs 1.3 times the FLOPs of the arm for the same quality

Where both arms have run the same cells, pairs of runs give it (paired.py), and a law through the baseline's points
where they share none (by_law.py). Each cost is compared in each scale, and over all scales by the geometric mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.columns import axis_headings
from lmexp.analysis.comparable import slowed
from lmexp.analysis.effects.effects import Effect
from lmexp.analysis.effects.noise import POWER, seeds_needed
from lmexp.analysis.frontier import is_done, numbers
from lmexp.analysis.rankable import obstacles, rank_groups
from lmexp.analysis.table import Study
from lmexp.analysis.versus.arms import Arm
from lmexp.analysis.versus.by_law import ByLaw
from lmexp.analysis.versus.paired import Estimate, Paired
from lmexp.analysis.versus.rows import Key, Rows, rows_of
from lmexp.errors import UserError, nearest
from lmexp.runs.columns import DEVICE_BOUND, column

COSTS = {
    "flops": "train_flops",
    "seconds": "train_seconds",
    "dollars": "dollars",
    "kwh": "energy_kwh",
    "tokens": "tokens",
}
"""Short names of the costs that are compared by default, and their columns."""
CONFIDENCE = 0.95
OVERALL = "overall"
"""The name of the geometric mean over all scales."""


@dataclass(frozen=True)
class Speedup:
    """One speedup with its interval."""

    scale: str
    """What the runs have in common, as `d_model 64`, or `overall`."""
    value: float | None
    """(cost of the baseline) / (cost of the arm) at equal quality; None if the runs do not say."""
    low: float | None
    high: float | None
    """Ends of the interval; None if there is none."""
    raw: float | None
    """(cost of a token of the baseline) / (cost of a token of the arm): for seconds, the ratio of tokens per second."""
    n: int
    """Pairs of runs, or runs of the arm."""
    method: str
    """`pairs`, `pairs by law`, or `law` if the arms share no cell."""
    why: str | None = None
    """Why the value or its interval is unknown, and which runs would tell."""
    log_sd: float | None = None
    """Standard deviation of ln of one pair's speedup."""

    def pairs_to_show(self, speedup: float) -> int | None:
        """Return how many pairs would tell this speedup from another one in 80 % of all cases.

        None if that is unknown, or if there are as many already.
        """
        if self.value is None or not self.log_sd or self.value == speedup:
            return None
        pairs = seeds_needed(math.log(self.value / speedup), self.log_sd, paired=True)
        return pairs if pairs is not None and pairs > self.n else None


@dataclass(frozen=True)
class CostVersus:
    """One cost of an arm against the baseline."""

    cost: str
    """The column."""
    overall: Speedup
    scales: tuple[Speedup, ...]
    unknown: int
    """Cells without a speedup, which `overall` leaves out; so it may be on one side of what all cells would give."""
    is_slowed: bool
    """Whether the cost depends on the speed of a device that other work slowed down."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ArmVersus:
    """One arm against the baseline."""

    arm: str
    costs: dict[str, CostVersus]
    """By short name, or by column."""
    left_out: dict[str, str]
    """Costs that are not compared, with the reason."""
    effect: Effect | None
    """The change of the quality from the baseline to the arm, in pairs of runs; None if they share no cell and seed."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Versus:
    """Arms of a study against a baseline."""

    study: str
    baseline: str
    quality: str
    confidence: float
    arms: tuple[ArmVersus, ...]
    notes: tuple[str, ...]

    @property
    def table(self) -> pd.DataFrame:
        """One row for each arm, cost and scale; `overall` is the geometric mean over the scales."""
        rows = [
            {
                "arm": arm.arm,
                "baseline": self.baseline,
                "quality": self.quality,
                "cost": one.cost,
                "scale": speedup.scale,
                "speedup": speedup.value,
                "low": speedup.low,
                "high": speedup.high,
                "raw": speedup.raw,
                "n": speedup.n,
                "method": speedup.method,
                "slowed": one.is_slowed,
                "why": speedup.why,
            }
            for arm in self.arms
            for one in arm.costs.values()
            for speedup in (one.overall, *one.scales)
        ]
        frame = pd.DataFrame(rows)
        numeric = ["speedup", "low", "high", "raw"]
        frame[numeric] = frame[numeric].astype("Float64")
        return frame

    @property
    def document(self) -> dict[str, Any]:
        """The same for other programs."""
        return {
            "study": self.study,
            "baseline": self.baseline,
            "quality": self.quality,
            "confidence": self.confidence,
            "arms": [
                {
                    "arm": arm.arm,
                    "costs": {
                        name: {
                            "column": one.cost,
                            "slowed": one.is_slowed,
                            "overall": _speedup_document(one.overall),
                            "scales": [_speedup_document(speedup) for speedup in one.scales],
                            "notes": list(one.notes),
                        }
                        for name, one in arm.costs.items()
                    },
                    "left_out": arm.left_out,
                    "effect": _effect_document(arm.effect),
                    "notes": list(arm.notes),
                }
                for arm in self.arms
            ],
            "notes": list(self.notes),
        }


def _speedup_document(one: Speedup) -> dict[str, Any]:
    names = {"scale": one.scale, "speedup": one.value, "low": one.low, "high": one.high, "raw": one.raw}
    return names | {"n": one.n, "method": one.method, "why": one.why}


def _effect_document(effect: Effect | None) -> dict[str, Any] | None:
    return None if effect is None else {"mean": effect.mean, "half": effect.half, "pairs": len(effect.changes)}


def cost_column(name: str) -> str:
    """Return the column of a cost by its short name or its own. Raises UserError for another word."""
    if name in COSTS:
        return COSTS[name]
    known = list(dict.fromkeys([*COSTS, *COSTS.values(), "wall_seconds"]))
    if name not in known:
        raise UserError(f"'{name}' is no cost.{nearest(name, known)} Costs are {', '.join(known)}")
    return name


def versus(
    study: Study,
    arms: Sequence[Arm],
    quality: str | None = None,
    costs: Sequence[str] = (),
    scale: str | None = None,
    best: str | None = None,
    confidence: float = CONFIDENCE,
) -> Versus:
    """Compare arms with the first of them.

    Args:
        study: the runs.
        arms: the baseline, then the others; masks of the study's table.
        quality: a column [default: the loss, or bits per byte if tokenizers differ].
        costs: short names or columns [default: those of COSTS that the rows have].
        scale: an axis by whose values the speedup is given [default: each cell is a scale].
        best: an axis, such as the learning rate, of which each arm takes its best value in each cell.
        confidence: of the intervals.

    Raises UserError for a quality, cost or axis that does not exist, and for qualities that do not compare.
    """
    if not 0.5 <= confidence < 1:
        raise UserError(f"a confidence of {confidence:g}: give a share from 0.5 to less than 1, such as 0.95")
    marks = np.logical_or.reduce([arm.rows for arm in arms])
    study, arms = study.of_rows(marks), [Arm(arm.name, arm.rows[marks]) for arm in arms]
    quality = quality or study.default_quality
    for arm in arms:
        if not np.isfinite(numbers(study.table, quality)[arm.rows]).any():
            raise UserError(f"no run of {arm.name} has {quality}: choose another column with --quality")
    _check_axes(study, arms, scale=scale, best=best)
    _check_comparable(study, arms, quality)
    chosen = {name: cost_column(name) for name in costs or COSTS}
    against = tuple(
        _against(study, arms[0], arm, quality, chosen, bool(costs), scale, best, confidence) for arm in arms[1:]
    )
    return Versus(study.name, arms[0].name, quality, confidence, against, tuple(_notes(arms, best)))


def _check_axes(study: Study, arms: Sequence[Arm], **axes: str | None) -> None:
    """Raise UserError for an option that names no axis along which an arm varies."""
    known = [
        axis
        for axis in study.varied
        if axis != "seed" and any(study.table.loc[arm.rows, axis].nunique(dropna=False) > 1 for arm in arms)
    ]
    for option, axis in axes.items():
        if axis is not None and axis not in known:
            which = f"The axes are {', '.join(known)}" if known else "No setting but the seed varies within an arm"
            raise UserError(
                f"--{option} {axis}: this is no axis that varies within an arm.{nearest(axis, known)} {which}"
            )


def _check_comparable(study: Study, arms: Sequence[Arm], quality: str) -> None:
    """Raise UserError unless all rows may be ranked together by the quality."""
    if len(study.tasks) > 1:
        raise UserError(
            f"the arms have several tasks, {', '.join(study.tasks)}: choose one, --where \"task == '{study.tasks[0]}'\""
        )
    if reasons := obstacles(study.table[is_done(study.table)], quality):
        has_unit = quality == "loss" and "bits per byte do" in reasons[0]
        groups = rank_groups(study.table, quality)
        are_apart = not set.intersection(*(set(groups[arm.rows & is_done(study.table)]) for arm in arms))
        remedy = "Add --quality bits_per_byte." if has_unit else "" if are_apart else study.how_to_choose(quality)
        raise UserError(f"the arms do not compare by {quality}. {reasons[0]} {remedy}".rstrip())


def _notes(arms: Sequence[Arm], best: str | None) -> list[str]:
    said = []
    if any((arms[0].rows & arm.rows).any() for arm in arms[1:]):
        said.append("Some runs are in the baseline and in another arm at once.")
    if best is not None:
        said.append(
            f"Each arm has its best {best} in each cell. The intervals do not include the chance in that choice."
        )
    return said


def _against(
    study: Study,
    base: Arm,
    arm: Arm,
    quality: str,
    costs: dict[str, str],
    are_chosen: bool,
    scale: str | None,
    best: str | None,
    confidence: float,
) -> ArmVersus:
    """Compare one arm with the baseline in each cost."""
    compared: dict[str, CostVersus] = {}
    left_out: dict[str, str] = {}
    notes: dict[str, None] = {}
    effect: Effect | None = None
    for name, cost in costs.items():
        reason = _obstacle(study.table, base, arm, cost)
        if reason is not None:
            if are_chosen:
                raise UserError(f"{name} cannot be compared: {reason}")
            left_out[name] = reason
            continue
        rows = rows_of(study.table, study.varied, base.rows, arm.rows, quality, cost, best)
        if not all(of_arm.any() for of_arm in rows.arms):
            left_out[name] = "the runs of one arm are left out, because no axis tells them apart"
            continue
        if rows.ambiguous:
            notes[f"{rows.ambiguous} runs are left out: no axis or seed tells them from another run."] = None
        effect = effect or Paired(rows, cost, confidence, (base.name, arm.name)).effect()
        compared[name] = _compared(rows, cost, scale, confidence, (base.name, arm.name))
    if not compared:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UserError(f"{arm.name} and {base.name} have no cost that compares: {reasons}")
    return ArmVersus(arm.name, compared, left_out, effect, tuple(notes))


def _obstacle(table: pd.DataFrame, base: Arm, arm: Arm, cost: str) -> str | None:
    """Return why a cost of two arms does not compare, or None."""
    values = numbers(table, cost) if cost in table else np.full(len(table), np.nan)
    for one in (base, arm):
        if not (values[one.rows] > 0).any():
            return f"{one.name} has no {cost}"
    either = base.rows | arm.rows
    if cost in DEVICE_BOUND and table.loc[either, "device_name"].nunique() > 1:
        return f"the runs are on different devices, between which {cost} does not compare"
    if cost == "energy_kwh" and table.loc[either, "energy_source"].nunique() > 1:
        return "some kWh are counted and others estimated"
    return None


def _compared(rows: Rows, cost: str, scale: str | None, confidence: float, names: tuple[str, str]) -> CostVersus:
    paired = Paired(rows, cost, confidence, names)
    way: Paired | ByLaw = paired if paired.cells else ByLaw(rows, cost, confidence, names)
    scales = tuple(_speedup(way, cells, name) for name, cells in _scales(rows, way.cells, scale).items())
    known = [cell for cell in way.cells if way.estimate([cell]).value is not None]
    overall = _speedup(way, known or way.cells, OVERALL)
    notes = list(way.notes())
    unknown = len(way.cells) - len(known) if known else 0
    if unknown:
        notes.append(f"Overall is over {len(known)} of {len(way.cells)} cells: the others have no speedup.")
    is_slowed = bool(slowed(rows.table, cost).any())
    return CostVersus(cost, overall, scales, unknown, is_slowed, tuple(notes))


def _scales(rows: Rows, cells: Sequence[Key], scale: str | None) -> dict[str, list[Key]]:
    """Return the cells of each scale by its name."""
    headings = axis_headings(rows.axes)
    chosen = [scale] if scale in rows.axes else list(rows.axes)
    at = [rows.axes.index(axis) for axis in chosen]
    scales: dict[str, list[Key]] = {}
    for cell in cells:
        name = ", ".join(f"{headings[rows.axes[i]]} {_text(cell[i])}" for i in at)
        scales.setdefault(name or "all runs", []).append(cell)
    return scales


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _speedup(way: Paired | ByLaw, cells: Sequence[Key], name: str) -> Speedup:
    """Return the speedup over some cells."""
    estimate: Estimate = way.estimate(cells)
    value, half = estimate.value, estimate.half
    low, high = (None, None) if value is None or half is None else (_exp(value - half), _exp(value + half))
    method = "pairs by law" if estimate.by_law and isinstance(way, Paired) else way.method
    return Speedup(
        name,
        None if value is None else _exp(value),
        low,
        high,
        way.raw(cells),
        estimate.n,
        method,
        estimate.why,
        estimate.sd,
    )


def _exp(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(value))


def in_words(one: Speedup, baseline: str, arm: str, cost: str, confidence: float) -> str:
    """Return what a speedup says, as a sentence."""
    title = column(cost).title
    if one.value is None:
        return f"How much less {title} {arm} needs than {baseline} cannot be told. {one.why}"
    said = f"For equal quality, {arm} needs {1 / one.value:.3g} times the {title} of {baseline}"
    if one.low is None or one.high is None:
        return f"{said}. {one.why}"
    said += (
        f": a speedup of {one.value:.3g}, with a {100 * confidence:g} % interval from {one.low:.3g} to {one.high:.3g}"
    )
    if not one.low <= 1 <= one.high or one.low == one.high:
        return f"{said}."
    pairs = one.pairs_to_show(1.0)
    more = f" {pairs:,} pairs of runs would show this difference in {POWER:.0%} of all cases." if pairs else ""
    return f"{said}. The interval holds 1, so it does not show which of the two needs less.{more}"

"""The part of a sweep that fits under a spending cap: fewer cells, or all cells with shorter budgets.

Fewer cells: whole values of axes are dropped, never single cells, so the rest is crossed as before and every
comparison keeps both of its sides. Values are dropped in this order:

1. Seeds, the last first, down to two. A third seed only narrows an interval, but a value of an axis is a question.
2. Values of the other axes, down to two of each. If dropping one value is enough, the choice is the one that leaves the
   most cells and, among equals, the most work. Otherwise the value whose cells save the most per cell is dropped first,
   which is mostly the largest.
3. The second seed, and with it the noise floor.
4. Whole axes.

At the end, dropped values that fit again are restored. The dropped values are reported, because a law that is fitted to
a narrower range of sizes does not reach as far.

Shorter budgets: one factor for all cells. Every question stays, and each is answered for shorter runs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmexp.config.compose import Values
from lmexp.config.overrides import written
from lmexp.config.schema import DEFAULT_TOKENS, BudgetConfig
from lmexp.config.sweeps import SweepSpec
from lmexp.errors import UserError
from lmexp.runs.record import Row

MIN_SCALE = 0.1
"""Smallest factor that is proposed: a run on less than a tenth of its budget answers another question."""
SEED, MILESTONES = "seed", "budget.milestones"

Caps = dict[str, float]
"""Limits for all runs together: column of a plan -> limit in the column's unit."""
Level = tuple[str, Any]
"""An axis and one of its values."""


@dataclass(frozen=True)
class Cut:
    """A part of a sweep that fits."""

    kept: list[int]
    """Positions of the cells that stay."""
    dropped: list[Level]
    """The values of axes that were dropped."""


def caps_of(dollars: float | None, hours: float | None, flops: float | None) -> Caps:
    """Return the caps that were given. Raises UserError for a cap that is not a finite number above 0."""
    given = {"dollars": dollars, "hours": hours, "flops": flops}
    for name, value in given.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(f"--max-{name} {value:g}: a number above 0, as in --max-{name} 50")
    limits = {"dollars": dollars, "train_seconds": None if hours is None else 3600 * hours, "train_flops": flops}
    return {column: value for column, value in limits.items() if value is not None}


def check_known(name: str, rows: Sequence[Row], caps: Caps) -> None:
    """Raise UserError if a capped cost is not known for every run; the message says how to find it out."""
    for column in caps:
        unknown = sum(row[column] is None for row in rows)
        if not unknown:
            continue
        if column == "dollars" and all(row["train_seconds"] is not None for row in rows):
            raise UserError(
                "--max-dollars needs a price: set hardware.dollars_per_hour, or choose hardware that has one "
                "(`lmexp list hardware`)"
            )
        what = {"dollars": "price", "train_seconds": "time", "train_flops": "number of steps"}[column]
        raise UserError(
            f"the {what} of {unknown} of {len(rows)} runs is not known: `lmexp plan {name} --measure` "
            "trains a few steps of each shape to know it"
        )


def load(rows: Sequence[Row], caps: Caps) -> float:
    """Return the cost of rows as a share of the tightest cap; they fit if it is at most 1."""
    return max(math.fsum(row[column] for row in rows) / limit for column, limit in caps.items())


def cut(cells: Sequence[Values], rows: Sequence[Row], caps: Caps) -> Cut | None:
    """Return the part of a sweep that fits, by the rules at the top; None if not even the cheapest cell fits."""
    kept, dropped = list(range(len(cells))), list[Level]()
    while load([rows[i] for i in kept], caps) > 1:
        level = _next_to_go(cells, rows, caps, kept)
        if level is None:
            break
        dropped.append(level)
        kept = _without(cells, dropped)
    if load([rows[i] for i in kept], caps) > 1:
        cheapest = min(range(len(cells)), key=lambda i: load([rows[i]], caps))
        dropped = [level for level in _levels(cells, range(len(cells))) if not _matches(cells[cheapest], level)]
        kept = _without(cells, dropped)
        return Cut(kept, dropped) if load([rows[i] for i in kept], caps) <= 1 else None
    for level in list(reversed(dropped)):
        fewer = [other for other in dropped if other != level]
        more = _without(cells, fewer)
        if load([rows[i] for i in more], caps) <= 1:
            kept, dropped = more, fewer
    return Cut(kept, dropped)


def _next_to_go(cells: Sequence[Values], rows: Sequence[Row], caps: Caps, kept: list[int]) -> Level | None:
    """Return the value of an axis to drop next, or None if one cell is left."""
    levels = _levels(cells, kept)
    counts: dict[str, int] = {}
    for axis, _ in levels:
        counts[axis] = counts.get(axis, 0) + 1
    for floor in (2, 1):
        if counts.get(SEED, 0) > floor:
            return [level for level in levels if level[0] == SEED][-1]
        others = [level for level in levels if level[0] != SEED and counts[level[0]] > floor]
        if others:
            return max(others, key=lambda level: _merit(cells, rows, caps, kept, level))
    return None


def _merit(cells: Sequence[Values], rows: Sequence[Row], caps: Caps, kept: list[int],
           level: Level) -> tuple[bool, float, float]:  # fmt: skip
    """Return a sort key for dropping a value: whether the rest then fits, and after that the second rule at the top."""
    rest = [i for i in kept if not _matches(cells[i], level)]
    left = load([rows[i] for i in rest], caps) if rest else 0.0
    if rest and left <= 1:
        return True, len(rest), left
    saved = load([rows[i] for i in kept], caps) - left
    return False, saved / (len(kept) - len(rest)), 0.0


def _levels(cells: Sequence[Values], kept: Sequence[int]) -> list[Level]:
    """Return the distinct values that the kept cells have, for every axis with more than one value."""
    by_axis: dict[str, list[Any]] = {}
    for i in kept:
        for axis, value in cells[i].items():
            values = by_axis.setdefault(axis, [])
            if value not in values:
                values.append(value)
    return [(axis, value) for axis, values in by_axis.items() if len(values) > 1 for value in values]


def _without(cells: Sequence[Values], dropped: Sequence[Level]) -> list[int]:
    return [i for i, cell in enumerate(cells) if not any(_matches(cell, level) for level in dropped)]


def _matches(cell: Values, level: Level) -> bool:
    return level[0] in cell and bool(cell[level[0]] == level[1])


def exclusion(spec: SweepSpec, dropped: Sequence[Level]) -> str:
    """Return the override that excludes values of axes from a sweep, in addition to what the sweep excludes itself."""
    patterns: list[Values] = [*spec.exclude, *({axis: value} for axis, value in dropped)]
    return f"sweep.exclude={written(patterns)}"


def scaled_budget(spec: SweepSpec, axes: Mapping[str, list[Any]], budgets: Sequence[BudgetConfig],
                  factor: float) -> list[str] | None:  # fmt: skip
    """Return the overrides that multiply the budget of every cell by `factor`, rounded down.

    None if no overrides can: budgets that are zipped with other axes, listed point by point, or in several units, or
    whose milestones are tokens instead of shares.
    """
    if any(each > 1 for budget in budgets for each in budget.milestones or ()):
        return None
    swept = [axis for axis in axes if axis == "budget" or (axis.startswith("budget.") and axis != MILESTONES)]
    if swept:
        key = swept[0]
        of_points = any(axis in point for point in spec.points for axis in swept)
        if len(swept) > 1 or key == "budget" or key in spec.zip or of_points:
            return None
        return [f"{key}={','.join(_times(key, value, factor) for value in axes[key])}"]
    kinds = [budget.amount or {"tokens": DEFAULT_TOKENS} for budget in budgets]
    if any(kind != kinds[0] for kind in kinds):
        return None
    ((name, value),) = kinds[0].items()
    return [f"budget.{name}={_times(name, value, factor)}"]


def _times(key: str, value: float, factor: float) -> str:
    """Return a budget times a factor, rounded down to a whole token if it is in tokens, else to four digits."""
    scaled = value * factor
    if key.endswith("budget.tokens") or key == "tokens":
        return str(max(math.floor(scaled), 1))
    digit = 10.0 ** (math.floor(math.log10(scaled)) - 3)
    return f"{math.floor(scaled / digit) * digit:.4g}"

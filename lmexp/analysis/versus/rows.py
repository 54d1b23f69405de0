"""The rows of a baseline and one arm, with what a comparison of one cost reads of them.

A cell is what two runs of different arms may have in common: the values of all axes, without the seed and without axes
that have one value in every arm, such as the arms' own. A group is a cell without the axes of the budget. Runs of one
group and seed that differ in their budget are points of one curve, as the milestones of one run are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Floats, Marks
from lmexp.analysis.effects.pairing import axis_values
from lmexp.analysis.frontier import numbers
from lmexp.analysis.versus.curves import Curve, levels_of, tuned
from lmexp.runs.columns import higher_is_better

Key = tuple[Any, ...]
BUDGET = "budget"
"""The group of the axes that say how much a run may spend."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Finished rows of two arms that have the quality and the cost; all arrays are (n,)."""

    table: pd.DataFrame
    costs: Floats
    qualities: Floats
    levels: Floats
    """Less is better (curves.py)."""
    tokens: Floats
    in_base: Marks
    in_arm: Marks
    cells: list[Key]
    groups: list[Key]
    seeds: list[Any]
    axes: tuple[str, ...]
    """The axes whose values a cell holds."""
    higher_is_better: bool
    ambiguous: int
    """Runs that are left out because another run of their arm has the same cell and seed."""

    @property
    def arms(self) -> tuple[Marks, Marks]:
        """The rows of the baseline, and those of the arm."""
        return self.in_base, self.in_arm

    def curve(self, of_arm: Marks, group: Key, seed: Any) -> Curve:
        """Return the curve of an arm in a group, with a seed."""
        at = [i for i in np.flatnonzero(of_arm) if self.groups[i] == group and self.seeds[i] == seed]
        return Curve.of(self.costs[at], self.qualities[at], self.higher_is_better)

    def milestones(self, end: int) -> Curve:
        """Return the curve through the rows of one run, given its last row."""
        ids = self.table["run_id"].to_numpy()
        at = np.flatnonzero(ids == ids[end])
        return Curve.of(self.costs[at], self.qualities[at], self.higher_is_better)

    def ends(self, of_arm: Marks) -> dict[Key, dict[Any, int]]:
        """Return for each cell and seed of an arm the row with the most tokens."""
        ends: dict[Key, dict[Any, int]] = {}
        for i in np.flatnonzero(of_arm):
            of_cell = ends.setdefault(self.cells[i], {})
            known = of_cell.get(self.seeds[i])
            if known is None or self.tokens[i] > self.tokens[known]:
                of_cell[self.seeds[i]] = int(i)
        return ends


def axes_of_cells(
    table: pd.DataFrame, varied: Sequence[str], base: Marks, arm: Marks, without: str | None
) -> list[str]:
    """Return the axes that tell cells apart: those that vary within an arm, without the seed and one other."""
    return [
        axis
        for axis in varied
        if axis not in ("seed", without)
        and any(table.loc[rows, axis].nunique(dropna=False) > 1 for rows in (base, arm))
    ]


def rows_of(
    table: pd.DataFrame,
    varied: Sequence[str],
    base: Marks,
    arm: Marks,
    quality: str,
    cost: str,
    best: str | None = None,
) -> Rows:
    """Return the rows of two arms that have a quality and a cost above 0.

    With `best`, each arm keeps, in each cell, the rows with the value of this axis that gives the best mean quality at
    the most tokens.
    """
    higher = higher_is_better(quality)
    values, costs = numbers(table, quality), numbers(table, cost)
    known = np.isfinite(values) & np.isfinite(costs) & (costs > 0) & (higher | (values > 0))
    base, arm = base & known, arm & known
    axes = axes_of_cells(table, varied, base, arm, best)
    cells = _keys(table, axes)
    tokens = np.nan_to_num(numbers(table, "tokens"))
    with np.errstate(invalid="ignore", divide="ignore"):
        levels = levels_of(values, higher)
    if best is not None:
        number = np.asarray(pd.factorize(pd.Series(cells, dtype=object))[0])
        setting = np.asarray(pd.factorize(pd.Series(axis_values(table[best]), dtype=object))[0], dtype=float)
        base, arm = (tuned(rows, tokens, levels, number, setting) for rows in (base, arm))
    seeds = axis_values(table["seed"])
    doubled = [_ambiguous(rows, table, cells, seeds) for rows in (base, arm)]
    either = np.flatnonzero((base & ~doubled[0]) | (arm & ~doubled[1]))
    groups = _keys(table, [axis for axis in axes if axis.partition(".")[0] != BUDGET])
    return Rows(
        table=table.iloc[either],
        costs=costs[either],
        qualities=values[either],
        levels=levels[either],
        tokens=tokens[either],
        in_base=(base & ~doubled[0])[either],
        in_arm=(arm & ~doubled[1])[either],
        cells=[cells[i] for i in either],
        groups=[groups[i] for i in either],
        seeds=[seeds[i] for i in either],
        axes=tuple(axes),
        higher_is_better=higher,
        ambiguous=int(table.loc[doubled[0] | doubled[1], "run_id"].nunique()),
    )


def _keys(table: pd.DataFrame, axes: Sequence[str]) -> list[Key]:
    return list(zip(*(axis_values(table[axis]) for axis in axes), strict=True)) if axes else [()] * len(table)


def _ambiguous(rows: Marks, table: pd.DataFrame, cells: list[Key], seeds: list[Any]) -> Marks:
    """Mark the rows of runs that agree with another run in arm, cell and seed: something else tells them apart."""
    runs: dict[tuple[Key, Any], set[str]] = {}
    ids = table["run_id"].tolist()
    for i in np.flatnonzero(rows):
        runs.setdefault((cells[i], seeds[i]), set()).add(ids[i])
    marks = np.zeros(len(rows), dtype=bool)
    marks[[i for i in np.flatnonzero(rows) if len(runs[cells[i], seeds[i]]) > 1]] = True
    return marks

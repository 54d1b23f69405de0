"""The rows that a claim is judged on, and how they are resampled.

A claim is a number that is computed from rows. Its interval comes from computing it again on other samples of the same
rows. What is left out or drawn is a block: all rows that share their chance. That is a run with its milestones or, if
the claim compares arms in pairs, the runs of all arms that agree in the other axes, the seed among them.

Blocks that differ in the seed alone form a stratum. With two blocks or more in every stratum, resampling stays within
strata: the difference between cells is what the study is about, and no noise. Otherwise all blocks form one stratum.

- A smooth number (a mean, a slope) gets its standard error from the jackknife: each block is left out once. In a
  stratum of n blocks the variance is (n - 1)/n times the sum of squares about their mean (Efron 1982). The degrees of
  freedom of the sum over strata are Satterthwaite's, and the interval is Student's t times the standard error.
- A number that jumps (the best of a few values, a rank correlation) gets the middle 95 % of a bootstrap. It draws
  n - 1 of n blocks with replacement: with n, the variance would be too small by (n - 1)/n (Rao and Wu 1988).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from lmexp.analysis.effects.noise import t_quantile
from lmexp.analysis.table import units_of

Ints = npt.NDArray[np.intp]

DRAWS = 400
SEED = "seed"


class Estimated(NamedTuple):
    """A number with its 95 % confidence interval, which is infinite if the rows do not give one."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evidence:
    """Rows of finished runs and milestones, with the axes of the study."""

    table: pd.DataFrame
    axes: tuple[str, ...]
    """The columns that say of which arm and cell a row is, the seed among them."""
    source: str
    """Where the rows come from, for messages."""

    def at(self, rows: Ints) -> "Evidence":
        """Return the evidence with the rows at these positions, which may repeat."""
        return Evidence(self.table.iloc[rows].reset_index(drop=True), self.axes, self.source)


@dataclass(frozen=True)
class Blocks:
    """The blocks of some evidence, each the positions of its rows, and the stratum of each block."""

    rows: tuple[Ints, ...]
    strata: tuple[Ints, ...]
    """For each stratum, the numbers of its blocks."""

    @classmethod
    def of(cls, evidence: Evidence, arms: Sequence[str] = ()) -> "Blocks":
        """Return the blocks. `arms` are the axes that tell arms apart: runs that agree in all others share a block."""
        table = evidence.table
        keys = [axis for axis in evidence.axes if axis not in arms]
        cells = [axis for axis in keys if axis != SEED]
        by = [table[axis].astype("string").fillna("") for axis in keys] if arms else [units_of(table)]
        rows = _groups(by, len(table))
        cell_of = [tuple(str(table[axis].iloc[at[0]]) for axis in cells) for at in rows]
        strata = [np.array([b for b, cell in enumerate(cell_of) if cell == one]) for one in dict.fromkeys(cell_of)]
        if any(len(stratum) < 2 for stratum in strata):
            strata = [np.arange(len(rows))]
        return cls(tuple(rows), tuple(strata))

    @cached_property
    def is_enough(self) -> bool:
        """Whether there are blocks to resample at all."""
        return all(len(stratum) > 1 for stratum in self.strata)

    def jackknife(self, value: float, number: Callable[[Ints], float]) -> Estimated:
        """Return the interval of a smooth number; `number` computes it without the rows at some positions."""
        if not self.is_enough:
            return Estimated(value, -np.inf, np.inf)
        parts, freedoms = [], []
        for stratum in self.strata:
            left = np.array([number(self.rows[block]) for block in stratum])
            n = len(left)
            parts.append((n - 1) / n * float(((left - left.mean()) ** 2).sum()))
            freedoms.append(n - 1)
        variance = sum(parts)
        if not np.isfinite(variance):
            return Estimated(value, -np.inf, np.inf)
        if variance == 0:
            return Estimated(value, value, value)
        freedom = variance**2 / sum(part**2 / df for part, df in zip(parts, freedoms, strict=True))
        half = t_quantile(freedom) * float(np.sqrt(variance))
        return Estimated(value, value - half, value + half)

    def bootstrap(self, value: float, number: Callable[[Ints], float], seed: int = 0) -> Estimated:
        """Return the interval of a number that jumps; `number` computes it from rows at some positions."""
        if not self.is_enough:
            return Estimated(value, -np.inf, np.inf)
        drawn = np.array([number(rows) for rows in self._draws(np.random.default_rng(seed))])
        if np.isnan(drawn).mean() > 0.025:
            return Estimated(value, -np.inf, np.inf)
        low, high = np.nanquantile(drawn, [0.025, 0.975])
        return Estimated(value, float(min(low, value)), float(max(high, value)))

    def _draws(self, draw: np.random.Generator) -> Iterator[Ints]:
        """Yield the positions of the rows of each draw."""
        for _ in range(DRAWS):
            blocks = [draw.choice(stratum, size=len(stratum) - 1) for stratum in self.strata]
            yield np.concatenate([self.rows[block] for block in np.concatenate(blocks)])


def _groups(by: Sequence[pd.Series], n_rows: int) -> list[Ints]:
    """Return the positions of the rows of each group, in the order of appearance."""
    keys = list(zip(*(series.tolist() for series in by), strict=True)) if by else [()] * n_rows
    at: dict[tuple[str, ...], list[int]] = {}
    for row, key in enumerate(keys):
        at.setdefault(key, []).append(row)
    return [np.array(rows, dtype=np.intp) for rows in at.values()]

"""Reads the points of a relation, with the further columns that it needs, from a file, a table or a sweep."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from lmexp.analysis.arrays import Floats, Marks
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.readers import (
    NAMES,
    headings_of,
    numbers_of_points,
    points_of_frame,
    points_of_study,
    rows_of_table,
)
from lmexp.analysis.table import Study
from lmexp.errors import UserError
from lmexp.units import printable

PLAIN = dict.fromkeys(NAMES, 1.0)
"""Factors of 1: they also say that no number is to be questioned, because the questions are those of losses by size."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Points, and the table that they were read from."""

    points: Points
    frame: pd.DataFrame
    lines: npt.NDArray[np.int64]
    """(rows,) the line number of each row of the table."""
    loss_name: str
    """The column that the points' loss was read from."""
    varied: tuple[str, ...] = ()
    """The axes of a sweep with several values."""
    has_sizes: bool = True
    """Whether the table says parameters, tokens or FLOPs."""

    def column(self, name: str) -> Floats:
        """Return a column (n,) at the points, NaN where it has no value. Raises UserError if there is none or text."""
        return numbers_of_points(self.frame, name, self.points, self.lines)

    def where(self, mask: Marks) -> "Rows":
        """Return the rows that `mask` (n,) marks among the points."""
        return replace(self, points=self.points.where(mask))

    def first(self, names: Collection[str]) -> str | None:
        """Return the first of several usual names that the table has, as it is written there; None if there is none."""
        headings = headings_of(self.frame)
        return next((headings[name] for name in names if name in headings), None)


def rows_of_file(
    file: Path,
    columns: Mapping[str, str] | None = None,
    factors: Mapping[str, float] | None = None,
    where: str | None = None,
    needs_sizes: bool = True,
    in_law: Collection[str] = (),
) -> Rows:
    """Return the rows of a table's file, as readers.py reads points; without `needs_sizes`, it may lack all sizes.

    No warning is about the columns `in_law`.

    Raises UserError as points_of_csv does.
    """
    frame, lines = rows_of_table(file, where)
    return rows_of_frame(frame, columns, factors, str(file), lines, needs_sizes, in_law)


def rows_of_frame(
    frame: pd.DataFrame,
    columns: Mapping[str, str] | None = None,
    factors: Mapping[str, float] | None = None,
    source: str = "the table",
    lines: npt.NDArray[np.int64] | None = None,
    needs_sizes: bool = True,
    in_law: Collection[str] = (),
) -> Rows:
    """Return the rows of a table, as rows_of_file does."""
    lines = np.arange(len(frame)) + 1 if lines is None else lines
    headings, given = headings_of(frame), set(columns or {})
    known = [
        key for key in ("params", "tokens", "flops") if key in given or any(name in headings for name in NAMES[key])
    ]
    has_sizes = needs_sizes or len(known) > 1 or known == ["flops"]
    if not has_sizes:  # the reader of points takes FLOPs, and nothing reads those
        frame = frame.assign(flops=1.0)
    points = points_of_frame(frame, columns, PLAIN | dict(factors or {}), source, lines, not needs_sizes, in_law)
    chosen = next((headings[name] for name in NAMES["loss"] if name in headings), "loss")
    return Rows(points, frame, lines, (columns or {}).get("loss", chosen), has_sizes=has_sizes)


def rows_of_study(study: Study, columns: Mapping[str, str] | None = None, in_law: Collection[str] = ()) -> Rows:
    """Return the finished rows of a study; no warning is about the axes `in_law`.

    Raises UserError as points_of_study does.
    """
    points = points_of_study(study, columns, in_law)
    loss = (columns or {}).get("loss", study.default_quality)
    return Rows(points, study.table, np.arange(len(study.table)) + 1, loss, tuple(study.varied))


def known_only(rows: Rows, name: str) -> tuple[Rows, Floats]:
    """Return the rows in which a column has a finite number, the others counted, and the numbers (m,).

    Raises UserError if no row has one.
    """
    values = rows.column(name)
    known = np.isfinite(values)
    if not known.any():
        raise UserError(f"no finished row of {rows.points.source.split(':')[0]} has a number in '{printable(name)}'")
    if not known.all():
        left_out = rows.points.left_out | {f"no {printable(name)}": int((~known).sum())}
        rows = replace(rows, points=replace(rows.points, left_out=left_out))
    return rows.where(known), values[known]

"""Published points: a file, or a folder of files, of a paper's own numbers, as rows that claims are judged on.

The paper's file says how the columns are named and in which units they are. What does not fit it is one message that
names the column and says where the right file is.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from lmexp.analysis.filters import matching
from lmexp.analysis.scaling.plausible import doubts
from lmexp.analysis.scaling.readers import read_table
from lmexp.errors import UserError, nearest
from lmexp.papers.evidence import Evidence
from lmexp.papers.held_out import CURVE
from lmexp.papers.paper import PointsSource
from lmexp.units import printable

TABLES = (".csv", ".tsv", ".parquet")
SIZES = {"params": "n_params", "tokens": "tokens", "flops": "train_flops", "loss": "loss"}
"""lmexp's columns of the quantities whose units can be checked."""


def evidence_of_points(file: Path, source: PointsSource) -> Evidence:
    """Return the rows of a file or a folder with lmexp's names of columns, in plain units.

    Raises UserError if it cannot be read, lacks a column, holds text in place of numbers or numbers in another unit,
    or has no row to keep.
    """
    frame = _tables(file, source)
    if frame.empty:
        raise UserError(f"{file} has no rows. {_meant(source)}")
    for ours, theirs in source.columns.items():
        if theirs not in frame:
            raise _no_column(file, source, frame, theirs, f", which holds {ours}")
    frame = frame.rename(columns={theirs: ours for ours, theirs in source.columns.items()})
    for name in {*source.columns, *source.scale}:
        if name not in frame:
            raise _no_column(file, source, frame, name, ", whose unit the paper's file gives")
        if name in SIZES.values() or name in source.scale:
            frame[name] = _numbers(frame[name], file) * source.scale.get(name, 1.0)
    if axis := next((axis for axis in source.axes if axis not in frame), None):
        raise _no_column(file, source, frame, axis, ", by which the paper tells its points apart")
    if source.rows is not None:
        frame = frame[matching(frame, source.rows)]
        if frame.empty:
            raise UserError(f"no row of {file} meets the paper's condition {source.rows}. {_meant(source)}")
    _check_units(frame, file, source)
    return Evidence(frame.convert_dtypes().reset_index(drop=True), tuple(source.axes), str(file))


def _tables(file: Path, source: PointsSource) -> pd.DataFrame:
    """Return the rows of a file, or of all tables in a folder with the column `file`."""
    if not source.is_folder:
        if file.is_dir():
            raise UserError(f"{file} is a folder; this paper's points are one file. {_meant(source)}")
        return read_table(file).dropna(how="all")
    if not file.is_dir():
        raise UserError(f"{file} is no folder; this paper's points are a folder of files. {_meant(source)}")
    files = sorted(each for each in file.iterdir() if each.suffix.lower() in TABLES)
    if not files:
        raise UserError(f"{file} has no {', '.join(TABLES)} files. {_meant(source)}")
    return pd.concat([read_table(each).dropna(how="all").assign(**{CURVE: each.stem}) for each in files])


def _numbers(column: pd.Series, file: Path) -> pd.Series:
    """Return a column as floats, so that 6ND cannot overflow. Raises UserError for text."""
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    if (numbers.isna() & column.notna()).any():
        raise UserError(f"{file}: the column '{printable(str(column.name))}' holds text in place of numbers")
    return numbers


def _check_units(frame: pd.DataFrame, file: Path, source: PointsSource) -> None:
    """Raise UserError if sizes, tokens, FLOPs and losses are probably not plain numbers and nats."""
    unknown = pd.Series(np.nan, index=frame.index)
    columns = {key: np.asarray(frame.get(name, unknown), dtype=np.float64) for key, name in SIZES.items()}
    known = np.isfinite(columns["loss"])
    columns = {key: values[known] for key, values in columns.items()}
    if not known.any():
        return
    if np.isnan(columns["flops"]).all():
        columns["flops"] = 6 * columns["params"] * columns["tokens"]
    if question := next(iter(doubts(columns)), None):
        raise UserError(f"{file}: {question.said} Plain numbers and nats are needed. {_meant(source)}")


def _no_column(file: Path, source: PointsSource, frame: pd.DataFrame, name: str, why: str) -> UserError:
    return UserError(f"{file} has no column '{name}'{why}.{nearest(name, map(str, frame.columns))} {_meant(source)}")


def _meant(source: PointsSource) -> str:
    return f"The paper's points are {source.where_to_get}"

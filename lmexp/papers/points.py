"""Published points: a file, or a folder of files, of a paper's own numbers, as rows that claims are judged on.

The paper's file says how the columns are named and in which units they are. What does not fit it is one message that
names the column and says where the right file is.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import as_numbers
from lmexp.analysis.filters import matching
from lmexp.analysis.scaling.plausible import doubts
from lmexp.analysis.scaling.readers import read_table
from lmexp.errors import UserError, nearest
from lmexp.papers.evidence import Evidence
from lmexp.papers.held_out import CURVE
from lmexp.papers.paper import PointsSource
from lmexp.units import printable, sentence

TABLES = (".csv", ".tsv", ".parquet")
SIZES = {"params": "n_params", "tokens": "tokens", "flops": "train_flops", "loss": "loss"}
"""lmexp's columns of the quantities whose units can be checked."""


def evidence_of_points(file: Path, source: PointsSource) -> Evidence:
    """Return the rows of a file or a folder with lmexp's names of columns, in plain units.

    Raises UserError, which says where the right file is, if it cannot be read, lacks a column, holds text, infinity or
    a number that is not above 0 in place of a size or a loss, or numbers in another unit, or has no row to keep.
    """
    try:
        frame = _in_our_words(_tables(file, source), file, source)
        _check_units(frame, file)
    except UserError as problem:
        raise UserError(f"{sentence(str(problem))} The paper's points are {source.where_to_get}") from None
    return Evidence(frame.convert_dtypes().reset_index(drop=True), tuple(source.axes), str(file))


def _in_our_words(frame: pd.DataFrame, file: Path, source: PointsSource) -> pd.DataFrame:
    """Return the rows that are used, with lmexp's names of columns and in plain units."""
    if frame.empty:
        raise UserError(f"{file} has no rows")
    for ours, theirs in source.columns.items():
        if theirs not in frame:
            raise _no_column(file, frame, theirs, f", which holds {ours}")
    theirs_of = {ours: source.columns.get(ours, ours) for ours in dict.fromkeys((*source.columns, *source.scale))}
    for theirs in theirs_of.values():
        if theirs not in frame:
            raise _no_column(file, frame, theirs, ", whose unit the paper's file gives")
    columns = {}
    for ours, theirs in theirs_of.items():
        is_size = ours in SIZES.values()
        is_number = is_size or ours in source.scale
        columns[ours] = (
            _numbers(frame[theirs], file, is_size) * source.scale.get(ours, 1.0) if is_number else frame[theirs]
        )
    frame = frame.drop(columns=list(source.columns.values())).assign(**columns)
    if axis := next((axis for axis in source.axes if axis not in frame), None):
        raise _no_column(file, frame, axis, ", by which the paper tells its points apart")
    if source.rows is None:
        return frame
    kept = frame[matching(frame, source.rows)]
    if kept.empty:
        raise UserError(f"no row of {file} meets the paper's condition {source.rows}")
    return kept


def _tables(file: Path, source: PointsSource) -> pd.DataFrame:
    """Return the rows of a file, or of all tables in a folder with the column `file`."""
    if not source.is_folder:
        if file.is_dir():
            raise UserError(f"{file} is a folder; this paper's points are one file")
        return read_table(file).dropna(how="all")
    if not file.is_dir():
        raise UserError(f"{file} is no folder; this paper's points are a folder of files")
    files = sorted(each for each in file.iterdir() if each.suffix.lower() in TABLES)
    if not files:
        raise UserError(f"{file} has no {', '.join(TABLES)} files")
    return pd.concat([read_table(each).dropna(how="all").assign(**{CURVE: each.stem}) for each in files])


def _numbers(column: pd.Series, file: Path, is_size: bool) -> pd.Series:
    """Return a column as floats, so that 6ND cannot overflow. Raises UserError for text and infinity.

    A size or a loss must be above 0.
    """
    name = printable(str(column.name))
    numbers = as_numbers(column)
    if (numbers.isna() & column.notna()).any():
        raise UserError(f"{file}: the column '{name}' holds text in place of numbers")
    wrong = np.isinf(numbers) | ((numbers <= 0) & is_size)
    if wrong.any():
        above = " and above 0" if is_size else ""
        raise UserError(f"{file}: the column '{name}' holds {numbers[wrong].iloc[0]:g}; numbers are finite{above}")
    return numbers


def _check_units(frame: pd.DataFrame, file: Path) -> None:
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
        raise UserError(f"{file}: {question.said} Plain numbers and nats are needed")


def _no_column(file: Path, frame: pd.DataFrame, name: str, why: str) -> UserError:
    return UserError(f"{file} has no column '{name}'{why}.{nearest(name, map(str, frame.columns))}")

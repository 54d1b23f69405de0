"""Reads points from a study's records, or from a table or file with sizes, tokens (or FLOPs) and losses.

A column is recognised by any of its usual names, or the user names it. Two of parameters N, tokens D and FLOPs C are
enough: the third follows from C = 6ND, and `source` says so. FLOPs alone are enough for a law in compute. Input that
is probably a mistake is an error that names the line: a word among numbers, two tasks under one law, a million
parameters written as 1 (plausible.py). Runs without a result are left out and counted.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from lmexp.analysis.arrays import Floats, as_numbers
from lmexp.analysis.filters import matching
from lmexp.analysis.floor import shared_floor
from lmexp.analysis.frontier import is_done
from lmexp.analysis.rankable import obstacles
from lmexp.analysis.scaling.checks import ONE_CONVENTION
from lmexp.analysis.scaling.other_columns import EPOCHS, OPTIMIZERS, UNIQUE, varying
from lmexp.analysis.scaling.own_expression import LOSS, names_in_law
from lmexp.analysis.scaling.plausible import MAX_LOSS, ask
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.precision import BITS
from lmexp.analysis.scaling.states import finished, heading_of_state
from lmexp.analysis.table import Study
from lmexp.errors import UserError, nearest, reason_of
from lmexp.files import why_not_a_file
from lmexp.runs.columns import higher_is_better
from lmexp.units import counted, printable

NAMES: dict[str, tuple[str, ...]] = {
    "params": ("n_params", "params", "parameters", "n", "num_params", "nparams", "model_size"),
    "tokens": ("tokens", "d", "n_tokens", "num_tokens", "train_tokens", "training_tokens"),
    "flops": ("train_flops", "flops", "c", "training_flops", "training_flop", "total_flops", "compute"),
    "loss": (
        *("val_loss", "validation_loss", "valid_loss", "eval_loss", "eval/loss", "val/loss", "test_loss", "final_loss"),
        *("loss", "l"),
    ),
}
"""Usual names of each quantity's column, in upper or lower case; the first one that a table has is used.

`loss` is often that of training, so a column that says that it is of validation comes first.
"""
BY_HAND = {"params": "--params", "tokens": "--tokens", "flops": "--compute", "loss": "--loss"}
"""The option that names the column of each quantity."""
SIX_ND = "6ND"
"""Stands for a column of FLOPs: six for every parameter and token."""
UNITS = ("unit", "run_id")
RUN_NAMES = ("trunk", "run", "run_name", "name", "id")
"""Usual names of a column that says which rows are one run, in upper or lower case."""
EACH_ROW = "row"
"""Stands for a column of units: every row is a run of its own."""
BITS_NAMES: dict[str, tuple[str, ...]] = {
    "weight_bits": ("weight_bits", "bits_weights", "w_bits", "p_w"),
    "activation_bits": ("activation_bits", "bits_activations", "a_bits", "p_a"),
    "kv_bits": ("kv_bits", "kv_cache_bits", "bits_kv", "p_kv"),
}
"""Usual names of the columns with the bits of each kind of tensor, in upper or lower case."""
NAME_OF_BITS: dict[float, str] = {bits: name for name, bits in reversed(BITS.items())}  # the first type of each width
"""A precision written as a number of bits; of types of one width, the law sees only the width."""
COSTS = ("train_seconds", "wall_seconds", "energy_kwh", "dollars")
"""Other columns that a law of loss against cost can be fitted to."""
MAX_POINTS = 10_000
"""A fit to more points would take minutes and hundreds of megabytes, and no study has that many."""


def points_of_csv(
    file: Path,
    columns: Mapping[str, str] | None = None,
    scale: Mapping[str, float] | None = None,
    where: str | None = None,
    flops_alone: bool = False,
    expressions: Sequence[str] = (),
) -> Points:
    """Read the points of a .csv, .tsv or Parquet file; `columns` and `scale` are those of points_of_frame.

    `where` is an expression (filters.py) that keeps the rows for which it is true. With `flops_alone`, a table may
    lack parameters and tokens.

    Raises UserError if the file is missing or cannot be read, has no rows or too many, lacks a column, or holds text or
    an implausible number where a number is needed, with the line.
    """
    frame, lines = rows_of_table(file, where)
    return points_of_frame(frame, columns, scale, str(file), lines, flops_alone, expressions=expressions)


def rows_of_table(file: Path, where: str | None = None) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    """Return the rows of a table's file that are not empty, and for which `where` is true, with their line numbers.

    Raises UserError if the file cannot be read, for a wrong expression, and if no row meets it.
    """
    frame = read_table(file)
    lines = np.arange(len(frame)) + (1 if file.suffix.lower() == ".parquet" else 2)
    kept = frame.notna().any(axis=1).to_numpy(dtype=bool)
    if where is not None:
        kept = kept & matching(frame, where)
        if not kept.any():
            raise UserError(f"no row of {file} meets --where {where}")
    return frame[kept], lines[kept]


def points_of_frame(
    frame: pd.DataFrame,
    columns: Mapping[str, str] | None = None,
    scale: Mapping[str, float] | None = None,
    source: str = "the table",
    lines: npt.NDArray[np.int64] | None = None,
    flops_alone: bool = False,
    in_law: Collection[str] = (),
    expressions: Sequence[str] = (),
) -> Points:
    """Return the points of a table with one run, or one milestone, per row.

    If there is a column `state` or `status`, only rows of finished runs are used (states.py has the words). The column
    `unit`, or else `run_id`, `run` or `name`, says which rows belong to one run. `columns` maps params, tokens, flops,
    loss, unit and weights to column names, flops possibly to 6ND, and unit possibly to `row`. `scale` holds factors
    that turn params, tokens, flops and loss into plain numbers and nats; a quantity with a factor is not questioned
    (plausible.py). `lines` (n,) are the line numbers of the rows in their file [default: counted from 1]. With
    `flops_alone`, a table may lack parameters and tokens, for a law in compute. No warning is about the columns
    `in_law`, of which the law knows. `expressions` are laws of the user's, whose columns are read too. Raises UserError
    as points_of_csv does.
    """
    columns = dict(columns or {})
    chosen_unit, weighted_by = columns.pop("unit", None), columns.pop("weights", None)
    named = _columns(frame, columns, source, flops_alone)
    rows = _rows_to_fit(frame, named, chosen_unit, source, lines, weighted_by)
    frame, headings, table = rows.frame, rows.headings, rows.table
    scale = scale or {}
    sizes, said = _completed({key: values * scale.get(key, 1.0) for key, values in rows.known.items()}, named)
    vocabulary = headings.get("vocab_size")
    entries = table.costs(frame, vocabulary) if vocabulary and _has(frame, vocabulary) else None
    ask(sizes, entries, scale, source, table.lines)

    unit = _unit_column(frame, headings, chosen_unit, sizes)
    alone = pd.Series([f"row {line}" for line in table.lines])
    units = alone if unit is None else frame[unit].astype("string").reset_index(drop=True).fillna(alone)
    if unit is not None and units.nunique() < len(units):
        said += f"; rows of one {printable(unit)} are one run"
    if weighted_by is not None:
        said += f"; weights = {printable(weighted_by)}"
    high = float(sizes["loss"].max())
    precision = headings.get("precision")
    several = _has(frame, precision) and frame[precision].nunique() > 1
    others = _others(frame, named, expressions, table)
    in_law = {*in_law, *(others if flops_alone else ())}  # laws of the user's alone know the columns that they name
    questioned = {key: name for key, name in headings.items() if name not in in_law and key not in in_law}
    warnings = (
        f"Losses reach {high:.3g}: these are hardly nats per token." if high > MAX_LOSS else "",
        _repeats(sizes, frame, table.lines),
        *(varying(frame, questioned, named, sizes) if "slug" not in frame else ()),  # a study says it itself
    )
    return Points(
        **sizes,
        unit=units.to_numpy(dtype=np.str_),
        precision=_precisions(frame[precision]) if precision and several else None,
        bits=_bits(frame, headings, table),
        optimizer=_optimizers(frame, headings),
        unique_tokens=_unique_tokens(frame, headings, sizes["tokens"], table),
        names=_names(frame, table.lines),
        weights=rows.weights,
        weighted_by=weighted_by or "",
        lines=table.lines,
        run_ids=frame["run_id"].astype(str).to_numpy(dtype=np.str_) if "run_id" in frame else None,
        units_named=unit is not None or chosen_unit == EACH_ROW,
        others=others,
        table_columns=tuple(map(str, frame.columns)),
        headings={key: name for key, name in named.items() if key in rows.known},
        costs={name: table.costs(frame, headings[name]) for name in COSTS if _has(frame, headings.get(name))},
        left_out=rows.left_out,
        floor=_floor(frame, named["loss"], scale.get("loss", 1.0)),
        warnings=tuple(warning for warning in warnings if warning),
        source=f"{source}: {said}",
    )


def _others(
    frame: pd.DataFrame, named: Mapping[str, str], expressions: Sequence[str], table: "_Table"
) -> dict[str, Floats]:
    """Return the columns (n,) that laws of the user's name, besides params, tokens and FLOPs; NaN without a number."""
    losses = {LOSS, named["loss"]}
    wanted = {name for text in expressions for name in names_in_law(text, map(str, frame.columns), losses)}
    others = [str(name) for name in frame.columns if str(name) in wanted - {*NAMES, *named.values()}]
    columns = {name: table.numbers(frame, name) for name in others}
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in columns.items()}


def _bits(frame: pd.DataFrame, headings: Mapping[str, str], table: "_Table") -> dict[str, Floats]:
    """Return the bits of weights, activations and KV cache (n,), as far as they vary and every row has them.

    Raises UserError for bits that are not above 0, or that only some rows have.
    """
    bits: dict[str, Floats] = {}
    for kind, names in BITS_NAMES.items():
        name = next((headings[name] for name in names if _has(frame, headings.get(name))), None)
        if name is not None and frame[name].nunique() > 1:
            bits[kind] = table.costs(frame, name)
            if np.isnan(bits[kind]).any():
                line = table.lines[int(np.flatnonzero(np.isnan(bits[kind]))[0])]
                raise UserError(f"{table.source}, line {line}: {printable(name)} is no number of bits above 0")
    return bits


def _optimizers(frame: pd.DataFrame, headings: Mapping[str, str]) -> npt.NDArray[np.str_] | None:
    """Return the optimizer of each row (n,); None if there are no two."""
    for name in OPTIMIZERS:
        if _has(frame, headings.get(name)) and frame[headings[name]].nunique() > 1:
            return frame[headings[name]].astype("string").fillna("unknown").to_numpy(dtype=np.str_)
    return None


def _unique_tokens(frame: pd.DataFrame, headings: Mapping[str, str], tokens: Floats, table: "_Table") -> Floats | None:
    """Return the unique tokens of each row (n,), from their own column or from the passes; None if one is unknown.

    A run of less than one pass has seen unique tokens alone. `tokens` are plain numbers, and so must be these.
    """
    for names, of in ((EPOCHS, lambda passes: tokens / np.maximum(passes, 1.0)), (UNIQUE, lambda unique: unique)):
        for name in names:
            if _has(frame, headings.get(name)):
                unique = of(table.costs(frame, headings[name]))
                return unique if np.isfinite(unique).all() else None
    return None


def _floor(frame: pd.DataFrame, loss: str, factor: float) -> float | None:
    """Return the loss that no model can beat, if all rows have the same one; `factor` turns it into nats."""
    floor = shared_floor(frame, loss)
    return None if floor is None else floor * factor


@dataclass(frozen=True)
class _Rows:
    """The rows of a table that a law is fitted to."""

    frame: pd.DataFrame
    headings: dict[str, str]
    """The table's headings by their names in lower case; see _folded."""
    known: dict[str, Floats]
    """The numbers of these columns, each (n,)."""
    table: "_Table"
    left_out: dict[str, int]
    """How many rows were left out, by the reason."""
    weights: Floats | None = None
    """(n,) above 0; None if all rows weigh the same."""


def _rows_to_fit(
    frame: pd.DataFrame,
    named: Mapping[str, str],
    unit: str | None,
    source: str,
    lines: npt.NDArray[np.int64] | None,
    weighted_by: str | None = None,
) -> _Rows:
    """Return the finished rows with all numbers of the named columns, each once, and a weight above 0.

    Raises UserError as points_of_csv does.
    """
    for name in (None if unit == EACH_ROW else unit, weighted_by):
        if name is not None and name not in frame.columns:
            raise UserError(f"{source} has no column '{printable(str(name))}'.{nearest(str(name), frame.columns)}")
    left_out: dict[str, int] = {}
    lines = np.arange(len(frame)) + 1 if lines is None else lines
    headings = headings_of(frame)
    if (state := heading_of_state(headings)) is not None:
        done, left_out = finished(frame[state], lines, source)
        frame, lines = frame[done], lines[done]
    if len(frame) > MAX_POINTS:
        raise UserError(
            f"{source} has {len(frame):,} rows, a fit takes at most {MAX_POINTS:,}: keep the last row of each run"
        )
    table = _Table(source, lines)
    known = {key: table.numbers(frame, name) for key, name in named.items() if name != SIX_ND}
    complete, incomplete = _complete_rows(known, len(frame))
    left_out |= incomplete
    if not complete.any():
        raise UserError(f"{source} has no finished row with numbers to fit: {_tally(left_out)}")
    copies = _copies(frame, complete)
    if copies.any():
        left_out["exact duplicates"] = int(copies.sum())
        complete &= ~copies
    weights = None
    if weighted_by is not None:
        weights = _Table(source, lines[complete]).weights(frame[complete], weighted_by)
        if unweighted := int((weights == 0).sum()):
            left_out[f"with a weight of 0 ({printable(weighted_by)})"] = unweighted
            complete[complete] = weights > 0
            weights = weights[weights > 0]
        if not len(weights):
            raise UserError(f"{source}: every row has a weight of 0 in column '{printable(weighted_by)}'")
    table = _Table(source, lines[complete])
    known = {key: values[complete] for key, values in known.items()}
    for key, values in known.items():
        table.check_above_0(named[key], values)
    return _Rows(frame[complete], headings, known, table, left_out, weights)


def _complete_rows(known: Mapping[str, Floats], n_rows: int) -> tuple[npt.NDArray[np.bool_], dict[str, int]]:
    """Return a mask of the rows in which every number is finite, and how many of the others lack what."""
    complete = np.ones(n_rows, dtype=bool)
    counts: dict[str, int] = {}
    for key, values in known.items():
        for reason, bad in ((f"no {key}", np.isnan(values)), (f"infinite {key}", np.isinf(values))):
            if count := int((bad & complete).sum()):
                counts[reason] = count
                complete &= ~bad
    return complete, counts


def numbers_of_points(frame: pd.DataFrame, name: str, points: Points, lines: npt.NDArray[np.int64]) -> Floats:
    """Return another column of the table that points were read from (n,), with NaN where it has no value.

    `lines` (rows,) are the line numbers of the table's rows. Raises UserError for text, with its line, and if the table
    has no such column.
    """
    source = points.source.split(":")[0]
    if name not in frame.columns:
        raise UserError(f"{source} has no column '{printable(name)}'.{nearest(name, map(str, frame.columns))}")
    assert points.lines is not None, "points that were read from a table know their lines"
    return _Table(source, lines).numbers(frame, name)[np.searchsorted(lines, points.lines)]


def points_of_study(
    study: Study,
    columns: Mapping[str, str] | None = None,
    in_law: Collection[str] = (),
    expressions: Sequence[str] = (),
) -> Points:
    """Return the finished rows of a study, milestones included, as points; runs that did not finish are counted.

    The loss is per token, or in bits per byte if tokenizers differ. No warning is about the axes `in_law`, of which the
    law knows. Raises UserError for several tasks or texts, and as points_of_csv does.
    """
    table = study.table
    done = table[is_done(table)]
    tasks = [str(task) for task in done["task"].dropna().unique()]
    if len(tasks) > 1:
        raise UserError(
            f"{study.name} has several tasks ({', '.join(tasks)}): a law describes one; fit one task's sweep"
        )
    columns = {"loss": study.default_quality} | dict(columns or {})
    if reasons := obstacles(done, columns["loss"]):
        choice = study.how_to_choose(columns["loss"])
        raise UserError(f"{study.name}: a law describes rows that compare. {reasons[0]} {choice}".rstrip())
    known = dict.fromkeys(NAMES, 1.0)  # units
    points = points_of_frame(table, columns, known, study.name, expressions=expressions)
    return replace(points, warnings=points.warnings + _mixtures(study, done, (*in_law, *points.others)))


def _mixtures(study: Study, done: pd.DataFrame, in_law: Collection[str]) -> tuple[str, ...]:
    """Return warnings about what varies in the study but is not part of any law; it counts as noise."""
    families = [str(name) for name in done["family"].dropna().unique()]
    warnings = []
    if len(families) > 1:
        warnings.append(f"One law for several families ({', '.join(families)}): their differences count as noise.")
    sizes = ("model", "budget", "seed", "precision")
    others = [axis for axis in study.varied if axis.split(".")[0] not in sizes and axis not in in_law]
    others = [axis for axis in others if done[axis].nunique() > 1]
    if others:
        warnings.append(f"The usual laws do not know of {', '.join(others)}: what it changes counts as noise.")
    return tuple(warnings)


@dataclass(frozen=True)
class _Table:
    """The source and the line numbers of rows, for error messages."""

    source: str
    lines: npt.NDArray[np.int64]
    """(n,) the line number of each row."""

    def numbers(self, frame: pd.DataFrame, name: str) -> Floats:
        """Return a column as float64 (n,), with missing values as NaN. Raises UserError for text, with its line."""
        values = frame[name]
        if pd.api.types.is_bool_dtype(values):
            raise UserError(f"{self.source}: column '{printable(name)}' holds true and false, no numbers")
        parsed = as_numbers(values)
        words = (parsed.isna() & values.notna()).to_numpy(dtype=bool)
        if words.any():
            first = int(np.flatnonzero(words)[0])
            if str(values.iloc[first]).strip().lower() not in ("nan", "na", "inf", "-inf"):
                text = printable(str(values.iloc[first]))[:40]
                raise UserError(f"{self.source}, line {self.lines[first]}: {printable(name)} is '{text}', no number")
        return parsed.to_numpy(dtype=np.float64, na_value=np.nan)

    def costs(self, frame: pd.DataFrame, name: str) -> Floats:
        """Return a column of costs (n,), with NaN for values that are not above 0, which means not measured."""
        values = self.numbers(frame, name)
        return np.where(np.isfinite(values) & (values > 0), values, np.nan)

    def weights(self, frame: pd.DataFrame, name: str) -> Floats:
        """Return a column of weights (n,). Raises UserError for one that is missing, infinite or below 0."""
        values = self.numbers(frame, name)
        bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if len(bad):
            value = "missing" if np.isnan(values[bad[0]]) else f"{values[bad[0]]:g}"
            raise UserError(
                f"{self.source}, line {self.lines[bad[0]]}: the weight {printable(name)} is {value}; it must be a "
                "finite number of 0 or more, and 0 leaves the row out"
            )
        return values

    def check_above_0(self, name: str, values: Floats) -> None:
        """Raise UserError for a number that is not above 0, with its line."""
        if (values <= 0).any():
            first = int(np.flatnonzero(values <= 0)[0])
            raise UserError(
                f"{self.source}, line {self.lines[first]}: {printable(name)} is {values[first]:g}; it must be above 0"
            )


def _completed(known: dict[str, Floats], named: dict[str, str]) -> tuple[dict[str, Floats], str]:
    """Return all four quantities, the missing one from C = 6ND, and a text that says where each comes from."""
    sizes = dict(known)  # _columns made sure that two of the three are known, or that FLOPs alone are enough
    if len(sizes) == 2:
        unknown = np.full_like(sizes["flops"], np.nan)
        return sizes | {"params": unknown, "tokens": unknown}, printable(
            f"C = {named['flops']}, loss = {named['loss']}"
        )
    if "flops" not in sizes:
        sizes["flops"] = 6 * sizes["params"] * sizes["tokens"]
    elif "tokens" not in sizes:
        sizes["tokens"] = sizes["flops"] / (6 * sizes["params"])
    elif "params" not in sizes:
        sizes["params"] = sizes["flops"] / (6 * sizes["tokens"])
    n, d, c = (sizes[key] for key in ("params", "tokens", "flops"))
    letters = {"params": f"{named.get('flops')}/6D", "tokens": f"{named.get('flops')}/6N", "flops": SIX_ND}
    letters |= {key: name for key, name in named.items() if key in known}
    ratio = _convention(c / (n * d)) if len(known) == len(NAMES) else ""
    said = f"N = {letters['params']}, D = {letters['tokens']}, C = {letters['flops']}{ratio}, loss = {named['loss']}"
    return sizes, printable(said)


def _convention(factor: Floats) -> str:
    """Return a text with the FLOPs per parameter and token."""
    low, high = float(factor.min()), float(factor.max())
    if high / low <= ONE_CONVENTION:
        return f" ({np.median(factor):.2f} N D)"
    return f" ({low:.2f} to {high:.2f} N D)"


def _columns(frame: pd.DataFrame, columns: Mapping[str, str], source: str, flops_alone: bool) -> dict[str, str]:
    """Return the column of each quantity that the table has. Raises UserError if a needed column is missing."""
    if frame.empty:
        raise UserError(f"{source} has no rows")
    names = [str(name) for name in frame.columns]
    folded = headings_of(frame)
    chosen = {key: name for key, usual in NAMES.items() if (name := next(filter(None, map(folded.get, usual)), None))}
    for key, name in columns.items():
        if name not in names and (key, name) != ("flops", SIX_ND):
            raise UserError(f"{source} has no column '{printable(name)}'.{nearest(name, names)}")
        chosen[key] = name
    if "loss" not in chosen:
        shown = printable(", ".join(names))
        raise UserError(f"{source} has no column for the loss; name it with {BY_HAND['loss']}. It has: {shown[:200]}")
    if re.search(r"perplexity|\bppl\b|_ppl$|^ppl_", chosen["loss"].strip().lower()):
        raise UserError(
            f"a law needs a loss, and {printable(chosen['loss'])} is exp(loss), which follows no such law: take its "
            "logarithm, or name the column of the loss with --loss"
        )
    if higher_is_better(chosen["loss"]):
        raise UserError(f"a law needs a loss, where lower is better; higher {printable(chosen['loss'])} is better")
    few = len(chosen) < 3 or (len(chosen) == 3 and chosen.get("flops") == SIX_ND)
    if few and flops_alone and chosen.get("flops", SIX_ND) != SIX_ND:
        return {key: chosen[key] for key in ("flops", "loss")}
    if few:
        options = ", ".join(BY_HAND[key] for key in NAMES if key not in chosen)
        shown = printable(", ".join(names))
        raise UserError(
            f"{source} needs two of params, tokens and flops beside the loss; name them with {options}. "
            f"It has: {shown[:200]}" + (". FLOPs alone are enough for --cost train_flops" if "flops" in chosen else "")
        )
    return chosen


def read_table(file: Path) -> pd.DataFrame:
    """Read a .csv, .tsv or Parquet file as a table. Raises UserError if that fails."""
    if reason := why_not_a_file(file):
        raise UserError(f"{file}: {reason}")
    if not file.exists():
        raise UserError(f"there is no file {file}")
    try:
        if file.suffix.lower() == ".parquet":
            return pd.read_parquet(file)
        with file.open(encoding="utf-8-sig") as opened:
            heading = opened.readline()
        separator = max(",;\t", key=heading.count)
        frame = pd.read_csv(file, sep=separator, encoding="utf-8-sig", low_memory=False, skip_blank_lines=False)
    except UnicodeDecodeError:
        raise UserError(f"{file} is no text in UTF-8") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"{file} is empty") from None
    except (ValueError, OSError) as problem:  # the parsing errors of pandas and pyarrow are ValueErrors
        raise UserError(f"{file} cannot be read as a table: {reason_of(problem)}") from None
    if not isinstance(frame.index, pd.RangeIndex):
        raise UserError(f"{file} has rows of more fields than its heading")
    return frame


def headings_of(frame: pd.DataFrame) -> dict[str, str]:
    """Return a table's headings by their names in lower case, with underscores; the first of several counts."""
    return {str(name).strip().lower().replace(" ", "_"): name for name in reversed(list(frame.columns))}


def _precisions(values: pd.Series) -> npt.NDArray[np.str_]:
    """Return the name of each row's precision (n,): a number of bits, such as 8, is the type of that width."""
    bits = as_numbers(values)
    names = values.astype("string").fillna("unknown").to_numpy(dtype=np.str_)
    known = [NAME_OF_BITS.get(float(width)) for width in bits.fillna(0)]
    return np.array([of_bits or name for of_bits, name in zip(known, names, strict=True)], dtype=np.str_)


def _copies(frame: pd.DataFrame, used: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return a mask (n,) of the used rows that are equal to an earlier one in every column but a row number."""
    columns = [name for name in frame.columns if not str(name).startswith("Unnamed:")]
    copies = np.zeros(len(frame), dtype=bool)
    copies[used] = frame[used].duplicated(subset=columns).to_numpy(dtype=bool)
    return copies


def _repeats(sizes: Mapping[str, Floats], frame: pd.DataFrame, lines: npt.NDArray[np.int64]) -> str:
    """Return a warning about rows with the numbers of another row and a difference elsewhere, else ''."""
    headings = headings_of(frame)
    keys = dict(sizes) | ({"precision": frame[headings["precision"]].to_numpy()} if "precision" in headings else {})
    again = pd.DataFrame(keys).duplicated().to_numpy(dtype=bool)
    if not again.any():
        return ""
    shown = ", ".join(str(line) for line in lines[again][:5])
    rows = counted(int(again.sum()), "row", "has")
    return (
        f"{rows} the size, tokens and loss of another row, in line {shown}"
        f"{', ...' if again.sum() > 5 else ''}: if they are the same runs, leave them out: they narrow the intervals."
    )


def _names(frame: pd.DataFrame, lines: npt.NDArray[np.int64]) -> npt.NDArray[np.str_]:
    """Return what a reader calls each row (n,): the slug of a record, or the line of a file."""
    if "slug" in frame:
        return frame["slug"].astype(str).to_numpy(dtype=np.str_)
    return np.array([f"line {line}" for line in lines])


def _unit_column(
    frame: pd.DataFrame, headings: Mapping[str, str], chosen: str | None, sizes: Mapping[str, Floats]
) -> str | None:
    """Return the column that says which rows are one run, None if there is none.

    A column of names counts if it tells all rows apart, or if rows of one name have one size and several numbers of
    tokens, as milestones have.
    """
    if chosen is not None:
        return None if chosen == EACH_ROW else chosen
    if (name := next((headings[name] for name in UNITS if _has(frame, headings.get(name))), None)) is not None:
        return name
    for name in (headings[name] for name in RUN_NAMES if _has(frame, headings.get(name))):
        rows = pd.DataFrame({"name": frame[name].astype("string").to_numpy(), **sizes})
        by_name = rows.groupby("name")
        if rows["name"].is_unique or (
            (by_name["params"].nunique() == 1).all() and (by_name["tokens"].nunique() == by_name.size()).all()
        ):
            return name
    return None


def _has(frame: pd.DataFrame, name: str | None) -> bool:
    return name is not None and bool(frame[name].notna().any())


def _tally(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {words}" for words, count in counts.items())

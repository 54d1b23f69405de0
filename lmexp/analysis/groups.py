"""Rows in groups: the mean over seeds of each setting, with its standard deviation and its 95 % confidence interval.

The mean is taken over independent units. Milestones of one trunk are not independent, so rows of one `unit` within a
group are averaged to one value first, and `n` counts units. Rows that differ in a column of SPLITTING (task, texts,
tokens, device, schema) never share a group. Other differences within a group are listed in its column `mixed`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lmexp.analysis.comparable import SPLITTING, code, crowded
from lmexp.analysis.filters import grouping
from lmexp.analysis.frontier import is_done, numbers
from lmexp.analysis.quantiles import student
from lmexp.analysis.table import Study
from lmexp.errors import UserError

SD, HALF = "_sd", "_ci95"
"""Suffixes of column names: standard deviation, and half the width of the mean's 95 % interval (Student's t)."""
_MIXED = {"code": "code", "packages": "packages", "world_size": "processes", "energy_source": "energy sources"}


def default_grouping(study: Study) -> str | None:
    """Return all varied axes but the seed as an expression; None if no two finished rows differ in the seed alone.

    If runs have milestones, the tokens are added to the axes. Otherwise a mean would mix different training lengths.
    """
    axes = [axis for axis in study.varied if axis != "seed"]
    done = study.table[is_done(study.table)]
    by = [done[axis].astype(str) for axis in axes] or [pd.Series("", index=done.index)]
    if "seed" not in study.axes or done.empty or done.groupby(by)["seed"].nunique().max() < 2:
        return None
    if done["run_id"].duplicated().any() and "tokens" not in axes:
        axes.append("tokens")
    return ", ".join(f"`{axis}`" for axis in axes) or "`sweep`"


def grouped(table: pd.DataFrame, by: str, measures: Sequence[str]) -> pd.DataFrame:
    """Return one row per group of finished rows, in order of appearance.

    The columns are: the expressions of `by` (filters.py); the columns of SPLITTING that differ within a group; `n`;
    for each measure its mean, `<measure>_sd` and `<measure>_ci95`; and `mixed`. `n` counts the units that have the
    first measure. The standard deviation and the interval are null if `n` is 1. Speeds that were measured while other
    runs used the device are kept, and `mixed` says so.
    Raises UserError for an invalid expression, and for a measure that is not a numeric column.
    """
    done = is_done(table)
    values = {name: pd.Series(numbers(table, name), table.index)[done] for name in measures}
    by_key = _by_key(table, by)
    table = table[done]
    unit = next((table[name] for name in ("unit", "run_id") if name in table and table[name].notna().all()), None)
    unit = pd.Series(np.arange(len(table)), table.index) if unit is None else unit
    numbered = pd.DataFrame({name: column.where(np.isfinite(column)) for name, column in values.items()})
    units = numbered.groupby([*by_key, unit.rename("\0unit")], sort=False, dropna=False, observed=True).mean()
    names = list(range(len(by_key)))
    each = units.groupby(level=names, sort=False, dropna=False, observed=True)
    n, mean, sd = each.count(), each.mean(), each.std(ddof=1)
    columns = {str(name): mean.index.get_level_values(i) for i, name in enumerate(mean.index.names)}
    reserved = {"n", "mixed", *measures, *(f"{m}{end}" for m in measures for end in (SD, HALF))} & columns.keys()
    if reserved:
        raise UserError(f"cannot group by {', '.join(sorted(reserved))}: it is what the groups' means are of")
    result = pd.DataFrame(columns)
    result["n"] = n[measures[0]].to_numpy() if measures else each.size().to_numpy()
    for name in measures:
        result[name] = mean[name].to_numpy()
        result[name + SD] = sd[name].to_numpy()
        half = student(np.maximum(n[name] - 1, 1)) * sd[name] / np.sqrt(n[name])
        result[name + HALF] = np.asarray(half, dtype=float)
    result["mixed"] = _mixed(table, by_key).reindex(mean.index).fillna("").to_numpy()
    return result


def group_numbers(table: pd.DataFrame, by: str) -> pd.Series:
    """Return the number of each row's group, from 0, as a nullable integer; null if the row is not finished.

    Raises UserError for an invalid expression.
    """
    numbered = table[is_done(table)].groupby(_by_key(table, by), sort=False, dropna=False, observed=True).ngroup()
    return numbered.reindex(table.index).astype("Int64")


def _by_key(table: pd.DataFrame, by: str) -> list[pd.Series]:
    """Return what finished rows are grouped by: the expressions of `by`, and what else keeps rows of a group apart."""
    done = is_done(table)
    keys = {name: _keys(values)[done] for name, values in grouping(table, by).items()}
    return [column.rename(name) for name, column in (keys | _splitting(table[done], keys)).items()]


def _keys(values: pd.Series) -> pd.Series:
    """Return values to group by: floats become integers if all of them are whole, and null is kept as a value."""
    if pd.api.types.is_float_dtype(values):
        floats = values.to_numpy(dtype=float, na_value=np.nan)
        known = floats[np.isfinite(floats)]
        if np.isinf(floats).any():
            return values.astype("Float64")
        whole = bool((known == np.round(known)).all() and (np.abs(known) < 2**53).all())
        return pd.Series(pd.array(floats, dtype="Float64"), values.index).astype("Int64" if whole else "Float64")
    return values


def _splitting(table: pd.DataFrame, keys: Mapping[str, pd.Series]) -> dict[str, pd.Series]:
    """Return the columns of SPLITTING that differ within a group of `keys`."""
    split: dict[str, pd.Series] = {}
    for name in SPLITTING:
        if name in table and name not in keys and len(table):
            of_group = table[name].groupby(list(keys.values()), dropna=False, observed=True)
            if of_group.nunique(dropna=False).max() > 1:
                split[name] = table[name]
    return split


def _mixed(table: pd.DataFrame, by_key: list[pd.Series]) -> pd.Series:
    """Return for each group a text that names in what its rows differ besides the grouping."""
    words: list[pd.Series] = []
    for name, title in _MIXED.items():
        values = code(table) if name == "code" else table.get(name)
        if values is not None:
            differs = values.groupby(by_key, sort=False, dropna=False, observed=True).nunique() > 1
            words.append(differs.map({True: title, False: ""}))
    beside = crowded(table).groupby(by_key, sort=False, dropna=False, observed=True).any()
    words.append(beside.map({True: "speeds beside other work", False: ""}))
    together = pd.concat(words, axis=1).fillna("")
    return together.apply(lambda row: ", ".join(word for word in row if word), axis=1)

"""The means over seeds that the page shows: those of the table of groups, each with the runs that it is the mean of.

A setting is a group of finished runs that differ in the seed alone. If a reader selects only some of its runs, the
page's script takes the mean over these by the same formula (data.js), so it gets the quantiles of Student's t too.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.columns import setting_in_words
from lmexp.analysis.comparable import crowded
from lmexp.analysis.effects.noise import spread, t_quantile
from lmexp.analysis.effects.pairing import axis_value
from lmexp.analysis.filters import grouping
from lmexp.analysis.groups import HALF, SD, group_numbers
from lmexp.analysis.table import units_of
from lmexp.report.values import json_column, json_value
from lmexp.report.view import GROUP, TIED_WITH, StudyView

CURVE_MEANS = ("flops", "seconds", "dollars", "loss")
"""What is averaged over the runs of a setting at equal tokens."""


def page_means(view: StudyView, digits: int) -> dict[str, Any] | None:
    """Return the settings of a study; None if no two finished runs differ in the seed alone.

    `rows` has a column for each that the page has of the runs, and `n`, the independent runs. A
    number that differs within a setting is a mean, and `half` has half its 95 % interval; any other value that differs
    is null. `members` are the positions of each setting's rows, `unit` numbers the independent units of all rows.
    """
    table = view.table
    if view.group_by is None or not table["state"].eq("done").any():
        return None
    number = group_numbers(table, view.group_by)
    varying = _varying(table, number)
    keys_of_groups = grouping(table, view.group_by)
    named = dict.fromkeys([*view.options.quality, *view.options.cost, *varying])
    measures = [name for name in named if name not in keys_of_groups]
    means = view.means(measures)
    assert means is not None
    means = means.sort_values(GROUP, kind="stable", ignore_index=True)
    if not (means["n"] > 1).any():
        return None
    members = [np.flatnonzero((number == group).fillna(False)).tolist() for group in means[GROUP]]
    first = table.iloc[[rows[0] for rows in members]]
    differs = {str(name): _differs(table[name], number) for name in table}
    columns: dict[str, list[Any]] = {}
    for name in map(str, table):
        if name in varying:
            columns[name] = json_column(means[name], digits)
        else:
            columns[name] = [
                None if other else value
                for other, value in zip(differs[name], json_column(first[name], digits), strict=True)
            ]
    ends = {name + end for name in measures for end in (SD, HALF)}
    keys = [str(name) for name in means if name not in {"frontier", TIED_WITH, "n", "mixed", GROUP, *measures, *ends}]
    names = [
        setting_in_words(keys, map(axis_value, values), with_nulls=False)
        for values in means[keys].astype(object).where(means[keys].notna(), None).itertuples(index=False)
    ]
    shared = crowded(table).to_numpy()
    columns |= {
        "frontier": means["frontier"].tolist(),
        "slug": names,
        "label": names,
        "state": ["done"] * len(means),
        "run_id": [f"setting {group}" for group in means[GROUP]],
        "n": means["n"].astype(int).tolist(),
        "shared": [bool(shared[rows].any()) for rows in members],
    }
    if view.has_ties:
        columns[TIED_WITH] = json_column(means[TIED_WITH])
    return {
        "rows": columns,
        "half": {name: json_column(means[name + HALF], digits) for name in varying},
        "members": members,
        "unit": pd.factorize(units_of(table))[0].tolist(),
        "t": [t_quantile(df) for df in range(1, max(map(len, members)))],
    }


def _varying(table: pd.DataFrame, number: pd.Series) -> list[str]:
    """Return the columns of numbers, but for the seed, that differ within a group."""
    return [
        str(name)
        for name, values in table.items()
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and name != "seed"
        if _differs(values, number).any()
    ]


def _differs(values: pd.Series, number: pd.Series) -> np.ndarray:
    """Return for each group whether its rows differ in a column."""
    return (values.groupby(number, dropna=True).nunique(dropna=False) > 1).to_numpy()


def mean_curves(
    curves: Sequence[Mapping[str, Any]], means: Mapping[str, Any], run_ids: Sequence[str], digits: int
) -> list[dict[str, Any]]:
    """Return the mean curve of each setting, at the tokens that the curves of all its runs have, as lists.

    `half` is half the 95 % interval of the mean loss. Of settings with the same runs, such as milestones, only the last
    has a curve, and a setting whose runs are not all among the curves has none.
    """
    curve_of: dict[tuple[str, str], Mapping[str, Any]] = {(curve["run_id"], curve["kind"]): curve for curve in curves}
    last = {tuple(sorted({run_ids[row] for row in rows})): at for at, rows in enumerate(means["members"])}
    drawn = []
    for runs, at in last.items():
        for kind in ("train", "validation"):
            if all((run, kind) in curve_of for run in runs):
                mean = _mean_curve([curve_of[run, kind] for run in runs], digits)
                drawn.append({"run_id": means["rows"]["run_id"][at], "kind": kind, **mean})
    return [curve for curve in drawn if curve["tokens"]]


def _mean_curve(curves: Sequence[Mapping[str, Any]], digits: int) -> dict[str, list[Any]]:
    points: dict[float, list[tuple[int, int]]] = defaultdict(list)
    for curve, each in enumerate(curves):
        for point, tokens in enumerate(each["tokens"]):
            points[tokens].append((curve, point))
    shared = [tokens for tokens in sorted(points) if len(points[tokens]) == len(curves)]
    lists: dict[str, list[Any]] = {"tokens": shared, "half": [], **{name: [] for name in CURVE_MEANS}}
    for tokens in shared:
        for name in CURVE_MEANS:
            values = [curves[curve][name][point] for curve, point in points[tokens]]
            mean = None if None in values else spread(values)
            lists[name].append(json_value(mean and mean.mean, digits))
            if name == "loss":
                lists["half"].append(json_value(mean and mean.half, digits))
    return lists

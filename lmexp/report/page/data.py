"""What the page is given: the study as plain values for its script and its charts, as JSON.

The table goes by column, so that each name is in the file once; numbers keep the digits that a screen can
show. What 10,000 runs hold does not fit into a file that opens at once: curves share ALL_POINTS points, and
`curves_note` says what was left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.columns import axis_headings, format_number, number_format
from lmexp.analysis.effects.effects import effects_by_quality
from lmexp.analysis.frontier import frontier, numbers
from lmexp.analysis.table import Study, final_rows
from lmexp.report.charts.axes import as_script, effects_chart, heat_chart, parallel_chart, shown_axes
from lmexp.report.charts.base import Groups, measured
from lmexp.report.charts.curves import CURVE_AXES, curves_chart
from lmexp.report.charts.scatter import costs, qualities, scatter_chart
from lmexp.report.terminal.study import unfinished
from lmexp.runs.columns import COLUMNS, QUALITIES, column, higher_is_better
from lmexp.runs.directory import RunDir

RUN_POINTS = 300
"""Points of a curve that a screen can show; a longer curve is thinned to as many."""
ALL_POINTS = 60_000
"""Points of all curves together that a browser draws in a second or two."""
FEWEST_POINTS = 6
"""A curve of fewer shows no shape: beyond, training's own curves are left out, then whole runs."""
LEADING = tuple(column.name for column in COLUMNS.values() if column.leads_page)
"""The first costs and speeds in the table, if they were measured."""
IN_TOOLTIP = tuple(column.name for column in COLUMNS.values() if column.in_tooltip)
"""What the tooltip of a run shows besides its settings."""
LINES = 8
"""Vertical lines that a screen has room for."""


def page_data(study: Study, quality: str, cost: str) -> dict[str, Any]:
    """Return all that the page's script needs, but for the runs' details (details.py).

    Raises UserError for a quality or cost that is no column of numbers.
    """
    marks = frontier(study.table, quality, cost)
    curves, note = _curves(study)
    lines, places = _lines(study, quality, cost)
    effects = _effects(study, qualities(study.table, quality), cost)
    axes = shown_axes(study)
    charts: dict[str, Any] = {"scatter": scatter_chart(study, quality, cost)}
    if curves:
        charts["curves"] = curves_chart(study)
    if len(lines) > 2:
        charts["parallel"] = parallel_chart(study, lines)
    if effects:
        charts["effects"] = effects_chart(study, quality, effects)
    if len(axes) > 1:
        charts["heat"] = heat_chart(study, quality, axes)
    used = _used(study.table)
    return {
        "n_rows": len(study.table),
        "rows": {
            "frontier": marks.tolist(),
            **{name: _plain(study.table[name]) for name in used},
            **places,
        },
        "columns": _columns(study, quality, cost),
        "sort": {"name": quality, "ascending": not higher_is_better(quality)},
        "varied": study.varied,
        "told": [*study.varied, *(name for name in measured(study.table, IN_TOOLTIP) if name not in study.varied)],
        "lines": lines,
        "effects": effects,
        "curves": curves,
        "curves_note": note,
        "charts": {name: chart.to_dict() for name, chart in charts.items()},
        "choices": _choices(study, quality, cost, curves, axes),
    }


def _choices(
    study: Study, quality: str, cost: str, curves: Sequence[Mapping[str, Any]], axes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return what a reader may choose: for each parameter of the charts its options, as [value, label]."""

    def titled(names: Sequence[str]) -> list[list[str]]:
        heads = axis_headings(study.varied)
        return [[name, heads.get(name) or column(name).title] for name in names]

    against = [name for name in CURVE_AXES if any(value is not None for curve in curves for value in curve[name])]
    words = {"tokens": "tokens", "flops": "FLOPs", "seconds": "seconds", "dollars": "dollars"}
    groups = list(Groups.of(study).values)
    return {
        "quality": {"value": quality, "options": titled(qualities(study.table, quality))},
        "cost": {"value": cost, "options": titled(costs(study.table, cost))},
        "colour": {"value": groups[0], "options": titled(groups)},
        "against": {"value": "tokens", "options": [[name, words[name]] for name in against or ["tokens"]]},
        "down": {"value": axes[0] if axes else None, "options": titled(axes)},
        "across": {"value": axes[1] if len(axes) > 1 else None, "options": titled(axes)},
    }


def _used(table: pd.DataFrame) -> list[str]:
    """Return the columns that have a value."""
    return [name for name in map(str, table) if table[name].notna().any() or name in ("state", "slug", "loss")]


def _plain(values: pd.Series) -> list[Any]:
    """Return a column as JSON values, null as None, with eight digits at most; no number is infinite."""
    if pd.api.types.is_float_dtype(values):
        floats = values.to_numpy(dtype=float, na_value=np.nan)
        return [float(f"{value:.8g}") if np.isfinite(value) else None for value in floats]
    return values.astype(object).where(values.notna(), None).tolist()


def _columns(study: Study, quality: str, cost: str) -> list[dict[str, Any]]:
    """Return how the page shows each column: those that lead, then those that wait to be asked for."""
    used = _used(study.table)
    scores = [name for name in used if name.startswith("score/") and not name.startswith("score/bench-")]
    state = ["state"] if len(unfinished(study.table)) else []
    lead = ["slug", *study.varied, *state, quality, *QUALITIES[:3], cost, *LEADING, *scores]
    lead = [name for name in dict.fromkeys(lead) if name in used]
    headings = axis_headings(study.varied)
    mark = {"name": "frontier", "title": "●", "unit": "", "help": "on the frontier", "format": "", "lead": True}
    mark |= {"numeric": False, "higher_is_better": True}
    return [mark] + [
        _column(study.table, name, headings.get(name), name in lead)
        for name in [*lead, *(name for name in used if name not in lead)]
    ]


def _column(table: pd.DataFrame, name: str, heading: str | None, lead: bool) -> dict[str, Any]:
    values, words = table[name], column(name)
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return {
        "name": name,
        "title": heading or words.title,
        "unit": "score" if name.startswith("score/") else words.unit,
        "help": f"{name}: {words.meaning}" if words.meaning else name,
        "format": number_format(name, values.dropna().astype(float)) if numeric else "",
        "numeric": numeric,
        "higher_is_better": higher_is_better(name),
        "lead": lead,
    }


def _curves(study: Study) -> tuple[list[dict[str, Any]], str]:
    """Return the curves as objects of lists, and what was left out of them, in words.

    Curves are read one by one and thinned at once: all points of 10,000 runs would be gigabytes.
    """
    share = ALL_POINTS // max(len(study.runs), 1)
    kinds = ("train", "validation") if share >= 2 * FEWEST_POINTS else ("validation",)
    most = min(RUN_POINTS, max(share // len(kinds), FEWEST_POINTS))
    prices = _prices(study.table)
    kept = list(study.runs.items())
    kept = [kept[i] for i in _spread(len(kept), ALL_POINTS // FEWEST_POINTS)]
    curves = []
    thinned = False
    for run_id, run in kept:
        for kind, points in _by_kind(run).items():
            if kind in kinds:
                thinned = thinned or len(points) > most
                points = [points[i] for i in _spread(len(points), most)]
                curves.append({"run_id": run_id, "kind": kind, **_lists(points, prices.get(run_id))})
    notes = ["Long curves are thinned."] if thinned else []
    if "train" not in kinds:
        notes.append("Of so many runs only the validation curves are kept.")
    if len(kept) < len(study.runs):
        notes.append(f"{len(study.runs) - len(kept):,} runs have no curve here.")
    return curves, " ".join(notes)


def _by_kind(run: RunDir) -> dict[str, list[dict[str, Any]]]:
    """Return the points of a run's curve by kind, train and validation, the loss under one name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for point in run.read_curve():
        if "train_loss" in point:
            found.setdefault("train", []).append({**point, "loss": point["train_loss"]})
        elif "loss" in point:
            found.setdefault("validation", []).append(point)
    return found


def _lists(points: Sequence[Mapping[str, Any]], price: float | None) -> dict[str, list[float | None]]:
    """Return points as lists, one for each axis and the loss; `price` is in dollars a second."""
    lists = {name: [_rounded(point.get(name)) for point in points] for name in ("tokens", "flops", "seconds", "loss")}
    dollars = [None if price is None or seconds is None else _rounded(price * seconds) for seconds in lists["seconds"]]
    return {**lists, "dollars": dollars}


def _prices(table: pd.DataFrame) -> dict[str, float]:
    """Return what a second of each run costs, in dollars, where there is a price: that of all its processes."""
    hourly, processes = numbers(table, "dollars_per_hour"), np.nan_to_num(numbers(table, "world_size"), nan=1.0)
    prices = zip(table["run_id"], hourly * processes / 3600, strict=True)
    return {str(run_id): float(price) for run_id, price in prices if np.isfinite(price)}


def _lines(study: Study, quality: str, cost: str) -> tuple[list[dict[str, Any]], dict[str, list[float | None]]]:
    """Return the vertical lines of the parallel coordinates, and where each row crosses them, from 0 to 1.

    A number whose largest value is more than 20 times its smallest is placed by its logarithm.
    """
    heads = axis_headings(study.varied)
    names = [name for name in study.varied if study.table[name].nunique() > 1]
    names = [*names[: LINES - 2], *(name for name in (cost, quality) if name not in names)]
    lines: list[dict[str, Any]] = []
    places: dict[str, list[float | None]] = {}
    for name in names:
        found = _places(study.table, name, study.axes.get(name, []))
        if found:
            key = f"line{len(lines)}"
            places[key], ticks = found
            lines.append({"key": key, "name": name, "title": heads.get(name) or column(name).title, "ticks": ticks})
    return lines, places


def _places(table: pd.DataFrame, name: str, order: Sequence[Any]) -> tuple[list[float | None], list[Any]] | None:
    """Return where each value of a column lies between 0 and 1, and the places that have a label."""
    values = table[name]
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        at = numbers(table, name)
        finite = at[np.isfinite(at)]
        if not len(finite):
            return None
        low, high = float(finite.min()), float(finite.max())
        scale = np.log if low > 0 and high > 20 * low else np.positive
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (
                (scale(at) - scale(low)) / (scale(high) - scale(low)) if high > low else np.where(at == low, 0.5, at)
            )
        spec = number_format(name, finite)
        marks = np.unique(finite) if len(np.unique(finite)) <= 6 else np.array([low, high])
        ticks = [
            [float((scale(m) - scale(low)) / (scale(high) - scale(low))) if high > low else 0.5, format_number(m, spec)]
            for m in map(float, marks)
        ]
        return [round(float(s), 4) if np.isfinite(s) else None for s in share], ticks
    known = list(dict.fromkeys([*map(str, order), *map(str, values.dropna().unique())]))
    present = set(map(str, values.dropna()))
    known = [value for value in known if value in present]
    if not known:
        return None
    where = {value: i / (len(known) - 1) if len(known) > 1 else 0.5 for i, value in enumerate(known)}
    few = [known[i] for i in _spread(len(known), 12)]
    return [None if pd.isna(v) else where[str(v)] for v in values], [[where[value], value] for value in few]


def _effects(study: Study, names: Sequence[str], cost: str) -> list[dict[str, Any]]:
    """Return the effects of the axes on each of the columns `names`, as analysis/effects has them.

    Each has the rows of its pairs (`before` and `after`), and for each column with these pairs half the width of one
    pair's 95 % interval, null if the scatter is unknown: the page shows the mean over the pairs that are selected.
    """
    final = study.table.index.isin(final_rows(study.table).index)
    row_of = {study.table["run_id"].iloc[i]: int(i) for i in np.flatnonzero(final)}
    axes, heads = shown_axes(study), axis_headings(study.varied)
    known: dict[tuple[str, tuple[str, ...], tuple[str, ...]], dict[str, Any]] = {}
    for task, of_task in study.by_task.items():
        for name, effects in effects_by_quality(of_task, names, cost).items():
            for effect in (effect for axis in axes for effect in effects.get(axis, [])):
                pairs = effect.pairs
                label = f"{heads[effect.axis]}: {as_script(effect.value)} against {as_script(effect.base)}"
                label = f"{task}, {label}" if len(study.by_task) > 1 else label
                if (label, pairs.before, pairs.after) not in known:
                    rows = ([row_of[run] for run in runs] for runs in (pairs.before, pairs.after))
                    known[label, pairs.before, pairs.after] = {
                        "label": label,
                        **dict(zip(("before", "after"), rows, strict=True)),
                        "half_of_one_pair": {},
                    }
                known[label, pairs.before, pairs.after]["half_of_one_pair"][name] = effect.half_of_one_pair
    return list(known.values())


def pair_changes(data: Mapping[str, Any], quality: str) -> list[dict[str, Any]]:
    """Return the changes of a quality in all pairs of the page's data, as the page's script gives them to the chart."""
    values = data["rows"][quality]
    return [
        {"label": effect["label"], "pair": pair, "change": values[after] - values[before]}
        for effect in data["effects"]
        if quality in effect["half_of_one_pair"]
        for pair, (before, after) in enumerate(zip(effect["before"], effect["after"], strict=True))
    ]


def _spread(count: int, most: int) -> list[int]:
    """Return at most `most` positions among `count`, evenly spread, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _rounded(value: float | None) -> float | None:
    """Return a number with the six digits that a screen can show."""
    return None if value is None else float(f"{value:.6g}")

"""The data of the page: a study as plain values, as JSON, for the script and the charts.

The rows are stored by column, so that each name is in the file once. Numbers keep as many digits as a screen can show.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from altair.utils.schemapi import debug_mode

from lmexp.analysis.columns import axis_headings, number_format, setting_in_words, value_text
from lmexp.analysis.comparable import crowded
from lmexp.analysis.effects.effects import effects_by_quality
from lmexp.analysis.effects.pairing import axis_values
from lmexp.analysis.filters import kind_of_column, names_of
from lmexp.analysis.frontier import is_done
from lmexp.analysis.rankable import obstacles, rank_groups
from lmexp.analysis.table import Study, final_rows, names_of_rows
from lmexp.report.charts.axes import by_effect, effects_chart, heat_chart, parallel_chart, shown_axes
from lmexp.report.charts.base import Groups, measured
from lmexp.report.charts.curves import CURVE_AXES, curves_chart
from lmexp.report.charts.lead import lead_of
from lmexp.report.charts.scatter import Ranks, costs, qualities, scatter_chart
from lmexp.report.options import ViewOptions
from lmexp.report.page.curves import DIGITS as CURVE_DIGITS
from lmexp.report.page.curves import page_curves
from lmexp.report.page.means import mean_curves, page_means
from lmexp.report.page.parallel import parallel_lines
from lmexp.report.said import Said, said_of
from lmexp.report.terminal.study import unfinished
from lmexp.report.values import json_column
from lmexp.report.view import TIED_WITH, StudyView
from lmexp.runs.columns import COLUMNS, DEVICE_BOUND, column, higher_is_better

LEADING_QUALITIES = ("loss", "perplexity", "bits_per_byte")
"""Shown beside the chosen quality; the others can be asked for."""
LEADING = tuple(column.name for column in COLUMNS.values() if column.leads_page)
"""The first costs and speeds in the table, if they were measured."""
IN_TOOLTIP = tuple(column.name for column in COLUMNS.values() if column.in_tooltip)
"""What the tooltip of a run shows besides its settings."""
DIGITS = 8
"""Significant digits of a number in the table."""


def page_data(study: Study, quality: str, cost: str, said: Said | None = None) -> dict[str, Any]:
    """Return everything that the page's script needs except the details of the runs (details.py).

    `said` is what the report says of the study, if it is known already.
    Raises UserError for a quality or cost that is no column of numbers.
    """
    view = StudyView.of(study, ViewOptions(quality=(quality,), cost=(cost,)))
    tied = [None if pd.isna(name) else name for name in view.tied_with]
    curves, note = page_curves(study)
    lines, heights = parallel_lines(study, quality, cost)
    effects = _effects(study, qualities(study.table, quality), cost)
    order = by_effect(study, quality, effects)
    groups = Groups.of(study, order)
    axes = shown_axes(study, order)
    ranks = Ranks.of(study, qualities(study.table, quality))
    with debug_mode(False):  # Altair would check each part of a chart; `to_dict` checks the whole
        charts: dict[str, Any] = {"scatter": scatter_chart(study, quality, cost, groups, ranks)}
        if curves:
            charts["curves"] = curves_chart(study, curves, groups)
        if len(lines) > 2:
            charts["parallel"] = parallel_chart(lines, groups)
        if effects:
            charts["effects"] = effects_chart(study, quality, effects)
        if len(axes) > 1:
            charts["heat"] = heat_chart(study, quality, axes)
        lead = lead_of(study, said or said_of(study, quality, cost), quality, charts)
    if lead and lead.chart is not None:
        charts = {lead.name: lead.chart} | charts
    used = _used(study.table)
    means = page_means(view, DIGITS)
    if means:
        means["curves"] = mean_curves(curves, means, study.table["run_id"].tolist(), CURVE_DIGITS)
    shared = crowded(study.table)
    return {
        "n_rows": len(study.table),
        "rows": {
            "frontier": view.marks.tolist(),
            **({TIED_WITH: tied} if view.has_ties else {}),
            **ranks.fields,
            "label": _labels(study),
            **({"shared": shared.tolist()} if shared.any() else {}),
            **{name: json_column(study.table[name], DIGITS) for name in used},
            **heights,
        },
        "means": means,
        "about_ties": view.about_ties,
        "rank_fields": ranks.field_of,
        "parts": ranks.parts,
        "mixed_curves": _about_mixed_curves(study, ranks),
        "columns": [*_marks(view), *_columns(study, quality, cost)],
        "filter": filter_data(study.table.assign(frontier=view.marks)),
        "sort": {"name": quality, "ascending": not higher_is_better(quality)},
        "varied": study.varied,
        "told": [
            *study.varied,
            *([TIED_WITH] if view.has_ties else []),
            *(name for name in measured(study.table, IN_TOOLTIP) if name not in study.varied),
        ],
        "lines": lines,
        "effects": effects,
        "curves": curves,
        "curves_note": note,
        "charts": {name: chart.to_dict() for name, chart in charts.items()},
        "lead": {"name": lead.name, "reads": lead.reads, "words": lead.words} if lead else None,
        "choices": _choices(study, quality, cost, curves, axes, groups),
    }


def _about_mixed_curves(study: Study, ranks: Ranks) -> str:
    """Return why the losses of several runs do not compare, or an empty text if they do."""
    why = obstacles(study.table[is_done(study.table)], "loss") if ranks.field_of.get("loss") in ranks.parts else []
    return why[0] if why else ""


def filter_data(table: pd.DataFrame) -> dict[str, Any]:
    """Return what the filter (static/filter.js) knows of the columns: the kind of each, and how they may be named."""
    return {
        "kinds": {str(name): kind_of_column(table[name]) for name in table},
        "spellings": names_of(table).spellings,
    }


def _choices(
    study: Study,
    quality: str,
    cost: str,
    curves: Sequence[Mapping[str, Any]],
    axes: Sequence[str],
    groups: Groups,
) -> dict[str, dict[str, Any]]:
    """Return what a reader can choose: the options of each parameter of the charts, as [value, label]."""

    def titled(names: Sequence[str]) -> list[list[str]]:
        heads = axis_headings(study.varied)
        return [[name, heads.get(name) or column(name).title] for name in names]

    against = [name for name in CURVE_AXES if any(value is not None for curve in curves for value in curve[name])]
    words = {"tokens": "tokens", "flops": "FLOPs", "seconds": "seconds", "dollars": "dollars"}
    return {
        "quality": {"value": quality, "options": titled(qualities(study.table, quality))},
        "cost": {"value": cost, "options": titled(costs(study.table, cost))},
        "colour": {"value": next(iter(groups.values)), "options": titled(list(groups.values))},
        "against": {"value": "tokens", "options": [[name, words[name]] for name in against or ["tokens"]]},
        "down": {"value": axes[0] if axes else None, "options": titled(axes)},
        "across": {"value": axes[1] if len(axes) > 1 else None, "options": titled(axes)},
    }


def _labels(study: Study) -> list[str]:
    """Return what each run is called beside its mark: its settings in words, or its name if nothing varies."""
    values = zip(*(axis_values(study.table[axis]) for axis in study.varied), strict=True)
    if not study.varied:
        return names_of_rows(study.table)
    return [setting_in_words(study.varied, of_run, with_nulls=False) for of_run in values]


def _used(table: pd.DataFrame) -> list[str]:
    """Return the columns that have a value."""
    return [name for name in map(str, table) if table[name].notna().any() or name in ("state", "slug", "loss")]


def _marks(view: StudyView) -> list[dict[str, Any]]:
    """Return how the page shows what is no column of the study: which rows are on the frontier, and which are tied."""
    plain = {"unit": "", "format": "", "lead": True, "numeric": False}
    marks = [plain | {"name": "frontier", "title": "●", "help": "on the frontier", "higher_is_better": True}]
    if view.has_ties:
        said = "the setting that costs no more and that the seeds do not tell from this one"
        marks.append(plain | {"name": TIED_WITH, "title": "tied with", "help": said, "higher_is_better": False})
    return marks


def _columns(study: Study, quality: str, cost: str) -> list[dict[str, Any]]:
    """Return how the page shows each column; those that are shown at first come first."""
    used = _used(study.table)
    scores = [name for name in used if name.startswith("score/") and not name.startswith("score/bench-")]
    state = ["state"] if len(unfinished(study.table)) else []
    lead = ["slug", *study.varied, *state, quality, *LEADING_QUALITIES, cost, *LEADING, *scores]
    lead = [name for name in dict.fromkeys(lead) if name in used]
    headings = axis_headings(study.varied)
    return [
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
        "device_bound": name in DEVICE_BOUND,
    }


def _effects(study: Study, names: Sequence[str], cost: str) -> list[dict[str, Any]]:
    """Return the effects of the axes on each of the columns `names`, as analysis/effects has them.

    Each has the rows of its pairs (`before` and `after`), and for each column with these pairs half the width of one
    pair's 95 % interval, null if the scatter is unknown: the page shows the mean over the pairs that are selected.
    """
    final = study.table.index.isin(final_rows(study.table).index)
    row_of = {study.table["run_id"].iloc[i]: int(i) for i in np.flatnonzero(final)}
    axes, heads = shown_axes(study), axis_headings(study.varied)
    known: dict[tuple[str, tuple[str, ...], tuple[str, ...]], dict[str, Any]] = {}
    for title, part, of_part in _rankable(study, names):
        for name, effects in effects_by_quality(part, of_part, cost).items():
            for effect in (effect for axis in axes for effect in effects.get(axis, [])):
                pairs = effect.pairs
                label = f"{heads[effect.axis]}: {value_text(effect.value)} against {value_text(effect.base)}"
                short, label = label, f"{title}, {label}" if title else label
                if (label, pairs.before, pairs.after) not in known:
                    rows = ([row_of[run] for run in runs] for runs in (pairs.before, pairs.after))
                    known[label, pairs.before, pairs.after] = {
                        "label": label,
                        "short": short,
                        "axis": effect.axis,
                        **dict(zip(("before", "after"), rows, strict=True)),
                        "half_of_one_pair": {},
                    }
                known[label, pairs.before, pairs.after]["half_of_one_pair"][name] = effect.half_of_one_pair
    return list(known.values())


def _rankable(study: Study, names: Sequence[str]) -> Iterator[tuple[str, Study, list[str]]]:
    """Yield each part of a study whose rows may be ranked together, its title, and the columns that it is a part for.

    The title is empty if the part is the whole study.
    """
    alike: dict[bytes, list[str]] = {}
    for name in names:
        alike.setdefault(rank_groups(study.table, name).tobytes(), []).append(name)
    for of_part in alike.values():
        parts = study.rankable(of_part[0])
        for title, part in parts.items():
            yield (title if len(parts) > 1 else ""), part, of_part


def pair_changes(data: Mapping[str, Any], quality: str) -> list[dict[str, Any]]:
    """Return the changes of a quality in all pairs of the page's data, as the page's script gives them to the chart."""
    values = data["rows"][quality]
    return [
        {"label": effect["label"], "pair": pair, "change": values[after] - values[before]}
        for effect in data["effects"]
        if quality in effect["half_of_one_pair"]
        for pair, (before, after) in enumerate(zip(effect["before"], effect["after"], strict=True))
    ]

"""A study as one JSON document, for other programs."""

from dataclasses import asdict
from typing import Any

import pandas as pd

from lmexp.analysis.effects.effects import all_effects, noise_floor
from lmexp.analysis.effects.ranking import RankedArm
from lmexp.analysis.effects.ties import Tie
from lmexp.analysis.table import Study
from lmexp.report.forecasts import forecasts_document
from lmexp.report.said import said_of
from lmexp.report.values import json_column, json_value
from lmexp.report.view import StudyView


def study_document(shown: StudyView) -> dict[str, Any]:
    """Return the study's question, findings, axes, rows (under the record's names), frontier, effects and groups."""
    study, options = shown.study, shown.options
    quality, cost = options.quality[0], options.cost[0]
    found = said_of(study, quality, cost)
    table = study.table.iloc[shown.order] if options.sort else study.table
    marks = shown.marks[shown.order] if options.sort else shown.marks
    rows = table[shown.names] if options.columns else table
    document = {
        "name": study.name,
        "question": study.question,
        "answer": list(found.answer),
        "findings": found.sentences,
        "axes": study.axes,
        "quality": quality if len(options.quality) == 1 else list(options.quality),
        "cost": cost if len(options.cost) == 1 else list(options.cost),
        "frontier": table["run_id"][marks].tolist(),
        "ties": _ties(shown),
        "knee": {name: shown.parts[name].table["run_id"].iloc[at] for name, at in shown.knees.items()},
        "hypervolume": {name: asdict(volume) for name, volume in shown.hypervolumes.items()},
        "effects": _effects(shown),
        "noise": _noise(shown),
        "groups": None if shown.groups is None else records(shown.groups),
        "runs": records(rows),
        "skipped": [cell.model_dump() for cell in study.skipped],
    }
    if shown.answers:
        document["answers"] = shown.answers
    if shown.forecasts:
        document["forecasts"] = forecasts_document(shown.forecasts)
    if shown.detection:
        document["detect"] = shown.detection.document
    return document


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows as JSON has them: null for what is missing and for what is not finite."""
    columns = {str(name): json_column(table[name]) for name in table}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _effects(shown: StudyView) -> list[dict[str, Any]]:
    effects = [(name, effect) for name, one in shown.parts.items() for effect in _of(one, shown)]
    return [
        {
            "task": next(iter(shown.parts[name].tasks), None),
            "part": name if len(shown.parts) > 1 else None,
            "axis": effect.axis,
            "base": effect.base,
            "value": effect.value,
            "pairs": len(effect.changes),
            "change": json_value(effect.mean),
            "half_width_95": json_value(effect.half),
            "p": json_value(effect.p),
            "p_holm": json_value(effect.adjusted),
            "within_noise": effect.is_within_noise,
            "cost_ratio": json_value(effect.cost_ratio),
            "speed_ratio": json_value(effect.speed_ratio),
        }
        for name, effect in effects
    ]


def _of(study: Study, shown: StudyView) -> list[Any]:
    by_axis = all_effects(study, shown.options.quality[0], shown.options.cost[0])
    return [effect for effects in by_axis.values() for effect in effects]


def _ties(shown: StudyView) -> dict[str, Any]:
    """Return for each part what is tied on its frontier; null if the seeds do not say, and `about` says why."""
    run_ids = shown.table["run_id"]

    def arm(one: RankedArm, quality: str) -> dict[str, Any]:
        return {"name": one.name, "runs": list(run_ids[list(one.rows)]), quality: one.quality.mean, "n": one.quality.n}

    def tie(one: Tie, quality: str) -> dict[str, Any]:
        sides = {"setting": arm(one.arm, quality), "tied_with": arm(one.other, quality)}
        return sides | {"on_frontier": one.is_on_frontier, "difference": one.difference, "p_holm": one.p}

    parts = {
        name: ties
        and {
            "compared": ties.compared,
            "pairs": ties.n_pairs,
            "tied": [tie(one, ties.quality) for one in ties.ties],
        }
        for name, ties in shown.ties.items()
    }
    return {"about": shown.about_ties, "parts": parts}


def _noise(shown: StudyView) -> dict[str, Any]:
    floors = {name: noise_floor(one, shown.options.quality[0]) for name, one in shown.parts.items()}
    return {name: asdict(noise) for name, noise in floors.items() if noise}

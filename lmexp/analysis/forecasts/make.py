"""Make forecasts: from a sweep's finished runs, by the law that predicts the largest of them best."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from lmexp.analysis.forecasts.same_size import CONDITIONS, CONFIG_CONDITIONS, SAME, SAME_BEST_SIZE
from lmexp.analysis.frontier import is_done
from lmexp.analysis.scaling.answers import Answer, answer
from lmexp.analysis.scaling.law_fit import times_as_wide
from lmexp.analysis.scaling.laws import DEFAULT_LAWS, Law
from lmexp.analysis.scaling.other_columns import OPTIMIZERS
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.readers import points_of_study
from lmexp.analysis.table import Study, config_values, plain
from lmexp.errors import UserError
from lmexp.files import digest_of
from lmexp.runs.forecasts import Forecast, SealedPoint, problem_of
from lmexp.runs.origin import code_version, utc

SIZES = ("model", "budget", "seed")
"""Axes that begin like this change from size to size, or by chance: a run need not have them in common with others."""


@dataclass(frozen=True)
class FitOptions:
    """How the law is fitted; the same options as those of a fit."""

    laws: Sequence[Law] = DEFAULT_LAWS
    columns: Mapping[str, str] = field(default_factory=dict)
    where: str | None = None
    all_runs: bool = False
    delta: float | None = None
    bootstraps: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Prediction:
    """What will be sealed, but for its date."""

    content: dict[str, Any]
    """The fields of a forecast."""

    def at(self, date: float) -> Forecast:
        """Return the forecast as of a date, in seconds since the epoch. Raises UserError for numbers out of range."""
        try:
            return Forecast.model_validate(self.content | {"date": date, "date_utc": utc(date)})
        except ValidationError as error:
            raise UserError(f"this forecast cannot be sealed: {problem_of(error)}") from None


def predictions(
    study: Study, budgets: Sequence[float], runs: Sequence[Mapping[str, float | str]], options: FitOptions
) -> tuple[list[Prediction], Answer]:
    """Return a prediction for each budget in FLOPs, then for each run, and the fit that they come from.

    Raises UserError if no law can be fitted, for a law without size and tokens, and for an interval without an end.
    """
    if other := [law.name for law in options.laws if not law.has_optimum]:
        raise UserError(f"--law {other[0]}: a forecast takes a law in parameters and tokens")
    points = points_of_study(study, options.columns)
    answered = answer(points, budgets, None, options.delta, options.bootstraps, options.seed, options.laws, runs)
    law = answered.trusted
    if budgets and law.effects:
        what = "precisions" if points.precision is not None else "optimizers or amounts of text"
        raise UserError(
            f"these runs have several {what}, so a budget does not say which run is meant: choose one with --where, or "
            "name the run with --predict"
        )
    wanted: list[tuple[str, dict[str, float | str]]] = [
        ("flops", {"params": float(row.params.value), "tokens": float(row.tokens.value), "flops": row.flops})
        for row in answered.best
        if budgets and row.by == law.law.name
    ]
    wanted += [("run", dict(run)) for run in runs]
    shared = _shared_content(study, answered, options)
    return [Prediction(shared | _own_content(study, answered, at, run, shared)) for at, run in wanted], answered


def _own_content(
    study: Study, answered: Answer, at: str, run: dict[str, float | str], shared: dict[str, Any]
) -> dict[str, Any]:
    """Return the fields of a forecast that depend on its run."""
    law = answered.trusted
    known = {key: value for key, value in run.items() if key not in ("params", "tokens", "flops")}
    params, tokens = float(run["params"]), float(run["tokens"])
    flops = float(run.get("flops", answered.price.at(params) * tokens))
    predicted = law.prediction(params, tokens, **known)
    value, low, high = (float(part) for part in predicted)
    if not (math.isfinite(value) and math.isfinite(high) and low > 0):
        raise UserError(
            f"{law.law.name} gives a run of {flops:.3g} FLOPs an interval without an end. More runs, or a law with "
            "fewer parameters, would give one"
        )
    named = {"params": params, "tokens": tokens, "flops": flops}
    same = {"flops": SAME, "params": SAME_BEST_SIZE} if at == "flops" else {"params": SAME, "tokens": SAME}
    if "unique_tokens" in known:
        named["unique_tokens"] = float(known["unique_tokens"])
        same["unique_tokens"] = SAME
    conditions = dict(shared["conditions"])
    for name, headings in (("precision", ("precision",)), ("optimizer", OPTIMIZERS)):
        if name in known:
            conditions |= {heading: known[name] for heading in headings if heading in study.table}
    return {
        "at": at,
        "run": named,
        "same_size": same,
        "conditions": conditions,
        "loss": {"value": value, "low": low, "high": high},
        "wider": max(times_as_wide(predicted, law.as_fitted.prediction(params, tokens, **known)), 1.0),
        "beyond": flops / answered.largest,
        "law": {
            "name": law.law.name,
            "formula": law.law.formula,
            "theta": law.theta,
            "effective": law.effective(params, tokens, **known),
            "residual": law.residual,
            "delta": law.delta if np.isfinite(law.delta) else None,
        },
    }


def _shared_content(study: Study, answered: Answer, options: FitOptions) -> dict[str, Any]:
    """Return the fields that forecasts of one fit have in common."""
    points = answered.points
    rows = study.table[is_done(study.table) & study.table["run_id"].isin(_run_ids(points)).to_numpy(dtype=bool)]
    usual = {"params": "n_params", "tokens": "tokens", "flops": "train_flops", "loss": study.default_quality}
    return {
        "sweep": study.name,
        "columns": usual | {key: name for key, name in options.columns.items() if key in usual},
        "conditions": _conditions(study, rows, points),
        "laws": list(answered.fit.laws),
        "fit": {
            "where": options.where,
            "all": options.all_runs,
            "delta": options.delta,
            "bootstraps": options.bootstraps,
            "seed": options.seed,
        },
        "n_units": points.n_units,
        "points": _sealed_points(study, points),
        "points_sha256": points.sha256(),
        "code": code_version(),
    }


def _conditions(study: Study, rows: pd.DataFrame, points: Points) -> dict[str, Any]:
    """Return what all fitted runs have in common, and a run of the same kind must have too.

    The config is that of the largest run; a key of it that is an axis of the sweep is judged by the rows.
    """
    axes = [axis for axis in study.axes if axis.split(".")[0] not in SIZES and axis in rows]
    common = {name: rows[name].dropna().unique() for name in [*CONDITIONS, *axes]}
    conditions = {name: plain(values[0]) for name, values in common.items() if len(values) == 1}
    keys = [key for key in CONFIG_CONDITIONS if key not in axes and key.split(".")[0] not in study.axes]
    conditions |= config_values(study.runs[_run_ids(points)[int(np.argmax(points.flops))]], keys)
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in conditions.items()
        if isinstance(value, str | int | float | np.generic)
    }


def _run_ids(points: Points) -> list[str]:
    assert points.run_ids is not None, "the rows of a study name their runs"
    return [str(run) for run in points.run_ids]


def _sealed_points(study: Study, points: Points) -> list[SealedPoint]:
    ids = _run_ids(points)
    digests: dict[str, str | None] = {}
    for run in dict.fromkeys(ids):
        digests[run] = None
        with suppress(OSError):  # a milestone of a run that trains on
            digests[run] = digest_of(study.runs[run].path / "record.json").hex()
    columns = zip(ids, points.params, points.tokens, points.flops, points.loss, strict=True)
    return [
        SealedPoint(
            run_id=run, params=float(n), tokens=float(d), flops=float(c), loss=float(loss), record_sha256=digests[run]
        )
        for run, n, d, c, loss in columns
    ]

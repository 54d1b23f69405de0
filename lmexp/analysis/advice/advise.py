"""What to train for a budget or for a target loss, according to a study's own rows.

An arm is a family in a precision. Each arm has its own laws, fitted to its own rows. Among the laws that trade
parameters for tokens, the one with the lowest held-out error gives the advice, and the others show how much laws
differ. The cost of a token at another size comes from the same rows: FLOPs are counted, seconds follow from the
measured tokens per second, and dollars from the price of an hour. The best use of the budget follows from these
(best_use.py), and from that a model shape that can be trained (model_size.py).

The limit of extrapolation: nothing is predicted at more than MAX_BEYOND times the largest compute, size or number of
tokens of an arm, nor at less than its smallest divided by MAX_BEYOND. Within this limit, the distance from the rows is
reported beside every number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from lmexp.analysis.advice.best_use import Line, Use, best_use, cheapest_use, cost_of
from lmexp.analysis.advice.model_size import nearest_shape
from lmexp.analysis.advice.speed import Speed, speed_of
from lmexp.analysis.advice.tied_sizes import tied_sizes
from lmexp.analysis.arrays import Floats
from lmexp.analysis.effects.effects import noise_floor
from lmexp.analysis.effects.more_seeds import about_unknown_noise
from lmexp.analysis.effects.noise import Noise, margin_of_two
from lmexp.analysis.frontier import is_done, numbers
from lmexp.analysis.rankable import obstacles
from lmexp.analysis.scaling.checks import FAR, MAX_BEYOND, price_of
from lmexp.analysis.scaling.fit import Fit, fit
from lmexp.analysis.scaling.law_fit import Estimate, LawFit, times_as_wide
from lmexp.analysis.scaling.laws import SERVED
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.readers import points_of_study
from lmexp.analysis.scaling.words import lack_of_fit_text
from lmexp.analysis.table import Study
from lmexp.config.schema import BudgetConfig, HardwareConfig, RunConfig
from lmexp.config.words import words_of
from lmexp.errors import UserError
from lmexp.units import si

Unit = Literal["flops", "hours", "dollars"]
UNITS: tuple[Unit, ...] = ("flops", "hours", "dollars")
PRICES = {"flops": "train_flops", "hours": "train_seconds", "dollars": "dollars"}
"""The column that says what a run took of each unit."""

REPEATED = 4.0
"""Up to this many passes over the data, a repeated token is worth about as much as a new one.

Source: Muennighoff et al. 2023, section 6.
"""
BOOTSTRAPS = 400


@dataclass(frozen=True)
class Ask:
    """A question: either a budget or a target loss, and the device to answer it for."""

    flops: float | None = None
    hours: float | None = None
    dollars: float | None = None
    loss: float | None = None
    by: Unit | None = None
    """The cost to minimise for a target loss.

    None means dollars if every arm has a price in dollars, else hours if every arm has a speed, else FLOPs.
    """
    device: HardwareConfig | None = None
    """The device to answer for [default: the study's own]."""
    dollars_per_hour: float | None = None
    served: float = 0.0
    """Tokens to serve after training; the budget pays for them too."""

    def __post_init__(self) -> None:
        """Raise UserError unless exactly one budget or loss is given and every number is above 0."""
        given = {name: getattr(self, name) for name in (*UNITS, "loss") if getattr(self, name) is not None}
        if len(given) != 1:
            named = " and ".join(f"--{name}" for name in given) or "nothing"
            raise UserError(f"asked for {named}: give one of --flops, --dollars, --hours, or --loss")
        for name, value in (given | {"dollars-per-hour": self.dollars_per_hour}).items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UserError(f"--{name} {value:g}: a number above 0")
        if not (math.isfinite(self.served) and self.served >= 0):
            raise UserError(f"--serve {self.served:g}: a number of tokens, 0 or more")
        if self.by is not None and self.loss is None:
            raise UserError("--by chooses the cost to minimise for a target loss: it needs --loss")

    @property
    def unit(self) -> Unit | None:
        """The unit of the budget, or of the cost to minimise; None if the arms must decide it."""
        return next((unit for unit in UNITS if getattr(self, unit) is not None), self.by)

    @property
    def budget(self) -> float | None:
        """The budget in its unit; None if the question is about a loss."""
        return next((value for unit in UNITS if (value := getattr(self, unit)) is not None), None)


@dataclass(frozen=True)
class FittedArm:
    """A family in a precision, with the laws fitted to its rows."""

    family: str
    precision: str
    rows: pd.DataFrame
    config: RunConfig
    """The config of its largest run; a proposed run changes only the model's shape and the budget."""
    points: Points
    fit: Fit
    law: LawFit
    """The law that gives the advice: the one with the lowest held-out error."""
    flops: Line
    """FLOPs per token as a function of size."""

    def speed(self, ask: Ask) -> Speed | str:
        """Return the arm's speed on the device in question, or the reason why it is not known."""
        compute = self.config.precision.compute
        return speed_of(self.rows, self.flops, ask.device, compute, ask.dollars_per_hour)

    def price(self, unit: Unit, ask: Ask) -> Line | str:
        """Return the price of a token in a unit, as a function of size, or the reason why it is not known."""
        if unit == "flops":
            return self.flops
        speed = self.speed(ask)
        if isinstance(speed, str):
            return speed
        rate = speed.dollars_per_hour
        if unit == "dollars" and rate is None:
            return (
                f"an hour of {speed.device} has no price: give --dollars-per-hour, or --device with a file that "
                "has one (`lmexp list hardware`)"
            )
        price = speed.tokens_per_second.inverse(1 / 3600 * (rate or 0.0 if unit == "dollars" else 1.0))
        if price.s <= 0:
            return "its measured speed does not fall as models grow, so time says nothing about the best size"
        return price


@dataclass(frozen=True)
class FittedStudy:
    """A study of one task with a law for each of its arms. It is fitted once and can answer many questions."""

    study: Study
    arms: list[FittedArm]
    refused: list[dict[str, Any]]
    """Arms without a law, each with `family`, `precision` and `reason`."""


def learn(study: Study, task: str | None = None) -> FittedStudy:
    """Fit every arm of a study; `task` chooses the task if the study has several.

    Raises UserError if no arm can be fitted, with the reason for each arm.
    """
    study = _of_task(study, task)
    if reasons := obstacles(study.table[is_done(study.table)], study.default_quality):
        choice = study.how_to_choose(study.default_quality)
        raise UserError(f"{study.name} cannot answer, since its runs do not compare. {reasons[0]} {choice}".rstrip())
    arms, refused = _arms(study)
    if not arms:
        raise UserError(f"{study.name} cannot answer: {_reasons(refused)}")
    return FittedStudy(study, arms, refused)


def advise(known: FittedStudy, ask: Ask, roots: Sequence[Path]) -> dict[str, Any]:
    """Return the advice as a document: `advice` (that of the best arm), `arms`, `refused`, the question and warnings.

    `roots` are the config folders that are searched for shipped model sizes. Raises UserError if no arm can answer,
    with what is missing and which runs would supply it.
    """
    study, refused = known.study, list(known.refused)
    unit = ask.unit or _best_known(known.arms, ask)
    answered = []
    for arm in known.arms:
        try:
            answered.append(_answer(arm, ask, unit, roots))
        except UserError as problem:
            refused.append({"family": arm.family, "precision": arm.precision, "reason": str(problem)})
    if not answered:
        raise UserError(f"{study.name} cannot answer: {_reasons(refused)}")
    sort_key = (
        (lambda answer: answer["cost"]["value"]) if ask.budget is None else (lambda answer: answer["loss"]["value"])
    )
    answered.sort(key=sort_key)
    first, what = answered[0], "cost" if ask.budget is None else "loss"
    noise = noise_floor(study, study.default_quality)
    return {
        "sweep": study.name,
        "task": study.tasks[0],
        "quality": study.default_quality,
        "asked": {
            "unit": unit,
            "budget": ask.budget,
            "loss": ask.loss,
            "served_tokens": ask.served,
            "device": ask.device.name if ask.device else None,
        },
        "rule": f"nothing is predicted at more than {MAX_BEYOND:g} times an arm's largest compute, size or tokens",
        "advice": first,
        "noise": None if noise is None else {"sd": noise.sd, "df": noise.df},
        "noise_unknown": about_unknown_noise(study, study.default_quality, PRICES[unit]) if noise is None else [],
        "tied_sizes": _tied_sizes(known, first, ask, unit, noise),
        "not_told_apart": [
            {"family": other["family"], "precision": other["precision"]}
            for other in answered[1:]
            if _overlap(first, other, what) or (what == "loss" and _is_within_noise(first, other, noise))
        ],
        "arms": answered,
        "refused": refused,
    }


def _of_task(study: Study, task: str | None) -> Study:
    """Return the study with only the rows of one task. Raises UserError if that task has no finished row."""
    done = study.table[is_done(study.table)]
    tasks = [str(name) for name in done["task"].dropna().unique()]
    if not tasks:
        raise UserError(f"{study.name} has no finished run: advice comes from a study's own rows")
    if task is not None and task not in tasks:
        raise UserError(f"{study.name} has no finished run of the task {task}; it has {', '.join(tasks)}")
    if task is None and len(tasks) > 1:
        raise UserError(f"{study.name} has several tasks ({', '.join(tasks)}): choose one with --task")
    return study.of_task(task or tasks[0])


def _arms(study: Study) -> tuple[list[FittedArm], list[dict[str, Any]]]:
    """Return the fitted arms, and the arms that cannot be fitted, with the reason."""
    arms: list[FittedArm] = []
    refused: list[dict[str, Any]] = []
    table = study.table
    keys = table[["family", "precision"]].dropna().drop_duplicates().astype(str).sort_values(["family", "precision"])
    for family, precision in keys.itertuples(index=False):
        mine = ((table["family"] == family) & (table["precision"] == precision)).to_numpy(dtype=bool, na_value=False)
        try:
            arms.append(_arm(replace(study, table=table[mine]), family, precision, study.default_quality))
        except UserError as problem:
            refused.append({"family": family, "precision": precision, "reason": str(problem)})
    return arms, refused


def _arm(study: Study, family: str, precision: str, quality: str) -> FittedArm:
    """Fit one arm. Raises UserError if its rows are too few or too alike for a law."""
    done = study.table[is_done(study.table)]
    if done.empty:
        raise UserError("no run of it has finished")
    points = points_of_study(study, {"loss": quality})
    fitted = fit(points, bootstraps=BOOTSTRAPS)
    if not fitted.laws:
        why = [reason for reasons in fitted.refusals.values() for reason in reasons]
        raise UserError(" ".join(dict.fromkeys(why)))
    price = price_of(points)  # that of `fit`: one convention a study
    flops = Line(math.log(price.factor), price.power, float(points.params.min()), float(points.params.max()))
    largest = done.iloc[int(np.nanargmax(numbers(done, "n_params")))]
    config = study.runs[str(largest["run_id"])].read_config()
    return FittedArm(family, precision, done, config, points, fitted, fitted.trusted, flops)


def _best_known(arms: Sequence[FittedArm], ask: Ask) -> Unit:
    """Return dollars if every arm has a price in dollars, else hours if every arm has a speed, else FLOPs."""
    preferred: tuple[Unit, ...] = ("dollars", "hours")
    known = [unit for unit in preferred if not any(isinstance(arm.price(unit, ask), str) for arm in arms)]
    return known[0] if known else "flops"


def _answer(arm: FittedArm, ask: Ask, unit: Unit, roots: Sequence[Path]) -> dict[str, Any]:
    """Return the answer of one arm. Raises UserError if it has none, or must extrapolate too far beyond its rows."""
    price, speed = arm.price(unit, ask), arm.speed(ask)
    if isinstance(price, str):
        raise UserError(price)
    law, asked_loss = arm.law.law, ask.loss
    if asked_loss is not None:
        _check_floor(arm, asked_loss)

    def used(theta: Floats) -> Use:
        """Return the best use of the budget under a theta (..., k): the fit's, or those of all its refits."""
        if ask.budget is not None:
            return best_use(law.form(theta), ask.budget, price, ask.served)
        assert asked_loss is not None, "a budget or a loss is asked"
        return cheapest_use(law.form(theta), asked_loss, price, ask.served)

    use = used(_theta(arm.law))
    if not np.isfinite(use.params):
        raise UserError(f"the budget does not even pay for serving {si(ask.served)} tokens")
    params, tokens = float(use.params), float(use.tokens)
    beyond = _beyond(arm, params, tokens)
    loss = arm.law.loss(params, tokens)
    costs = _costs(arm, params, tokens, ask)
    shape, command, warnings = _to_run(arm, params, tokens, roots)
    if max(beyond.values()) > FAR:
        warnings.append(f"more than {FAR:g} times beyond what was measured: treat it as a guess")
    if said := lack_of_fit_text(arm.law, times_as_wide(loss, arm.law.as_fitted.loss(params, tokens)), "the loss"):
        warnings.append(said)
    if isinstance(speed, Speed) and unit != "flops" and speed.tokens_per_second.beyond(params) > 1:
        warnings.append("the speed at this size is extrapolated too")
    return {
        "family": arm.family,
        "precision": arm.precision,
        "law": arm.law.law.name,
        "params": _interval(arm.law.estimate(lambda theta: used(theta).params)),
        "tokens": _interval(arm.law.estimate(lambda theta: used(theta).tokens)),
        "loss": _interval(loss),
        "floor": float(np.asarray(law.form(_theta(arm.law)).E)),
        "cost": _interval(arm.law.estimate(lambda theta: cost_of(used(theta), price, ask.served))),
        **costs,
        "holdout_error": arm.law.holdout.mean_absolute_error if arm.law.holdout else None,
        "laws": [_other(one, ask, price) for one in arm.fit.laws.values() if one.law.has_optimum],
        "beyond": beyond,
        "rows": len(arm.points),
        "units": arm.points.n_units,
        "shape": shape,
        "command": command,
        "warnings": [*warnings, *arm.fit.warnings, *arm.law.warnings],
    }


def _check_floor(arm: FittedArm, loss: float) -> None:
    """Raise UserError for a loss at or below the law's floor, which no size and no number of tokens reach."""
    floor = float(np.asarray(arm.law.law.form(_theta(arm.law)).E))
    if loss <= floor:
        low, high = arm.law.intervals.get("E", (floor, floor))
        interval = "at its bound, not identified" if arm.law.floor_is_at_bound else f"{low:.4g} to {high:.4g}"
        raise UserError(
            f"it never reaches a loss of {loss:g}: its law ({arm.law.law.name}) has a floor of {floor:.4g} ({interval})"
        )


def _beyond(arm: FittedArm, params: float, tokens: float) -> dict[str, float]:
    """Return the factor by which a proposal lies outside an arm's rows, per quantity; it is 1 inside.

    Raises UserError if a factor is above MAX_BEYOND.
    """
    points = arm.points
    flops = float(arm.flops.at(params)) * tokens
    seen = {"compute": (flops, points.flops), "params": (params, points.params), "tokens": (tokens, points.tokens)}
    beyond = {name: max(value / have.max(), have.min() / value, 1.0) for name, (value, have) in seen.items()}
    name = max(beyond, key=lambda key: beyond[key])
    if not beyond[name] <= MAX_BEYOND:
        value, have = seen[name]
        what = {"compute": "FLOPs", "params": "parameters", "tokens": "tokens"}[name]
        wanted = value / MAX_BEYOND if value > have.max() else value * MAX_BEYOND
        most, known = ("largest", have.max()) if value > have.max() else ("smallest", have.min())
        raise UserError(
            f"it would need {si(value)} {what}, {beyond[name]:.3g} times beyond its {most} run ({si(known)}); "
            f"the most is {MAX_BEYOND:g}: runs of about {si(wanted)} {what} would make it answerable"
        )
    return {key: float(value) for key, value in beyond.items()}


def _costs(arm: FittedArm, params: float, tokens: float, ask: Ask) -> dict[str, Any]:
    """Return the cost of training and of serving in every unit; null if it is not known."""
    costs: dict[str, Any] = {}
    for unit in UNITS:
        price = arm.price(unit, ask)
        known = None if isinstance(price, str) else float(price.at(params))
        costs[f"train_{unit}"] = None if known is None else known * tokens
        costs[f"serve_{unit}"] = None if known is None or not ask.served else known * SERVED * ask.served
    speed_or_reason = arm.speed(ask)
    speed = speed_or_reason if isinstance(speed_or_reason, Speed) else None
    memory = speed.memory_gb if speed else None
    return costs | {
        "device": speed.device if speed else None,
        "speed_source": speed.source if speed else f"unknown: {speed_or_reason}",
        "tokens_per_second": float(speed.tokens_per_second.at(params)) if speed else None,
        "speed_beyond": speed.tokens_per_second.beyond(params) if speed else None,
        "dollars_per_hour": speed.dollars_per_hour if speed else None,
        "price_source": speed.price_source if speed else None,
        "peak_memory_gb": float(memory.at(params)) if memory else None,
    }


def _to_run(
    arm: FittedArm, params: float, tokens: float, roots: Sequence[Path]
) -> tuple[dict[str, Any] | None, list[str] | None, list[str]]:
    """Return a model shape of about this size, the overrides of `lmexp train` for it, and warnings about its data."""
    warnings = []
    epochs = numbers(arm.rows, "epochs") / numbers(arm.rows, "tokens") * tokens
    if np.isfinite(epochs).any() and (times := float(np.nanmedian(epochs))) > REPEATED:
        warnings.append(f"{times:.3g} passes over the data: repeated tokens are worth less than new ones")
    shape = nearest_shape(arm.config.model, arm.config.task, params, roots)
    if shape is None:
        return None, None, warnings
    model = shape.model
    whole = max(round(tokens / arm.config.batch.tokens), 1) * arm.config.batch.tokens
    config = arm.config.model_copy(update={"model": model, "budget": BudgetConfig(tokens=whole), "run": None})
    described = {
        "model": shape.shipped or model.family,
        "n_params": shape.n_params,
        "n_layers": model.n_layers,
        "d_model": model.d_model,
        "n_heads": model.n_heads,
        "nearest_shipped": shape.nearest[0] if shape.nearest else None,
        "nearest_shipped_params": shape.nearest[1] if shape.nearest else None,
    }
    return described, words_of(config, roots), warnings


def _other(one: LawFit, ask: Ask, price: Line) -> dict[str, Any]:
    """Return the answer of one law of the arm, to show how much laws differ."""
    form = one.law.form(_theta(one))
    if ask.budget is not None:
        use = best_use(form, ask.budget, price, ask.served)
    else:
        assert ask.loss is not None
        use = cheapest_use(form, ask.loss, price, ask.served)
    reached = float(one.law.loss(_theta(one), use.params, use.tokens)) if np.isfinite(use.params) else None
    return {
        "law": one.law.name,
        "params": _finite(use.params),
        "tokens": _finite(use.tokens),
        "loss": reached,
        "cost": _finite(cost_of(use, price, ask.served)),
        "holdout_error": one.holdout.mean_absolute_error if one.holdout else None,
    }


def _theta(one: LawFit) -> Floats:
    return np.array([one.theta[name] for name in one.law.parameters])


def _interval(estimate: Estimate) -> dict[str, float | None]:
    return {name: _finite(getattr(estimate, name)) for name in ("value", "low", "high")}


def _finite(value: npt.ArrayLike) -> float | None:
    number = float(np.asarray(value))
    return number if math.isfinite(number) else None


def _tied_sizes(
    known: FittedStudy, first: dict[str, Any], ask: Ask, unit: Unit, noise: Noise | None
) -> dict[str, float | None] | None:
    """Return the sizes that lose no more than noise on the same budget; None for a target loss or unknown noise."""
    (arm,) = (arm for arm in known.arms if (arm.family, arm.precision) == (first["family"], first["precision"]))
    price, budget = arm.price(unit, ask), ask.budget
    if noise is None or budget is None or isinstance(price, str):
        return None

    def loss(params: float) -> float:
        tokens = budget / float(price.at(params)) - SERVED * ask.served
        return float(arm.law.law.loss(_theta(arm.law), params, tokens)) if tokens > 0 else math.inf

    margin = margin_of_two(noise)
    ends = (arm.points.params.min() / MAX_BEYOND, arm.points.params.max() * MAX_BEYOND)
    low, high = tied_sizes(loss, float(first["params"]["value"]), margin, ends)
    return {"low": low, "high": high, "difference": margin}


def _is_within_noise(one: dict[str, Any], other: dict[str, Any], noise: Noise | None) -> bool:
    """Whether a run of one arm and a run of the other, as predicted, differ by no more than two runs of one setting."""
    return noise is not None and abs(one["loss"]["value"] - other["loss"]["value"]) <= margin_of_two(noise)


def _overlap(one: dict[str, Any], other: dict[str, Any], what: str) -> bool:
    """Whether two intervals overlap; a missing lower end counts as 0, a missing upper end as infinite."""
    ends = [(answer[what]["low"] or 0.0, answer[what]["high"] or math.inf) for answer in (one, other)]
    return ends[0][0] <= ends[1][1] and ends[1][0] <= ends[0][1]


def _reasons(refused: Sequence[dict[str, Any]]) -> str:
    """Return why each arm cannot answer; a reason that several arms share appears once."""
    by_reason: dict[str, list[str]] = {}
    for arm in refused:
        by_reason.setdefault(arm["reason"], []).append(f"{arm['family']} in {arm['precision']}")
    if len(by_reason) == 1:
        return next(iter(by_reason))
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())

"""Scores of the user's own: functions of what a task predicts and what is right, or classes like torchmetrics' Metric.

A function is called once, with all predictions and all targets of the validation split: two int64 tensors (N,) on the
CPU, or two lists of texts where the task writes texts. A class is made, given both by `update`, and asked by `compute`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lmexp.config.code import load_target
from lmexp.config.failures import explain
from lmexp.config.tasks.base import MetricConfig
from lmexp.errors import UserError


@dataclass(frozen=True)
class Answers:
    """What a task predicts on the validation split, and what is right, one for one."""

    predicted: Tensor | list[str]
    targets: Tensor | list[str]


@dataclass(frozen=True)
class LabelAnswers(Answers):
    """The answers of a task that predicts labels, of texts or of words."""

    predicted: Tensor
    targets: Tensor
    probabilities: Tensor
    """Probabilities of every label (N, labels), or of the predicted one alone (N,)."""
    sizes: Tensor
    """How many of the N answers each validation sample has: (validation_samples,) int64."""


def score(metrics: Sequence[MetricConfig], answers: Answers) -> tuple[dict[str, float], dict[str, str]]:
    """Return each metric's value by its name, and the reason of each that failed.

    A metric is computed when hours of training are over, so that what goes wrong in one must not cost the run's result.
    """
    scores: dict[str, float] = {}
    failed: dict[str, str] = {}
    for metric in metrics:
        try:
            scores[metric.label] = _value(metric, answers)
        except Exception as error:  # code from outside fails in any way
            failed[metric.label] = explain(error)
            print(f"the metric {metric.target} failed and has no score: {failed[metric.label]}", flush=True)
    return scores, failed


def _value(metric: MetricConfig, answers: Answers) -> float:
    loaded = load_target(metric.target, "metric")
    if not isinstance(loaded, type):
        return _number(metric, loaded(answers.predicted, answers.targets, **metric.arguments))
    judge = loaded(**metric.arguments)
    judge.update(answers.predicted, answers.targets)
    return _number(metric, judge.compute())


def _number(metric: MetricConfig, score: object) -> float:
    """Return a score as a float. Raises UserError if it is not one finite number."""
    try:
        number = float(score)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor with several numbers
        number = math.nan
    if isinstance(score, str) or not math.isfinite(number):
        raise UserError(f"it returned {score!r:.100}, and a score is one finite number")
    return number

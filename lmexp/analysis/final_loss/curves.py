"""The loss curve of a run as a function of the share of its budget, read from its directory while it trains."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.config.schedules import ScheduleConfig
from lmexp.config.schema import RunConfig
from lmexp.runs.directory import RunDir
from lmexp.runs.record import is_number

Kind = Literal["loss", "train_loss"]
"""Which losses a curve consists of: those of evaluations, or those of training batches."""
SMOOTHED = 0.2
"""A training loss is the mean over this share of the steps that led to it: one batch says little."""
MAX_LOSS = 1e3
"""In nats; a higher loss is that of a run that breaks down, and says nothing about its end."""
SLACK = 0.005
"""A share of the budget so much later counts as the same: an evaluation comes at the first step after its share."""
MAX_POINTS = 25
"""A longer curve is thinned to this many points, evenly: neighbours say nearly the same."""


MILESTONES = "with budget.milestones, a run goes back on its curve"


@dataclass(frozen=True, eq=False)
class LossCurve:
    """The losses of one run after its warm-up."""

    share: Floats
    """(n,) share of the budget at each point, above 0 and at most 1, increasing."""
    loss: Floats
    """(n,) in nats per token."""
    schedule: ScheduleConfig
    tokens: float
    """Tokens of the whole run."""
    final: float | None = None
    """The loss in the record; None while the run trains."""

    def up_to(self, share: float) -> "LossCurve":
        """Return the curve as it was at a share of the budget, thinned, without the final loss."""
        there = np.flatnonzero(self.share <= min(share + SLACK, 1.0))
        if len(there) > MAX_POINTS:
            there = there[np.unique(np.linspace(0, len(there) - 1, MAX_POINTS).astype(int))]
        return replace(self, share=self.share[there], loss=self.loss[there], final=None)

    @cached_property
    def whole(self) -> "LossCurve":
        """The curve of a finished run, thinned; its last point is the final loss."""
        assert self.final is not None, "the run has finished"
        before = self.up_to(1 - SLACK - 1e-6)
        return replace(before, share=np.append(before.share, 1.0), loss=np.append(before.loss, self.final))


def comparable_key(config: RunConfig) -> tuple[Any, ...]:
    """Return what two runs must share for the curve of one to say something about that of the other."""
    pretrained = config.init.run_id is not None
    return config.task.name, config.model.family, config.data.source, config.model.vocab_size, pretrained


def why_not(config: RunConfig) -> str | None:
    """Return why the end of such a run cannot be predicted from its curve, or None."""
    if not isinstance(config.schedule, ScheduleConfig):
        return "its schedule is code of your own"
    if config.evaluation.patience is not None:
        return "with evaluation.patience, a run does not end where its schedule ends"
    if config.budget.milestones:
        return MILESTONES
    return None


def curves_of(run: RunDir, config: RunConfig, tokens: float, final: float | None) -> dict[Kind, LossCurve]:
    """Return the curves of a run that has a point after its warm-up, by kind.

    Args:
        tokens: tokens of the whole run.
        final: the loss in its record; None while it trains.
    """
    points, schedule = run.read_curve(), config.schedule
    assert isinstance(schedule, ScheduleConfig), "its factor is known here"
    curves: dict[Kind, LossCurve] = {}
    for kind in ("loss", "train_loss"):
        share, loss = _points(points, kind, tokens)
        if kind == "train_loss":
            loss = _smoothed(share, loss)
        after = (share >= schedule.warmup) & (share <= 1 + 1e-6)
        if after.any():
            curves[kind] = LossCurve(np.minimum(share[after], 1.0), loss[after], schedule, tokens, final)
    return curves


def _points(points: Iterable[Mapping[str, Any]], kind: Kind, tokens: float) -> tuple[Floats, Floats]:
    """Return shares (n,) and losses (n,); of several points at one place, as after a restart, the last one counts."""
    losses = {
        point["tokens"]: point[kind]
        for point in points
        if is_number(point.get("tokens"))
        and point["tokens"] > 0
        and is_number(point.get(kind))
        and 0 < point[kind] < MAX_LOSS
    }
    order = sorted(losses)
    return np.array(order, dtype=np.float64) / tokens, np.array([losses[at] for at in order], dtype=np.float64)


def _smoothed(share: Floats, loss: Floats) -> Floats:
    """Return the mean over the points from each point back to (1 - SMOOTHED) times its share."""
    sums = np.concatenate([[0.0], np.cumsum(loss)])
    first = np.searchsorted(share, share * (1 - SMOOTHED), side="right")
    last = np.arange(1, len(share) + 1)
    return np.asarray((sums[last] - sums[first]) / (last - first))

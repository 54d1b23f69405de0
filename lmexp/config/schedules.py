"""Schedules: the learning rate as a function of the share of the budget that is spent.

A schedule of lmexp's own is a name in SHAPES, and is added here. One from outside is a function or a class that a
`_target_` names:

    def halved(share: float, steps: int = 4) -> float:     # called at each optimizer step
        return 0.5 ** int(share * steps)

or a class that is made with the section's keys, and whose object is called with the share.
"""

import math
from collections.abc import Callable
from typing import Annotated

from pydantic import Field, field_validator

from lmexp.config.base import BY_ORIGIN, OUTSIDE, SHIPPED, OutsideSection, Section, Share
from lmexp.errors import UserError


class ScheduleConfig(Section):
    """A warm-up, and one of lmexp's own shapes after it."""

    name: str
    """What follows the warm-up: a key of SHAPES."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the budget over which the rate rises linearly from 0."""
    final: Share = 0.1
    """The last rate, as a share of the peak; a constant schedule does not use it."""
    cooldown: Share = 0.2
    """Share of the budget, at its end, over which the rate of wsd and wsd_linear falls."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name not in SHAPES:
            raise ValueError(f"expected one of {', '.join(SHAPES)}")
        return name

    @property
    def has_trunk(self) -> bool:
        """Whether the rate is the same for runs of every length until the cool-down, so that they can share steps."""
        return self.name in ("constant", *COOLING)

    @property
    def decay(self) -> float:
        """Share of the budget, at its end, in which the rate of a schedule with a trunk falls; 0 for a constant one."""
        return self.cooldown if self.name in COOLING else 0.0

    def check(self) -> None:
        """Raise UserError for values that cannot be combined."""
        if self.warmup + self.decay > 1:
            raise UserError(
                f"schedule.warmup={self.warmup} and schedule.cooldown={self.cooldown} are more than the whole budget"
            )


Shape = Callable[[ScheduleConfig, float, float], float]
"""From a section, the share of the whole budget, and the share of what follows the warm-up, to how much of the way from
the peak to `final` is behind: 0 at the peak, 1 at the end."""


def _linear(schedule: ScheduleConfig, share: float, after_warmup: float) -> float:
    return after_warmup


def _cosine(schedule: ScheduleConfig, share: float, after_warmup: float) -> float:
    """Half a cosine (Loshchilov and Hutter 2017)."""
    return 0.5 * (1 - math.cos(math.pi * after_warmup))


def _wsd(schedule: ScheduleConfig, share: float, after_warmup: float) -> float:
    """Warm-up, stable, decay: the cool-down is 1 - sqrt (Hägele et al. 2024, equation 1)."""
    return math.sqrt(_wsd_linear(schedule, share, after_warmup))


def _wsd_linear(schedule: ScheduleConfig, share: float, after_warmup: float) -> float:
    """Warm-up, stable, decay, with a linear cool-down (Hägele et al. 2024, section 3, which compares the two)."""
    since = share - (1 - schedule.cooldown)
    return min(since / schedule.cooldown, 1.0) if since > 0 else 0.0


SHAPES: dict[str, Shape | None] = {
    "constant": None,
    "linear": _linear,
    "cosine": _cosine,
    "wsd": _wsd,
    "wsd_linear": _wsd_linear,
}
"""Every shape by its name; a constant one stays at the peak."""
COOLING = ("wsd", "wsd_linear")
"""The shapes that stay at the peak until their cool-down."""


def factor(schedule: ScheduleConfig, share: float, run_share: float | None = None) -> float:
    """Return the multiple of the peak rate at `share` (0 to 1) of the budget.

    Warm-up rises linearly from 0 and reaches 1 at `warmup`; the shape runs over the rest. On the way to a milestone,
    `share` is that of a run which ends there, and the warm-up follows `run_share`, the share of the whole run.
    """
    whole = share if run_share is None else run_share
    if whole < schedule.warmup:
        return whole / schedule.warmup
    shape = SHAPES[schedule.name]
    if shape is None:
        return 1.0
    after_warmup = min((share - schedule.warmup) / (1 - schedule.warmup), 1.0)
    return 1 - shape(schedule, share, after_warmup) * (1 - schedule.final)


class OutsideSchedule(OutsideSection):
    """A schedule from outside: a function of the share of the budget, with the other keys as keyword arguments."""


AnySchedule = Annotated[Annotated[ScheduleConfig, SHIPPED] | Annotated[OutsideSchedule, OUTSIDE], BY_ORIGIN]

"""The schedule that a config names, as a function that returns the multiple of the peak rate."""

import math
from collections.abc import Callable
from functools import partial

from lmexp.config.code import arguments_of, load_target
from lmexp.config.schedules import AnySchedule, OutsideSchedule, factor
from lmexp.errors import UserError


def open_schedule(schedule: AnySchedule) -> Callable[..., float]:
    """Return the schedule: a function of the share of the budget, and of that of the whole run if it has milestones.

    See `factor`. Raises UserError for code from outside that is not trusted or is not there.
    """
    if not isinstance(schedule, OutsideSchedule):
        return partial(factor, schedule)
    loaded = load_target(schedule.target, "schedule")
    keys = arguments_of(schedule, loaded)
    made: Callable[[float], float] = loaded(**keys) if isinstance(loaded, type) else partial(loaded, **keys)
    return partial(_checked, schedule.target, made)


def _checked(target: str, schedule: Callable[[float], object], share: float, run_share: float | None = None) -> float:
    """Return the multiple that a schedule from outside gives; raise UserError if it is not a number of 0 or more."""
    multiple = schedule(share)
    try:
        number = float(multiple)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise UserError(
            f"the schedule {target} returned {multiple!r} at share {share:g} of the budget: "
            "a schedule returns a finite number of 0 or more"
        )
    return number

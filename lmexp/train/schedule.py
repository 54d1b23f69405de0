"""The schedule that a config names, as a function from the share of the budget to the multiple of the peak rate."""

from collections.abc import Callable
from functools import partial

from lmexp.config.code import arguments_of, load_target
from lmexp.config.schedules import AnySchedule, OutsideSchedule, factor


def open_schedule(schedule: AnySchedule) -> Callable[[float], float]:
    """Return the schedule. Raises UserError for code from outside that is not trusted or is not there."""
    if not isinstance(schedule, OutsideSchedule):
        return partial(factor, schedule)
    loaded = load_target(schedule.target, "schedule")
    keys = arguments_of(schedule, loaded)
    made: Callable[[float], float] = loaded(**keys) if isinstance(loaded, type) else partial(loaded, **keys)
    return made

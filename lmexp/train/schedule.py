"""The learning rate as a function of the share of the budget that is spent."""

import math

from lmexp.config.schema import ScheduleConfig


def rate(schedule: ScheduleConfig, share: float) -> float:
    """Return the multiple of the peak rate at `share` (0 to 1) of the budget.

    Warm-up rises linearly from 0 and reaches 1 at `warmup`; what follows runs over the rest. The cool-down
    of wsd is 1 - sqrt (Hägele et al. 2024, equation 1). Every schedule but constant ends at `final`.
    """
    if share < schedule.warmup:
        return share / schedule.warmup
    rest = min((share - schedule.warmup) / (1 - schedule.warmup), 1.0)
    match schedule.name:
        case "constant":
            return 1.0
        case "linear":
            fallen = rest
        case "cosine":
            fallen = 0.5 * (1 - math.cos(math.pi * rest))
        case "wsd":
            since = share - (1 - schedule.cooldown)
            fallen = math.sqrt(min(since / schedule.cooldown, 1.0)) if since > 0 else 0.0
    return 1 - fallen * (1 - schedule.final)

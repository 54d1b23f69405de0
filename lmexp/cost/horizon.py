"""The length of a run: its budget as optimizer steps, or as seconds of training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lmexp.config.checks import whole_batch, world_size
from lmexp.config.schedules import ScheduleConfig
from lmexp.config.schema import DEFAULT_TOKENS, RunConfig
from lmexp.cost.device import devices_used
from lmexp.cost.flops import count_shared
from lmexp.errors import UserError
from lmexp.units import counted

MAX_TOKENS = 1e16
NEARLY = 1e-9
"""In steps: a share of a budget that rounding puts this little below a whole number of steps counts as that number."""


@dataclass(frozen=True)
class Milestone:
    """A point at which a run yields a row of its own, in optimizer steps.

    The run trains one trunk. Before each milestone a cool-down branches off the trunk. After the milestone, the run
    goes on from the state of the trunk at this branch.
    """

    steps: int
    """Steps that a separate run of this length would take."""
    start: int
    """Steps of the trunk when the run sets out for this milestone: those at the last one's branch, or 0."""
    branch: int | None
    """Steps of the trunk when the cool-down begins; None for the end of the run, after which no trunk is needed."""

    @property
    def spent(self) -> int:
        """Steps that are trained for this milestone, beyond what earlier ones have trained."""
        return self.steps - self.start

    def can_follow(self, steps: int) -> bool:
        """Whether a trunk of so many steps is a state on the way to this milestone."""
        return steps < self.steps and (self.branch is None or steps <= self.branch)


@dataclass(frozen=True)
class Horizon:
    """The length of a run: steps, tokens and FLOPs, or seconds if the budget is time or money."""

    steps: int | None = None
    tokens: int | None = None
    """Tokens of the whole run: steps times the global batch size."""
    flops: float | None = None
    """Training FLOPs of the whole run."""
    seconds: float | None = None
    """Seconds of training steps; only the run itself shows how many steps that is."""
    budget_share: float = 1.0
    """Share of the budget that whole steps can spend, at most 1."""
    milestones: tuple[Milestone, ...] = ()
    """In order, the end of the run among them; empty if the budget has none."""

    @property
    def spent_steps(self) -> int | None:
        """Steps that the run trains in all, the cool-downs to its milestones included."""
        return None if self.steps is None else sum(each.spent for each in self.milestones) or self.steps

    @property
    def spent_tokens(self) -> int | None:
        """Tokens that the run trains on in all."""
        if self.tokens is None or self.steps is None or self.spent_steps is None:
            return None
        return self.tokens // self.steps * self.spent_steps

    @property
    def spent_flops(self) -> float | None:
        """Training FLOPs of the run in all."""
        if self.flops is None or self.tokens is None or self.spent_tokens is None:
            return None
        return self.flops * (self.spent_tokens / self.tokens)


def horizon(
    config: RunConfig, epoch_tokens: int, device_kind: str = "cpu", parts: Mapping[int, int] | None = None
) -> Horizon:
    """Return how long the budget of a run lasts.

    Args:
        epoch_tokens: tokens of one pass over the training split, for a budget in epochs.
        device_kind: decides how many devices a budget in dollars pays for.
        parts: in how many steps of an epoch so many examples share a sequence, for a budget in FLOPs [default: none
            do]; see count_shared.

    Raises UserError if the budget is less than one step, or is in dollars and the hardware has no price, or if a
    milestone does not lie between the warm-up and the end of the run, at least a step apart from the next.
    """
    budget, count = config.budget, count_shared(config, parts or {1: 1})
    if budget.seconds is not None:
        return Horizon(seconds=budget.seconds)
    if budget.dollars is not None:
        return Horizon(seconds=3600 * budget.dollars / _price_of_an_hour(config, device_kind))
    if budget.flops is not None:
        tokens, said = budget.flops / count.flops_per_token, f"budget.flops={budget.flops:g}"
    elif budget.tokens_per_param is not None:
        tokens = budget.tokens_per_param * count.n_params
        said = f"budget.tokens_per_param={budget.tokens_per_param:g}"
    elif budget.epochs is not None:
        tokens, said = budget.epochs * epoch_tokens, f"budget.epochs={budget.epochs:g}"
    else:
        tokens = budget.tokens or DEFAULT_TOKENS
        said = f"budget.tokens={tokens}"
    if not tokens < MAX_TOKENS:
        raise UserError(f"{said} is more than {MAX_TOKENS:.0e} tokens")
    steps = int(tokens // config.batch.tokens)
    if steps < 1:
        smaller = whole_batch(config, int(tokens))
        fix = f"; set batch.tokens={smaller} or lower" if smaller <= tokens else ""
        raise UserError(
            f"{said} pays for {counted(int(tokens), 'token')}, less than one step of "
            f"batch.tokens={config.batch.tokens}{fix}"
        )
    spent = steps * config.batch.tokens
    flops = float(spent) * count.flops_per_token
    return Horizon(steps, spent, flops, None, spent / tokens, _milestones(config, steps, tokens))


def _milestones(config: RunConfig, steps: int, tokens: float) -> tuple[Milestone, ...]:
    """Return the milestones of a run of `steps` steps, whose budget pays for `tokens` tokens."""
    schedule = config.schedule
    if not config.budget.milestones or not isinstance(schedule, ScheduleConfig):
        return ()
    milestones: list[Milestone] = []
    start = 0
    for each in config.budget.milestones:
        said = f"budget.milestones: {each:g}{'' if each > 1 else ' of the budget'}"
        end = int((each if each > 1 else each * tokens) / config.batch.tokens + NEARLY)
        if end >= steps:
            raise UserError(f"{said} is not before the end of the run, which is {steps * config.batch.tokens} tokens")
        if milestones and end == milestones[-1].steps:
            raise UserError(f"{said} is at the same step as the milestone before it: set a smaller batch.tokens")
        branch = end if not schedule.decay else math.ceil((1 - schedule.decay) * end - NEARLY) - 1
        if branch < max(schedule.warmup * steps, 1):
            raise UserError(
                f"{said} is {end} steps, which leave no step between the warm-up (schedule.warmup={schedule.warmup:g}, "
                f"{math.ceil(schedule.warmup * steps)} steps) and the cool-down (schedule.cooldown={schedule.decay:g})"
            )
        milestones.append(Milestone(end, start, branch))
        start = branch
    return (*milestones, Milestone(steps, start, None))


def _price_of_an_hour(config: RunConfig, device_kind: str) -> float:
    """Return the price of an hour of all devices of a run, in dollars."""
    price = config.hardware.dollars_per_hour
    if not price:
        raise UserError(
            "budget.dollars needs a price: set hardware.dollars_per_hour, or choose hardware that has one "
            "(`lmexp list hardware`)"
        )
    return price * devices_used(device_kind, world_size(config))

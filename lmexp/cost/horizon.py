"""The length of a run: its budget as optimizer steps, or as seconds of training."""

from collections.abc import Mapping
from dataclasses import dataclass

from lmexp.config.checks import world_size
from lmexp.config.schema import DEFAULT_TOKENS, RunConfig
from lmexp.cost.device import devices_used
from lmexp.cost.flops import count_shared
from lmexp.errors import UserError

MAX_TOKENS = 1e16


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


def horizon(
    config: RunConfig, epoch_tokens: int, device_kind: str = "cpu", parts: Mapping[int, int] | None = None
) -> Horizon:
    """Return how long the budget of a run lasts.

    Args:
        epoch_tokens: tokens of one pass over the training split, for a budget in epochs.
        device_kind: decides how many devices a budget in dollars pays for.
        parts: in how many steps of an epoch so many examples share a sequence, for a budget in FLOPs [default: none
            do]; see count_shared.

    Raises UserError if the budget is less than one step, or is in dollars and the hardware has no price.
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
        raise UserError(
            f"{said} pays for {tokens:.0f} tokens, less than one step of batch.tokens={config.batch.tokens}"
        )
    spent = steps * config.batch.tokens
    return Horizon(steps, spent, float(spent) * count.flops_per_token, budget_share=spent / tokens)


def _price_of_an_hour(config: RunConfig, device_kind: str) -> float:
    """Return the price of an hour of all devices of a run, in dollars."""
    price = config.hardware.dollars_per_hour
    if not price:
        raise UserError(
            "budget.dollars needs a price: set hardware.dollars_per_hour, or choose hardware that has one "
            "(`lmexp list hardware`)"
        )
    return price * devices_used(device_kind, world_size(config))

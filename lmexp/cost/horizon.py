"""How long a run is: from its budget to optimizer steps."""

from dataclasses import dataclass

from lmexp.config.schema import RunConfig
from lmexp.cost.flops import count_model
from lmexp.errors import UserError

DEFAULT_TOKENS = 1_000_000
MOST_TOKENS = 1e16


@dataclass(frozen=True)
class Horizon:
    """The length of a run."""

    steps: int
    tokens: int
    """Trained on in all: steps times the global batch."""
    flops: float
    """Training FLOPs in all."""
    budget_share: float
    """Share of the budget that whole steps spend, at most 1."""


def horizon(config: RunConfig, train_tokens: int) -> Horizon:
    """Return how many whole steps a run's budget pays for.

    `train_tokens` is the size of the training split, which a budget in epochs needs.
    Raises UserError when the budget is less than one step.
    """
    budget, count = config.budget, count_model(config.model)
    if budget.flops is not None:
        tokens, said = budget.flops / count.flops_per_token, f"budget.flops={budget.flops:g}"
    elif budget.tokens_per_param is not None:
        tokens = budget.tokens_per_param * count.n_params
        said = f"budget.tokens_per_param={budget.tokens_per_param:g}"
    elif budget.epochs is not None:
        tokens, said = budget.epochs * train_tokens, f"budget.epochs={budget.epochs:g}"
    else:
        tokens = budget.tokens or DEFAULT_TOKENS
        said = f"budget.tokens={tokens}"
    if not tokens < MOST_TOKENS:
        raise UserError(f"{said} is more than {MOST_TOKENS:.0e} tokens")
    steps = int(tokens // config.batch.tokens)
    if steps < 1:
        raise UserError(
            f"{said} pays for {tokens:.0f} tokens, less than one step of batch.tokens={config.batch.tokens}"
        )
    spent = steps * config.batch.tokens
    return Horizon(steps, spent, float(spent) * count.flops_per_token, spent / tokens)

"""Learning rates by a published rule, Step Law (config/step_law.py): what `optim.lr=auto` stands for."""

from collections.abc import Callable

from lmexp.config.models.base import TransformerSection
from lmexp.config.optimizers import AdamConfig
from lmexp.config.schema import RunConfig
from lmexp.config.step_law import step_law_batch, step_law_rate
from lmexp.cost.flops import count_run
from lmexp.errors import UserError

STEP_LAW = "step_law"
DIGITS = 3
"""Significant digits of a rate by rule: the rule is not more exact, and the rate is shown in names and tables."""
FITTED_TOKENS = (2e9, 1e11)
MAX_BATCH_RATIO = 2.0
"""A batch that is this many times larger or smaller than the rule's is worth a warning."""


def with_learning_rate(config: RunConfig, tokens: int | None, warn: Callable[[str], None]) -> RunConfig:
    """Replace `optim.lr=auto` by the rate that the rule gives for a run of `tokens` tokens; None: not known.

    Raises UserError for a run that the rule does not cover.
    """
    if config.optim.lr != "auto":
        return config
    _check_rule_applies(config)
    if config.budget.milestones:
        raise UserError(
            "optim.lr=auto gives another rate for each number of tokens, but all milestones of a run share one: set a "
            "number"
        )
    if tokens is None:
        raise UserError(
            "optim.lr=auto needs to know the number of training tokens, which a budget in seconds or dollars does not "
            "say: set budget.tokens, flops, tokens_per_param or epochs"
        )
    params = count_run(config).conventions()["flops_per_token_kaplan"] / 6
    rate = float(f"{step_law_rate(params, tokens):.{DIGITS}g}")
    low, high = FITTED_TOKENS
    if not low <= tokens <= high:
        warn(
            f"optim.lr=auto: Step Law was fitted on runs of {low / 1e9:g} to {high / 1e9:g} billion tokens; this is an "
            "extrapolation"
        )
    ratio = config.batch.tokens / step_law_batch(tokens)
    if not 1 / MAX_BATCH_RATIO <= ratio <= MAX_BATCH_RATIO:  # without the run's numbers: one warning for a whole sweep
        warn(
            f"optim.lr=auto: Step Law's best batch for a run of D tokens is 0.58 D^0.571 tokens; "
            f"batch.tokens={config.batch.tokens} is {'more than twice' if ratio > 1 else 'less than half of'} that"
        )
    return config.model_copy(update={"optim": config.optim.model_copy(update={"lr": rate, "lr_rule": STEP_LAW})})


def _check_rule_applies(config: RunConfig) -> None:
    model, optim = config.model, config.optim
    if not isinstance(optim, AdamConfig):
        raise UserError(f"optim.lr=auto: Step Law was fitted with AdamW, not {optim.target}; set a number")
    is_decoder = isinstance(model, TransformerSection) and model.reads == "left_to_right"
    count = count_run(config)
    if not is_decoder or config.task.head != "vocabulary" or count.n_params_active != count.n_params:
        raise UserError(
            f"optim.lr=auto: Step Law holds for dense decoders that predict the next token, not for {model.name} "
            f"with task={config.task.name}; set a number"
        )
    if model.width_multiple != 1:
        raise UserError(
            "optim.lr=auto gives the rate for this width, and muP would scale it again: with model.mup_base_width, set "
            "the rate of the base width as a number"
        )

"""Checks that a config, and the length of its training text, suit differentially private training."""

from importlib.util import find_spec

from lmexp.config.models import families
from lmexp.config.schema import RunConfig
from lmexp.errors import UserError

PRECISIONS = ("fp32", "tf32", "bf16")
"""Types in which matrices may be multiplied. Loss scaling (fp16) and scaled products (fp8) change what is clipped."""


def check_privacy(config: RunConfig) -> None:
    """Raise UserError for the first thing in a config that private training cannot do."""
    if not config.privacy.is_on:
        return
    model, task, trainer = config.model, config.task, config.trainer
    if not model.gives_sample_gradients:
        known = ", ".join(
            str(each.model_fields["family"].default) for each in families() if each.gives_sample_gradients
        )
        raise UserError(f"privacy.epsilon works for models of {known}, and {model.name} is of {model.family}")
    if not (task.has_loss_of_each_sequence and task.target.startswith("lmexp.")):
        raise UserError(f"privacy.epsilon works for task=causal_lm and masked_lm, and the task is {task.name}")
    if trainer.devices * trainer.num_nodes > 1 or trainer.strategy != "auto":
        raise UserError("privacy.epsilon works on one device: set trainer.devices=1 and trainer.strategy=auto")
    if trainer.compile is True:
        raise UserError("privacy.epsilon does not work with trainer.compile=true: use false or auto")
    if trainer.activation_checkpointing != "none":
        raise UserError("privacy.epsilon does not work with activation checkpointing: set it to none")
    precision = config.precision
    if precision.compute not in PRECISIONS or precision.weights != "fp32":
        raise UserError(f"privacy.epsilon works with precision={', '.join(PRECISIONS)}, and not with {precision.name}")
    if {"seconds", "dollars"} & config.budget.amount.keys():
        raise UserError(
            "privacy.epsilon needs a number of steps that is known from the start, because the noise depends on it: "
            "set budget.tokens, flops, tokens_per_param or epochs"
        )
    if config.budget.milestones:
        raise UserError(
            "privacy.epsilon does not work with budget.milestones: each cool-down would spend privacy of its own"
        )
    if find_spec("opacus") is None:
        raise UserError("privacy.epsilon needs Opacus: pip install 'lmexp[privacy]'")


def check_samples(config: RunConfig, samples: int, sequences: int) -> None:
    """Raise UserError if the training text is too short for the guarantee.

    Args:
        samples: sequences of the training text.
        sequences: those that a step takes on average.
    """
    if not config.privacy.is_on:
        return
    if sequences >= samples:
        raise UserError(
            f"batch.tokens={config.batch.tokens} is {sequences} sequences, and privacy needs a sample of the "
            f"training text, which has {samples}: use a smaller batch, or more text"
        )
    if (delta := config.privacy.delta_for(samples)) >= 1 / samples:
        raise UserError(
            f"privacy.delta={delta:g} must be less than 1 / {samples}: with the {samples} sequences of the training "
            "text, publishing one at random would meet it"
        )

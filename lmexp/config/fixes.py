"""Overrides that make contexts fit the data, for error messages, with all keys that have to change together."""

from lmexp.config.checks import check_config, whole_batch
from lmexp.config.hf import library_config
from lmexp.config.models.hf import HFConfig
from lmexp.config.schema import RunConfig
from lmexp.errors import UserError

STEP, FP8_STEP = 8, 16
"""Suggested contexts are multiples of this; fp8 multiplies in tiles of 16."""


def longer_contexts(config: RunConfig, at_least: dict[str, int]) -> str | None:
    """Return overrides that raise contexts, given as `{"context": 61}`, to at least these numbers of tokens.

    `batch.tokens` is among them if it does not fit the new contexts. None if no such config can be run.
    """
    step = FP8_STEP if config.precision.compute == "fp8" else STEP
    return _checked(config, {name: -(-needed // step) * step for name, needed in at_least.items()})


def shorter_context(config: RunConfig, at_most: int) -> str | None:
    """Return overrides that lower `model.context` to at most this number of tokens, as longer_contexts does.

    It is a power of two, so that most batches still fit.
    """
    return _checked(config, {"context": 1 << at_most.bit_length() - 1}) if at_most > 0 else None


def _checked(config: RunConfig, contexts: dict[str, int]) -> str | None:
    """Return the overrides for these contexts; None if a check refuses the config that they make."""
    model = config.model.model_copy(update=contexts)
    fixed = config.model_copy(update={"model": model})
    tokens = whole_batch(fixed, config.batch.tokens)
    fixed = fixed.model_copy(update={"batch": config.batch.model_copy(update={"tokens": tokens})})
    try:
        check_config(fixed)
        if isinstance(model, HFConfig):
            library_config(model)
    except UserError:
        return None
    words = [f"model.{name}={length}" for name, length in contexts.items()]
    return " ".join(words if tokens == config.batch.tokens else [*words, f"batch.tokens={tokens}"])

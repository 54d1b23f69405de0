"""What is checked before weights of the transformers library become ours: its config's settings, and the weights."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn

from lmexp.errors import UserError, nearest
from lmexp.models.stacked import split_parts

INDIFFERENT = {
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "bos_token_id",
    "chunk_size_feed_forward",
    "dtype",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "label2id",
    "max_sequence_length",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "problem_type",
    "return_dict",
    "task_specific_params",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
"""Settings of every architecture that change no logits."""


def check_settings(settings: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]], read: Set[str]) -> None:
    """Raise UserError for the first setting that asks for what the architecture here does not do, or that is unknown.

    Args:
        fixed: of each setting that must have one of some values, those, its default first.
        read: settings that may have any value: they are read, or change no logits.
    """
    for key, allowed in fixed.items():
        value = settings.get(key, allowed[0])
        if value not in allowed:
            choices = " or ".join(str(choice) for choice in allowed)
            raise UserError(f"config.json: {key}={value} is not supported, only {choices}")
    known = read | fixed.keys() | INDIFFERENT
    for key in settings:
        if key not in known:
            raise UserError(f"config.json: the setting '{key}' is unknown here.{nearest(key, known)}")


def required(settings: Mapping[str, Any], key: str) -> Any:
    """Return a setting's value. Raises UserError when it is not there."""
    if key not in settings:
        raise UserError(f"config.json: the setting '{key}' is missing")
    return settings[key]


def one_dropout(settings: Mapping[str, Any], keys: Sequence[str]) -> float:
    """Return the dropout that several settings share (0.1 by default). Raises UserError where they differ."""
    first, *others = ((key, float(settings.get(key, 0.1))) for key in keys)
    for key, rate in others:
        if rate != first[1]:
            raise UserError(
                f"config.json: {key}={rate} differs from {first[0]}={first[1]}; here one dropout is for all"
            )
    return first[1]


def check_weights(weights: Mapping[str, Tensor], model: type[nn.Module], config: Any, stacked: bool = False) -> None:
    """Raise UserError for the first weight that is missing, misshapen or too many for a model of `config`.

    `stacked` says that queries, keys and values are stacked in the weights as in the model; else they are apart.
    """
    with torch.device("meta"):
        built = model(config)
    expected = built.state_dict() if stacked else split_parts(built.state_dict(), built)
    for name, weight in expected.items():
        if name not in weights:
            raise UserError(f"the weights lack '{name}' (by its name here)")
        if weights[name].shape != weight.shape:
            here, there = tuple(weights[name].shape), tuple(weight.shape)
            raise UserError(f"the weight '{name}' is {here}, and {there} by the config")
        if not weights[name].is_floating_point():
            raise UserError(f"the weight '{name}' is of {weights[name].dtype}, which is no floating-point type")
    for name in weights:
        if name not in expected:
            raise UserError(f"the weight '{name}' is unknown here")

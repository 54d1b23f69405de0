"""From a model config to a module."""

import torch
from hydra.utils import get_class
from torch import nn

from lmexp.config.schema import ModelConfig


def build_model(config: ModelConfig, seed: int) -> nn.Module:
    """Build the model that a config's `_target_` names, in float32.

    Every precision and every device starts from the same weights: they are drawn in float32 from `seed`
    alone, and converted afterwards by whoever wants them otherwise.
    """
    torch.manual_seed(seed)
    model: nn.Module = get_class(config.target)(config)
    return model

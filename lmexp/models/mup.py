"""What muP changes in a model: its initial weights and its multipliers; config/models/mup.py has the rules."""

import torch
from torch import Tensor, nn

from lmexp.config.models.base import TransformerSection
from lmexp.models.layers import Attention


@torch.no_grad()
def apply_mup(blocks: nn.ModuleList, width_multiple: float, attention_scale: float | None) -> None:
    """Divide the initial values of the matrices by sqrt(width_multiple), and set the scale of attention's scores.

    The values have already been drawn, so at any width they are multiples of those without muP.
    """
    if width_multiple != 1:
        for weight in (weight for weight in blocks.parameters() if weight.ndim >= 2):
            weight.div_(width_multiple**0.5)
    for module in blocks.modules():
        if isinstance(module, Attention):
            module.scale = attention_scale


@torch.no_grad()
def weights_without_mup(model: nn.Module, config: TransformerSection) -> dict[str, Tensor]:
    """Return the weights of a model without muP whose logits are those of `model`, a GPT or a Llama.

    The last norm takes in the output's multiplier, and the matrices that make queries take in attention's. All other
    weights are the model's own, not copies.
    """
    weights = dict(model.state_dict())

    def multiply(name: str, factor: float, rows: int | None = None) -> None:
        if name in weights:  # a bias may be left out
            weights[name] = weights[name].clone()
            weights[name][:rows] *= factor

    for part in ("weight", "bias"):
        if config.width_multiple != 1:
            multiply(f"norm.{part}", 1 / config.width_multiple)
        for place, module in model.named_modules():
            if not isinstance(module, Attention) or module.scale is None:
                continue
            factor = module.scale * module.head_size**0.5
            if isinstance(module.norm_query, nn.Identity):
                multiply(f"{place}.qkv.{part}", factor, module.stacked()["qkv"]["query"])
            else:
                multiply(f"{place}.norm_query.{part}", factor)
    return weights

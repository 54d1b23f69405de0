"""fp8: linear layers whose three products take 8-bit operands, by torchao.

Weights stay in 32 bits; each product scales and rounds its operands as a whole tensor (E4M3 forward, E5M2 for
gradients of outputs; Micikevicius et al. 2022). The head stays as it is, as is usual: its logits decide.
"""

import logging
import warnings

from torch import nn

from lmexp.config.schema import PrecisionConfig


def convert(model: nn.Module, precision: PrecisionConfig) -> None:
    """Replace a model's linear layers, in place, where the preset is fp8; weights and their names stay."""
    if precision.compute != "fp8":
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kernels for other devices that torchao could not load
        logging.getLogger("torchao").setLevel(logging.ERROR)
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    convert_to_float8_training(
        model,
        module_filter_fn=lambda _, name: not name.endswith("head"),
        config=Float8LinearConfig(emulate=precision.emulate),
    )

"""Training in fp8: torchao replaces linear layers by ones that multiply 8-bit operands.

Weights stay in float32. Each of the three products (forward, gradient of the input, gradient of the weight) scales and
rounds its operands, one scale for each tensor: E4M3 in the forward pass, E5M2 for gradients of outputs (Micikevicius et
al. 2022). The output head is not converted, as is usual, because the loss is sensitive to its rounding.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lmexp.config.schema import PrecisionConfig


def convert(model: nn.Module, precision: PrecisionConfig) -> None:
    """Replace the linear layers of a model in place if the precision is fp8; weights keep their values and names."""
    if precision.compute != "fp8":
        return
    with quiet_import():
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    convert_to_float8_training(
        model,
        module_filter_fn=lambda _, name: not name.endswith("head"),
        config=Float8LinearConfig(emulate=precision.emulate),
    )


@contextmanager
def quiet_import() -> Iterator[None]:
    """Suppress the warnings of torchao's import about missing GPU libraries and about its own use of torch."""
    names = ("torchao", "torch.utils._pytree")

    def is_news(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return not (text.startswith("Failed to load") or "is an Enum subclass" in text)

    for name in names:
        logging.getLogger(name).addFilter(is_news)
    try:
        yield
    finally:
        for name in names:
            logging.getLogger(name).removeFilter(is_news)

"""fp8: linear layers whose three products take 8-bit operands, by torchao.

Weights stay in 32 bits; each product scales and rounds its operands as a whole tensor (E4M3 forward, E5M2 for
gradients of outputs; Micikevicius et al. 2022). The head stays as it is, as is usual: its logits decide.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lmexp.config.schema import PrecisionConfig


def convert(model: nn.Module, precision: PrecisionConfig) -> None:
    """Replace a model's linear layers, in place, where the preset is fp8; weights and their names stay."""
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
    """Hold back what torchao's import says of GPU libraries that are not there, and of its own use of torch."""
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

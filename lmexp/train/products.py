"""How this process multiplies matrices. One place for train, eval and bench.

float32 is multiplied as it is, or rounded to TensorFloat-32. cuDNN has a setting of its own for that, which torch
leaves on: without it, the LSTM of an fp32 run on a GPU would multiply in tf32 (torch's notes on CUDA semantics,
"TensorFloat-32"). bf16 has other kernels on a CPU on which torch's are slow; see cost/cpu_products.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lmexp.config.base import Compute
from lmexp.cost.cpu_products import are_replaced, has_slow_bf16, replace_kernels

IN_BF16 = ("bf16", "fp8")
"""Precisions that multiply in bf16, or what is not multiplied in 8 bits."""


def set_products(compute: Compute | str) -> None:
    """Have this process multiply as the precision with this type of matmuls does."""
    torch.set_float32_matmul_precision("high" if compute == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = compute == "tf32"
    replace_kernels(compute in IN_BF16 and has_slow_bf16())


@contextmanager
def products(compute: Compute | str) -> Iterator[None]:
    """Do so within the block, and as before after it."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, are_replaced()
    set_products(compute)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
        replace_kernels(before[2])

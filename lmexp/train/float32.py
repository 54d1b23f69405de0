"""How float32 matrices are multiplied: as they are, or rounded to TensorFloat-32. One place for train, eval and bench.

cuDNN has a setting of its own, which torch leaves on: without it, the LSTM of an fp32 run on a GPU would multiply in
tf32 (torch's notes on CUDA semantics, "TensorFloat-32").
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lmexp.config.base import Compute


def set_float32_products(compute: Compute | str) -> None:
    """Have this process multiply float32 in tf32 where `compute` says so, and in full precision otherwise."""
    torch.set_float32_matmul_precision("high" if compute == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = compute == "tf32"


@contextmanager
def float32_products(compute: Compute | str) -> Iterator[None]:
    """Do so within the block, and as before after it."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    set_float32_products(compute)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]

"""A trained model in another precision: cast to a float type, or its weights rounded to int8 or int4.

Weight-only: a linear layer's weights are stored as integers with a scale for each row (int8) or for each
group of GROUP weights (int4), and are multiplied back into floats when they are used; activations stay
floats. torchao does it.

Two things that a table must not hide:

- int4 is stored one weight a byte (torchao's IntxUnpackedToInt8Tensor). Its packed layouts are each tied to
  a kernel of one kind of device; this one runs everywhere. So the loss is that of int4, while memory and
  speed are not those of packed int4.
- Embeddings are looked up, not multiplied, and stay floats. So does an output head that shares its weights
  with the embedding: an integer head would be a second copy of the table beside the float one, which grows a
  small model instead of shrinking it (transformers leaves tied heads alone for the same reason). A head
  with weights of its own is converted.
"""

import math

import torch
from torch import Tensor, nn

from lmexp.errors import UserError
from lmexp.train.float8 import quiet_import

FLOATS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What weights are stored in when a model computes in each; tf32 is a way of multiplying float32."""
INTEGERS = ("int8", "int4")
GROUP = 32
"""Weights that share an int4 scale, as in llama.cpp's Q4_0: small models' rows are too short for the usual 128."""
SMALLEST_GROUP = 8
"""Below this many weights a scale would weigh as much as what it scales."""


def convert(model: nn.Module, precision: str, compute: str) -> nn.Module:
    """Convert a float32 model in place, and return it.

    Args:
        precision: one of FLOATS, or of INTEGERS.
        compute: one of FLOATS: what an integer model's activations, and its other weights, are in.

    Raises UserError when torchao is needed and missing.
    """
    model.to(FLOATS[compute if precision in INTEGERS else precision])
    if precision in INTEGERS:
        _round_weights(model, precision)
    return model


def stored_as(precision: str, compute: str) -> str:
    """Say how a converted model's large matrices lie in memory: `bfloat16`, `int8`, `int4 in bytes`."""
    if precision in FLOATS:
        return str(FLOATS[precision]).removeprefix("torch.")
    return "int4 in bytes" if precision == "int4" else precision


def stored_bytes(tensor: Tensor) -> dict[int, int]:
    """Return the bytes of a tensor as it lies in memory, by address.

    A quantised tensor consists of several: integers, scales, zero points. Joined over a model's tensors, the
    addresses count shared weights once.
    """
    if hasattr(tensor, "__tensor_flatten__"):  # of torch's wrappers around other tensors
        parts = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
        return {address: size for part in parts for address, size in stored_bytes(part).items()}
    return {tensor.data_ptr(): tensor.nbytes}


def _round_weights(model: nn.Module, precision: str) -> None:
    with quiet_import():
        try:
            from torchao.quantization import (  # type: ignore[import-untyped, unused-ignore]
                Int8WeightOnlyConfig,
                IntxWeightOnlyConfig,
                PerGroup,
                quantize_,
            )
        except ImportError:
            raise UserError(f"{precision} needs torchao: pip install 'lmexp[quant]'") from None

    tables = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    for layer in model.modules():
        if not isinstance(layer, nn.Linear) or id(layer.weight) in tables:
            continue
        if precision == "int8":
            # The default would change the compiler's settings for the whole process.
            quantize_(layer, Int8WeightOnlyConfig(set_inductor_config=False))
        else:
            group = math.gcd(layer.in_features, GROUP)
            group = group if group >= SMALLEST_GROUP else layer.in_features
            int4 = torch.int4  # type: ignore[attr-defined]
            quantize_(layer, IntxWeightOnlyConfig(weight_dtype=int4, granularity=PerGroup(group)))

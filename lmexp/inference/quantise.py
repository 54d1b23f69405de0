"""A trained model in another precision: cast to a float type, or with its weights rounded to int8 or int4.

Quantisation is weight-only, by torchao: the weights of a linear layer are stored as integers, with one scale for each
row (int8) or for each group of GROUP weights (int4). They are converted back to floats when they are used; activations
stay floats.

Two limits that tables mention:

- int4 is stored with one byte for each weight (torchao's IntxUnpackedToInt8Tensor). torchao's packed layouts each need
  a kernel of one kind of device; this layout runs everywhere. So the loss is that of int4, but memory and speed are not
  those of packed int4.
- Embeddings stay floats, because they are looked up and not multiplied. An output head that shares its weights with
  the embedding stays float too: an integer head would be a second copy of the table, which makes a small model larger
  instead of smaller (transformers leaves tied heads alone for the same reason). Other heads are converted.
"""

import math
import warnings

import torch
from torch import Tensor, nn

from lmexp.config.scoring import INTEGERS
from lmexp.errors import UserError
from lmexp.train.float8 import quiet_import

FLOATS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The type of the weights for each compute precision; tf32 is a way of multiplying float32."""
GROUP = 32
"""Weights that share an int4 scale, as in llama.cpp's Q4_0; rows of small models are too short for the usual 128."""
MIN_GROUP = 8
"""In a smaller group, the scale would take as much memory as the weights."""


def convert(model: nn.Module, precision: str, compute: str) -> nn.Module:
    """Convert a float32 model in place, and return it.

    Args:
        precision: one of FLOATS, or of INTEGERS.
        compute: one of FLOATS, for the activations and the other weights of an integer model.

    Raises UserError if torchao is needed and missing.
    """
    model.to(FLOATS[compute if precision in INTEGERS else precision])
    if precision in INTEGERS:
        _round_weights(model, precision)
    return model


def stored_as(precision: str, compute: str) -> str:
    """Return how the large matrices of a converted model are stored: `bfloat16`, `int8`, `int4 in bytes`."""
    if precision in FLOATS:
        return str(FLOATS[precision]).removeprefix("torch.")
    return "int4 in bytes" if precision == "int4" else precision


def stored_bytes(tensor: Tensor) -> dict[int, int]:
    """Return the bytes of a tensor as it is stored, by address.

    A quantised tensor consists of several tensors: integers, scales, zero points. Merged over all tensors of a model,
    the addresses count shared weights once.
    """
    if hasattr(tensor, "__tensor_flatten__"):  # a wrapper of torch around other tensors
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

    # torch.compile says of each such type that its cache does not know it.
    warnings.filterwarnings("ignore", r"\w+ does not implement _stable_hash_for_caching")
    tables = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    for layer in model.modules():
        if not isinstance(layer, nn.Linear) or id(layer.weight) in tables:
            continue
        if precision == "int8":
            # By default it would change settings of the compiler for the whole process.
            quantize_(layer, Int8WeightOnlyConfig(set_inductor_config=False))
        else:
            group = math.gcd(layer.in_features, GROUP)
            group = group if group >= MIN_GROUP else layer.in_features
            int4 = torch.int4  # type: ignore[attr-defined]
            quantize_(layer, IntxWeightOnlyConfig(weight_dtype=int4, granularity=PerGroup(group)))

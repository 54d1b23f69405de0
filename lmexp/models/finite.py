"""Whether the weights of a file are numbers: a damaged or diverged model scores NaN, which is no quality."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lmexp.errors import UserError


def check_finite(weights: Mapping[str, Tensor], place: str | Path) -> None:
    """Raise UserError for the first weight that is not finite everywhere; `place` is where the weights come from."""
    for name, weight in weights.items():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise UserError(f"{place}: the weight '{name}' holds values that are not finite (NaN or infinite)")

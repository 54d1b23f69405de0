"""Scores beside the loss."""

from torch import Tensor


def letters_right(predicted: Tensor, targets: Tensor, first: int = ord("a"), last: int = ord("z")) -> float:
    """Return the accuracy over those targets that are small letters; of both tensors, (N,) int64, an id is a byte."""
    is_letter = (targets >= first) & (targets <= last)
    return float((predicted == targets)[is_letter].double().mean())

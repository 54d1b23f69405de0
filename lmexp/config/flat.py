"""Nested configs as dotted keys: `{"optim": {"lr": 1e-3}}` is `optim.lr` with 1e-3."""

from collections.abc import Iterator, Mapping
from typing import Any


def flat(node: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings under dotted keys; a list is a leaf, and so is an empty mapping."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value

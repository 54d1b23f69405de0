"""Linear layers that are stacked in one, so that one matmul does the work of several.

A module with such layers has a method `stacked`, which returns for each of them the names of its parts and their rows,
in order: {"qkv": {"query": 64, "key": 16, "value": 16}}. Each part is a matrix of its own for Muon and for initial
values that depend on a matrix's shape. Runs of earlier versions, and models of transformers, have a weight for each
part, by the part's name in place of the layer's.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

PARAMETERS = ("weight", "bias")


def stacked_rows(modules: Iterable[nn.Module]) -> dict[int, list[int]]:
    """Return, by the id of a weight in the modules, the numbers of rows of the matrices that are stacked in it."""
    return {
        id(owner.get_parameter(f"{name}.weight")): list(parts.values())
        for module in modules
        for _, owner, layers in _owners(module)
        for name, parts in layers.items()
    }


def part_names(model: nn.Module) -> dict[str, dict[str, int]]:
    """Return, by the name of a stacked weight or bias of a model, the names of its parts and their rows."""
    return {
        f"{place}{name}.{parameter}": {f"{place}{part}.{parameter}": rows for part, rows in parts.items()}
        for place, owner, layers in _owners(model)
        for name, parts in layers.items()
        for parameter in PARAMETERS
        if getattr(owner.get_submodule(name), parameter) is not None
    }


def split_parts(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return a model's weights with a view of each part in place of those that are stacked."""
    split = dict(weights)
    for name, parts in part_names(model).items():
        if name in split:
            split |= zip(parts, split.pop(name).split(list(parts.values())), strict=True)
    return split


def stack_parts(weights: dict[str, Any], names: Mapping[str, Iterable[str]]) -> None:
    """Put a stacked weight in place of its parts wherever they are all there; `names` is as from `part_names`."""
    for name, parts in names.items():
        if all(part in weights for part in parts):
            weights[name] = torch.cat([weights.pop(part) for part in parts])


def stack_on_load(module: nn.Module, weights: dict[str, Any], prefix: str, *ignored: Any) -> None:
    """Stack the parts of a module's weights in `weights`, in place: a hook that `load_state_dict` calls first."""
    names = part_names(module)
    stack_parts(weights, {prefix + name: [prefix + part for part in parts] for name, parts in names.items()})


def _owners(model: nn.Module) -> Iterator[tuple[str, nn.Module, dict[str, dict[str, int]]]]:
    """Yield each module that has stacked layers, behind what the names of its weights begin with, and these layers."""
    for place, module in model.named_modules():
        if hasattr(module, "stacked"):
            yield f"{place}." if place else "", module, module.stacked()

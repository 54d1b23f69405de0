"""From a number of parameters to a model with about as many: depth and width, in the study's proportions.

A law gives a number of parameters but no shape. If a shipped size of the family is close, it is used, because its
shape is tried and tested. Otherwise the width and the depth are chosen whose parameter count is closest, at about the
ratio of width to depth of the study's largest model. The loss depends only weakly on this ratio (Kaplan et al. 2020,
figure 5).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lmexp.config.models.base import CountedSection, ModelSection
from lmexp.config.paths import group_choices
from lmexp.config.tasks.base import TaskSection
from lmexp.config.yaml_files import read_yaml
from lmexp.cost.flops import count_model

NEAR = 0.1
"""A shipped size is used if its number of parameters is within this share of the wanted number."""
ASPECT = 0.1
"""Penalty for a ratio of width to depth that is off by a factor of e, in the log of the number of parameters."""
MAX_WIDTH = 65_536


@dataclass(frozen=True)
class ModelShape:
    """A model of about the wanted size."""

    model: ModelSection
    n_params: int
    shipped: str | None
    """Its name in conf/model; None if the shape was computed."""
    nearest: tuple[str, int] | None
    """The closest shipped size of this family, and its parameters with this vocabulary and context."""


def nearest_shape(base: ModelSection, task: TaskSection, params: float, roots: Sequence[Path]) -> ModelShape | None:
    """Return the model shape closest to `params` parameters; None for a family whose parameters no formula gives.

    `base` is the study's largest model, with its vocabulary resolved. Everything but the shape is copied from it.
    """
    if isinstance(base, CountedSection) or not base.d_model or not base.n_layers:
        return None
    shipped = [
        (name, model, count_model(model, task).n_params)
        for name, content in _model_files(roots)
        if content.get("_target_") == base.target and (model := _changed(base, content, name)) is not None
    ]
    closest = min(shipped, key=lambda candidate: abs(math.log(candidate[2] / params)), default=None)
    named = None if closest is None else (closest[0], closest[2])
    if closest is not None and abs(closest[2] / params - 1) <= NEAR:
        return ModelShape(closest[1], closest[2], closest[0], named)
    aspect = base.d_model / base.n_layers

    def miss(candidate: tuple[ModelSection, int]) -> float:
        model, count = candidate
        assert model.d_model and model.n_layers, "a shape of the base's family"
        return abs(math.log(count / params)) + ASPECT * abs(math.log(model.d_model / model.n_layers / aspect))

    candidates = list(_shapes(base, task, params))
    if not candidates:
        return None
    model, count = min(candidates, key=miss)
    return ModelShape(model.model_copy(update={"name": base.family}), count, None, named)


def _shapes(base: Any, task: TaskSection, params: float) -> Iterator[tuple[ModelSection, int]]:
    """Yield a model for each width, at the depth whose parameter count is closest, with that count."""
    head = (base.d_model // base.n_heads) if base.n_heads else 16
    group = getattr(base, "n_kv_heads", None) or 1
    for heads in range(group, MAX_WIDTH // head + 1, group):
        width = heads * head
        update: dict[str, Any] = {"d_model": width, "n_layers": 1} | ({"n_heads": heads} if base.n_heads else {})
        for key in base.widths:
            if own := getattr(base, key, None):
                update[key] = max(8 * round(own * width / base.d_model / 8), 8)
        one = count_model(base.model_copy(update=update), task).n_params
        two = count_model(base.model_copy(update=update | {"n_layers": 2}), task).n_params
        layers = max(round(1 + (params - one) / (two - one)), 1)
        yield base.model_copy(update=update | {"n_layers": layers}), one + (layers - 1) * (two - one)
        if one > 2 * params:
            return


def _changed(base: ModelSection, content: dict[str, Any], name: str) -> ModelSection | None:
    """Return the base model with the shape of a config file, or None if the result is not a valid model."""
    shape = {key: content.get(key) for key in base.shape if key in content}
    try:
        return type(base).model_validate(base.model_dump(by_alias=True) | shape | {"name": name})
    except ValidationError:
        return None


def _model_files(roots: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the model config files by name, each merged over the files that it inherits from."""
    files = group_choices("model", list(roots))
    contents = {name: read_yaml(file) or {} for name, file in files.items()}

    def merged(name: str, above: tuple[str, ...]) -> dict[str, Any]:
        own: dict[str, Any] = contents.get(name, {})
        inherited: dict[str, Any] = {}
        for start in own.get("defaults", []):
            if isinstance(start, str) and start not in above:
                inherited |= merged(start, (*above, start))
        return inherited | own

    for name in contents:
        yield name, merged(name, (name,))

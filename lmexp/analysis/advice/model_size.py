"""From a number of parameters to a config that has about as many: layers and width, in the study's proportions.

A law says how many parameters, not which. Where a shipped size of the family is near, it is taken, for its shape was
tried; else the width and the depth whose count comes nearest, at the ratio of width to depth of the study's largest
model, which loss depends on weakly (Kaplan et al. 2020, figure 5).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lmexp.config.models.base import CountedSection, ModelSection
from lmexp.config.paths import group_choices
from lmexp.config.tasks.base import TaskSection
from lmexp.cost.flops import count_model

NEAR = 0.1
"""A shipped size within this share of the parameters asked for is taken."""
ASPECT = 0.1
"""What a ratio of width to depth that is off by e counts, in shares of the parameters."""
MAX_WIDTH = 65_536


@dataclass(frozen=True)
class ModelShape:
    """A model of about the size asked for."""

    model: ModelSection
    n_params: int
    shipped: str | None
    """The choice of conf/model that it is; None for one that was worked out."""
    nearest: tuple[str, int] | None
    """The shipped size of this family that comes nearest, and its parameters with this vocabulary and context."""


def nearest_shape(base: ModelSection, task: TaskSection, params: float, roots: Sequence[Path]) -> ModelShape | None:
    """Return the shape nearest to `params` parameters; None for families without a formula, whose keys are not known.

    `base` is the study's largest model, its vocabulary resolved: what is not shape stays as there.
    """
    if isinstance(base, CountedSection) or not base.d_model or not base.n_layers:
        return None
    shipped = [
        (name, model, count_model(model, task).n_params)
        for name, content in _model_files(roots)
        if content.get("_target_") == base.target and (model := _changed(base, content, name)) is not None
    ]
    closest = min(shipped, key=lambda found: abs(math.log(found[2] / params)), default=None)
    named = None if closest is None else (closest[0], closest[2])
    if closest is not None and abs(closest[2] / params - 1) <= NEAR:
        return ModelShape(closest[1], closest[2], closest[0], named)
    aspect = base.d_model / base.n_layers

    def miss(found: tuple[ModelSection, int]) -> float:
        model, count = found
        assert model.d_model and model.n_layers, "a shape of the base's family"
        return abs(math.log(count / params)) + ASPECT * abs(math.log(model.d_model / model.n_layers / aspect))

    tried = list(_shapes(base, task, params))
    if not tried:
        return None
    model, count = min(tried, key=miss)
    return ModelShape(model.model_copy(update={"name": base.family}), count, None, named)


def _shapes(base: Any, task: TaskSection, params: float) -> Iterator[tuple[ModelSection, int]]:
    """Yield for each width the depth that comes nearest."""
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
    """Return the base with a file's shape, or None for a file without sizes."""
    shape = {key: content.get(key) for key in base.shape if key in content}
    try:
        return type(base).model_validate(base.model_dump(by_alias=True) | shape | {"name": name})
    except ValidationError:
        return None


def _model_files(roots: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the model files with their content over that of the file they start from."""
    files = group_choices("model", list(roots))
    contents = {name: yaml.safe_load(file.read_text(encoding="utf-8")) or {} for name, file in files.items()}
    for name, own in contents.items():
        merged: dict[str, Any] = {}
        for start in own.get("defaults", []):
            merged |= contents.get(start, {}) if isinstance(start, str) else {}
        yield name, merged | own

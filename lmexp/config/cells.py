"""From a sweep to its cells: the points of its axes, before they are runs."""

import itertools
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override

from lmexp.config.compose import Values, parse_overrides, swept_values
from lmexp.config.schema import SweepSpec
from lmexp.errors import UserError


@dataclass(frozen=True)
class Expansion:
    """A sweep's cells, in order, and the words that hold for all of them."""

    axes: dict[str, list[Any]]
    """Every swept key with its values, in order of appearance."""
    cells: list[Values]
    fixed: list[str]
    """The words of the command line that are no axis."""


def expand(spec: SweepSpec, words: list[str]) -> Expansion:
    """Cross the grid with the zipped axes, add the points, leave out what is excluded, repeat over seeds.

    A word of the command line that names an axis takes its place: `precision=bf16` narrows it to one value,
    `precision=bf16,tf32` sweeps these instead; `seed=3` replaces the seeds.
    Raises UserError for zipped axes of unequal length, an empty axis, or an axis named twice.
    """
    overrides = parse_overrides(words)
    swept = {o.key_or_group: swept_values(o) for o in overrides if o.is_sweep_override()}
    fixed = [o for o in overrides if not o.is_sweep_override()]
    said = {o.key_or_group for o in overrides}

    grid = {key: values for key, values in spec.grid.items() if key not in said} | swept
    zipped = {key: values for key, values in spec.zip.items() if key not in said}
    if "seed" not in said and spec.seeds is not None:
        grid["seed"] = list(range(spec.seeds)) if isinstance(spec.seeds, int) else list(spec.seeds)
    _check_axes(grid, zipped)

    # Seeds vary fastest among equals, as the last axis of the grid does: arms that share one stay together.
    seeds = {"seed": grid.pop("seed")} if "seed" in grid else {}
    crossed = [
        dict(zip(grid, point, strict=True)) | bundle
        for point in itertools.product(*grid.values())
        for bundle in ([dict(zip(zipped, row, strict=True)) for row in zip(*zipped.values(), strict=True)] or [{}])
    ]
    points = [{key: value for key, value in point.items() if key not in said} for point in spec.points]
    if points and not grid and not zipped:
        crossed = []  # a list of points alone: the empty product is not one of them
    cells: list[Values] = []
    for cell in crossed + points:
        if any(_matches(cell, pattern) for pattern in spec.exclude):
            continue
        for seed in seeds.get("seed", [None]):
            whole = cell if seed is None or "seed" in cell else cell | {"seed": seed}
            if whole not in cells:
                cells.append(whole)
    if not cells:
        raise UserError("the sweep has no cells: everything in it is excluded")
    return Expansion(axes=_axes_of(cells), cells=cells, fixed=[_text(o) for o in fixed])


def _matches(cell: Values, pattern: Values) -> bool:
    return all(key in cell and cell[key] == value for key, value in pattern.items())


def _check_axes(grid: dict[str, list[Any]], zipped: dict[str, list[Any]]) -> None:
    for key, values in (grid | zipped).items():
        if not values:
            raise UserError(f"sweep: the axis {key} has no values")
    twice = sorted(grid.keys() & zipped.keys())
    if twice:
        raise UserError(f"sweep: {twice[0]} is both in grid and in zip")
    lengths = {key: len(values) for key, values in zipped.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise UserError(f"sweep: zipped axes must be of one length: {shown}")


def _axes_of(cells: list[Values]) -> dict[str, list[Any]]:
    axes: dict[str, list[Any]] = {}
    for cell in cells:
        for key, value in cell.items():
            values = axes.setdefault(key, [])
            if value not in values:
                values.append(value)
    return axes


def _text(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line

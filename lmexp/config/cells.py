"""From a sweep to its cells: the points of its axes, before they are runs."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override

from lmexp.config.compose import Values
from lmexp.config.overrides import parse_overrides, sets_a_value, swept_values, written
from lmexp.config.sweeps import Choices, SearchSpec, SweepSpec
from lmexp.errors import UserError, nearest

MAX_CELLS = 10_000
MAX_CORNERS = 64


@dataclass(frozen=True)
class Expansion:
    """A sweep's cells, in order, and the words that hold for all of them."""

    axes: dict[str, list[Any]]
    """Every swept key with its values, in order of appearance."""
    cells: list[Values]
    fixed: list[str]
    """The words of the command line that are no axis."""
    warnings: list[str]
    """What is odd about the sweep, as sentences."""


def expand(spec: SweepSpec, words: list[str]) -> Expansion:
    """Cross the grid with the zipped axes, add the points, leave out what is excluded, repeat over seeds.

    A word of the command line that names an axis takes its place: `precision=bf16` narrows it to one value,
    `precision=bf16,tf32` sweeps these instead; `seed=3` replaces the seeds. It stays an axis, in its place, so that
    a cell has the same values and the same name whatever else is in the sweep.
    Raises UserError for zipped axes of unequal length, an empty axis, an axis named twice, or words that name
    some axes of a zip and not the others.
    """
    overrides = parse_overrides(words)
    swept, fixed = _axes_of_words(spec, overrides)
    said = {o.key_or_group for o in overrides}

    grid = {key: values for key, values in spec.grid.items() if key in swept or key not in said}
    zipped = {key: values for key, values in spec.zip.items() if key not in said}
    if 0 < len(zipped) < len(spec.zip):
        named, others = next(key for key in spec.zip if key in said), ", ".join(zipped)
        raise UserError(f"{named} is zipped with {others}: set all of them, or none")
    grid |= swept
    if "seed" not in said and spec.seeds is not None:
        grid["seed"] = _seeds(spec.seeds)
    _check_axes(grid, zipped)

    # Seeds vary fastest among equals, as the last axis of the grid does: arms that share one stay together.
    seeds = {"seed": grid.pop("seed")} if "seed" in grid else {}
    are_points_alone = bool(spec.points) and not spec.grid and not zipped
    count = 0 if are_points_alone else math.prod(map(len, grid.values())) * max([1, *map(len, zipped.values())])
    count += len(spec.points) * math.prod(len(values) for key, values in swept.items() if key != "seed")
    count *= len(seeds.get("seed", [None]))
    if count > MAX_CELLS:
        raise UserError(f"the sweep has {count:,} cells; {MAX_CELLS:,} are the most")
    crossed = [] if are_points_alone else _cross(grid, zipped)  # the empty product is not one of a list of points
    swept_words = [dict(zip(swept, row, strict=True)) for row in itertools.product(*swept.values())]
    points = [
        {key: value for key, value in point.items() if key not in said} | words
        for point in spec.points
        for words in swept_words
    ]
    cells: list[Values] = []
    excluded: list[Values] = []
    known: set[str] = set()
    for cell in crossed + points:
        for seed in seeds.get("seed", [None]):
            whole = cell if seed is None or "seed" in cell else cell | {"seed": seed}
            if any(_matches(whole, pattern) for pattern in spec.exclude):
                excluded.append(whole)
            elif repr(whole) not in known:
                known.add(repr(whole))
                cells.append(whole)
    _check_patterns(spec, [*grid, *zipped, *seeds], said)
    if not cells:
        raise UserError("the sweep has no cells: everything in it is excluded")
    return Expansion(
        axes=_axes_of(cells),
        cells=cells,
        fixed=[_text(o) for o in fixed],
        warnings=list(_idle_exclusions(spec, said, excluded)),
    )


def _axes_of_words(spec: SweepSpec, overrides: list[Override]) -> tuple[dict[str, list[Any]], list[Override]]:
    """Separate the words that are axes, with their values, from those that hold for all cells.

    An axis is what sweeps, and a single value for an axis of the sweep file.
    """
    axes = {*spec.grid, *spec.zip, *(key for point in spec.points for key in point)}
    if spec.seeds is not None:
        axes.add("seed")
    swept: dict[str, list[Any]] = {}
    fixed = []
    for override in overrides:
        if override.is_sweep_override():
            swept[override.key_or_group] = swept_values(override)
        elif override.key_or_group in axes and (sets_a_value(override) or override.is_force_add()):
            swept[override.key_or_group] = [override.value()]
        else:
            fixed.append(override)
    return swept, fixed


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    """Return the seeds of a sweep, of which a number stands for the first ones. Raises UserError for too many."""
    if isinstance(seeds, int) and seeds > MAX_CELLS:
        raise UserError(f"sweep.seeds={seeds}: a sweep has at most {MAX_CELLS:,} cells")
    return list(range(seeds) if isinstance(seeds, int) else seeds)


def _cross(grid: dict[str, list[Any]], zipped: dict[str, list[Any]]) -> list[Values]:
    """Return every point of the grid with every row of the zipped axes; the last axis varies fastest."""
    rows = [dict(zip(zipped, row, strict=True)) for row in zip(*zipped.values(), strict=True)] or [{}]
    points = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
    return [point | row for point in points for row in rows]


def _check_patterns(spec: SweepSpec, axes: list[str], said: set[str]) -> None:
    """Raise UserError for a key of sweep.exclude that is no axis, is in no point, and was not said."""
    unknown = {key for pattern in spec.exclude for key in pattern} - {*axes, *said}
    unknown -= {key for point in spec.points for key in point}
    if unknown:
        key = min(unknown)
        raise UserError(f"sweep.exclude: {key} is no axis of the sweep.{nearest(key, axes)}")


def search_space(search: SearchSpec, words: list[str]) -> SearchSpec:
    """Return a search without the keys that words of the command line fix.

    Raises UserError for words that sweep, and when nothing is left to search.
    """
    said = set()
    for override in parse_overrides(words):
        if override.is_sweep_override():
            raise UserError(f"{override.input_line}: a search chooses its own values; give one, which fixes the key")
        said.add(override.key_or_group)
    space = {key: axis for key, axis in search.space.items() if key not in said}
    if not space:
        raise UserError("nothing is left to search: every key of sweep.search.space is fixed")
    return search.model_copy(update={"space": space})


def corners(search: SearchSpec) -> Iterator[Values]:
    """Yield the corners of a search's space: every combination of ends and choices.

    A space with more than MAX_CORNERS corners yields only the first and the last.
    """
    ends = [axis.choices if isinstance(axis, Choices) else [axis.low, axis.high] for axis in search.space.values()]
    if math.prod(map(len, ends)) <= MAX_CORNERS:
        points: Iterable[tuple[Any, ...]] = itertools.product(*ends)
    else:
        points = [tuple(values[0] for values in ends), tuple(values[-1] for values in ends)]
    return (dict(zip(search.space, point, strict=True)) for point in points)


def _idle_exclusions(spec: SweepSpec, said: set[str], excluded: list[Values]) -> Iterator[str]:
    """Yield a sentence for each entry of `exclude` that leaves no cell out, unless the command line is the reason."""
    for pattern in spec.exclude:
        if said.intersection(pattern) or any(_matches(cell, pattern) for cell in excluded):
            continue
        sentence = f"sweep.exclude: {written(pattern)} matches no cell"
        for key, value in pattern.items():
            known = [*spec.grid.get(key, []), *spec.zip.get(key, []), *(p[key] for p in spec.points if key in p)]
            if key != "seed" and value not in known:
                sentence += f"; {key} has no value {written(value)}.{nearest(str(value), map(str, known))}"
                break
        yield sentence


def _matches(cell: Values, pattern: Values) -> bool:
    return all(key in cell and cell[key] == value for key, value in pattern.items())


def _check_axes(grid: dict[str, list[Any]], zipped: dict[str, list[Any]]) -> None:
    for key, values in (grid | zipped).items():
        if not values:
            raise UserError(f"sweep: the axis {key} has no values")
        if key.split(".")[0] in ("sweep", "hydra", "run", "schema_version"):
            raise UserError(f"sweep: {key} cannot be an axis: it is no key of a run")
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

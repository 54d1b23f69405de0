"""From a sweep's name to runs that can start: expanded, checked, tokenised, named.

Everything that can be found wrong is found here, before anything starts: every cell is composed and checked, every text
is tokenised, every horizon is computed. A cell that cannot run is skipped and keeps its reason; if no cell can run, the
input was wrong.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lmexp.config import paths
from lmexp.config.cells import Expansion, expand, search_space
from lmexp.config.compose import Composer, Values, allow_code
from lmexp.config.identity import folder_name
from lmexp.config.overrides import parse_overrides, split_words
from lmexp.config.sweeps import SweepSpec
from lmexp.config.words import ELSEWHERE
from lmexp.cost.elsewhere import HardwareElsewhere
from lmexp.errors import UserError
from lmexp.messages import Say, silent
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.resolve.run import AUTOMATIC, RunResolver, init_name
from lmexp.resolve.search import resolve_search
from lmexp.runs.directory import RunDir
from lmexp.runs.manifest import INIT, SkippedCell, read_manifest
from lmexp.units import counted

PRETRAIN = "init.pretrain"


def resolve_sweep(
    sweep: str | None,
    overrides: list[str],
    outputs: Path,
    config_dir: Path | None = None,
    name: str | None = None,
    say: Say = silent,
    when_valid: Callable[[], None] = lambda: None,
    elsewhere: HardwareElsewhere | None = None,
) -> Sweep:
    """Resolve a sweep file (or, without one, the overrides alone) into runs.

    Args:
        sweep: name or file of a sweep; None for the runs that `overrides` alone describe.
        overrides: Hydra overrides; one with several values is an axis.
        outputs: the folder that holds the sweeps' folders.
        config_dir: the user's own root of configs.
        name: name of the sweep's folder [default: the sweep's name].
        say: receives progress messages.
        when_valid: called as soon as one cell is known to make sense on this machine, before its text is tokenised.
        elsewhere: hardware that the runs are planned for [default: this machine, or the launcher's cluster].

    Raises UserError if the sweep cannot be read or none of its cells can run.
    """
    allow_code(overrides, config_dir)
    command = _command(sweep, name, config_dir)
    roots = paths.search_roots(config_dir)
    file = None
    if sweep is not None:
        sweep_name, file = paths.find_sweep(sweep, roots)
        name = name or sweep_name.replace("/", "-")
    name = folder_name(name or "train")
    sweep_overrides, run_overrides = split_words(overrides)
    composer = Composer(roots, file, sweep_overrides)
    spec = composer.sweep_spec() if file or sweep_overrides else SweepSpec()
    resolver = RunResolver(outputs, name, roots, say, when_valid, elsewhere)
    if spec.search is not None:
        search = search_space(spec.search, run_overrides)
        resolved = resolve_search(search, Composer(roots, file, run_overrides), resolver)
        axes: dict[str, list[Any]] = {key: [] for key in search.space}
        return Sweep(
            name=name,
            folder=outputs / name,
            question=spec.question,
            axes=axes,
            runs=[],
            skipped=[],
            warnings=resolver.warnings,
            search=resolved,
            command=(*command, *_of_result(run_overrides)),
        )
    expansion = expand(spec, run_overrides)
    resolver.warnings.extend(expansion.warnings)
    runs, skipped = _resolve_cells(expansion, Composer(roots, file, expansion.fixed), resolver)
    return Sweep(
        name=name,
        folder=outputs / name,
        question=spec.question,
        axes=_axes(expansion, runs),
        runs=runs,
        skipped=skipped,
        has_manifest=file is not None or bool(expansion.axes),
        warnings=resolver.warnings,
        command=(*command, *_of_result(expansion.fixed)),
    )


def _command(sweep: str | None, name: str | None, config_dir: Path | None) -> list[str]:
    """Return the words of the command line that choose the sweep."""
    words = ["lmexp", "train", "-m"] if sweep is None else ["lmexp", "sweep", sweep]
    words += [] if name is None else ["--name", name]
    return words + ([] if config_dir is None else ["--config-dir", str(config_dir)])


def _of_result(words: list[str]) -> list[str]:
    """Return the overrides that may change a result; those of loggers may also hold secrets."""
    kept = [override for override in parse_overrides(words) if override.key_or_group.split(".")[0] not in ELSEWHERE]
    return [override.input_line or "" for override in kept]


def _resolve_cells(
    expansion: Expansion, composer: Composer, resolver: RunResolver
) -> tuple[list[PlannedRun], list[SkippedCell]]:
    """Return the runs of a sweep's cells, and the cells that cannot run. Raises UserError if no cell can."""
    runs: dict[str, PlannedRun] = {}
    skipped: list[SkippedCell] = []
    alternatives = _alternative_pretrainings(expansion.cells)
    for values in expansion.cells:
        try:
            chain = resolver.resolve_cell(values, composer, alternatives)
        except UserError as problem:
            skipped.append(SkippedCell(values=values, reason=str(problem)))
        else:
            for run in chain:  # two cells can be one run: an axis that a model does not use, or the same first weights
                runs.setdefault(run.identity, run)
    if not runs:
        reasons = list(dict.fromkeys(cell.reason for cell in skipped))
        more = f" (and {counted(len(reasons) - 1, 'more reason')})" if len(reasons) > 1 else ""
        whole_sweep = f"none of the {len(skipped)} cells can be run: " if len(skipped) > 1 else ""
        raise UserError(f"{whole_sweep}{reasons[0]}{more}")
    return list(runs.values()), skipped


def _alternative_pretrainings(cells: Sequence[Values]) -> list[Values]:
    """Return all pretrainings of a sweep if cells that agree in all other axes have different ones; otherwise none."""
    alternatives: dict[str, list[Values]] = {}
    for cell in cells:
        same = alternatives.setdefault(repr({key: cell[key] for key in cell if key != PRETRAIN}), [])
        if cell.get(PRETRAIN) and cell[PRETRAIN] not in same:
            same.append(cell[PRETRAIN])
    if all(len(same) < 2 for same in alternatives.values()):
        return []
    return [cell[PRETRAIN] for cell in cells if cell.get(PRETRAIN)]


def _axes(expansion: Expansion, runs: Sequence[PlannedRun]) -> dict[str, list[Any]]:
    """Return a sweep's axes, with the numbers that `auto` stands for.

    A sweep that trains weights first has two kinds of runs, which differ in their task.
    """
    axes = dict(expansion.axes)
    for key in AUTOMATIC:
        if "auto" in axes.get(key, []):
            given = [value for value in axes[key] if value != "auto"]
            axes[key] = list(dict.fromkeys([*given, *(run.values[key] for run in runs if key in run.values)]))
    if any(run.needs for run in runs):
        chains = axes.pop(PRETRAIN, [])
        alternatives = _alternative_pretrainings(expansion.cells)
        names = [init_name({}, []), *(init_name(each, alternatives) for each in chains if each)]
        axes |= {INIT: list(dict.fromkeys(names))} if len(chains) > 1 else {}
        axes["task"] = list(dict.fromkeys(run.config.task.name for run in runs))
    return axes


def resolve_runs(folder: Path, runs: Sequence[RunDir], say: Say = silent) -> Sweep:
    """Return existing runs as a sweep that can start, from nothing but their directories.

    Raises UserError if one of them cannot be read, or cannot run here.
    """
    manifest = read_manifest(folder)
    values = {cell.run_id: cell.values for cell in manifest.cells} if manifest else {}
    resolver = RunResolver(folder.parent, folder.name, paths.search_roots(), say, lambda: None)
    planned = []
    for run in runs:
        config = run.read_config()
        if config.run is None:
            raise UserError(f"{run.path}: its config does not name the run")
        planned.append(resolver.resolve_run(values.get(config.run.id, {}), config, run))
    question = manifest.question if manifest else None
    return Sweep(folder.name, folder, question, {}, planned, [], has_manifest=False, warnings=resolver.warnings)

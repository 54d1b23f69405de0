"""From a sweep's name to runs that can start: expanded, checked, tokenised, named.

Everything that can be found wrong is found here, before anything starts: every cell is composed and
checked, every text is tokenised, every horizon computed. A cell that cannot be run is set aside with its
reason; when none can, that is a wrong input.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lmexp.config import paths
from lmexp.config.cells import corners, expand, search_space
from lmexp.config.checks import check_config, devices_of, world_size
from lmexp.config.compose import Composer, Values, split_words
from lmexp.config.identity import HASH_LENGTH, run_id, slug
from lmexp.config.launchers import LocalLauncher
from lmexp.config.schema import InitConfig, RunConfig, RunInfo
from lmexp.config.sweeps import Choices, SearchSpec, SweepSpec
from lmexp.cost.device import Device, detect, slow_precision, unsupported_precision
from lmexp.cost.hardware import fits, hardware_of
from lmexp.cost.horizon import Horizon, horizon
from lmexp.cost.memory import estimate_memory
from lmexp.data.feeds import open_feed
from lmexp.data.prepare import InputResolver, begin_with
from lmexp.errors import UserError, nearest
from lmexp.files import hash_text
from lmexp.runs.directory import STORES, RunDir, runs_in
from lmexp.runs.find import find_run
from lmexp.runs.manifest import Cell, Manifest, SkippedCell, read_manifest
from lmexp.runs.mirrors import check_logger
from lmexp.runs.record import COLUMNS, CURVE_QUALITIES, OPEN, WORDS

Say = Callable[[str], None]
INIT = "init"
"""The axis that tells runs with weights of a sweep's own from those without, where init.pretrain varies."""


@dataclass(frozen=True)
class PlannedRun:
    """A cell that can be run: its values, its resolved config, and where it lives."""

    values: Values
    config: RunConfig
    horizon: Horizon
    device: Device
    run: RunDir
    needs: "PlannedRun | None" = None
    """The run of this sweep whose weights it begins with; None where there is none, or it was there before."""

    @property
    def identity(self) -> str:
        """The hash that the run is known by."""
        assert self.config.run is not None, "a planned run is named"
        return self.config.run.id


@dataclass(frozen=True)
class Searched:
    """What a search goes by: its spec, and how a cell that it proposes becomes a run."""

    spec: SearchSpec
    """Without the keys that the command line fixes."""
    identity: str
    """Hash of what its results depend on: the space, the objectives, and all that its runs share."""
    corners: list[PlannedRun]
    """The corners of the space that can be run, by their work, the least first."""
    resolve: Callable[[Values], PlannedRun]
    """Raises UserError for a cell that cannot be run."""
    say: Say


@dataclass(frozen=True)
class Sweep:
    """A sweep, ready to start. What a search has proposed joins its runs, cells and axes as it goes."""

    name: str
    folder: Path
    question: str | None
    axes: dict[str, list[Any]]
    runs: list[PlannedRun]
    skipped: list[SkippedCell]
    has_manifest: bool = True
    """Whether its folder is one sweep's; runs that are started one by one share a folder."""
    warnings: list[str] = field(default_factory=list)
    search: Searched | None = None
    """None where the runs are known from the start."""

    @property
    def examples(self) -> list[PlannedRun]:
        """Runs to go by before any has started: all of them, or the least and the most work that a search can take."""
        if self.search is None:
            return self.runs
        least, most = self.search.corners[0], self.search.corners[-1]
        return [least, most] if most is not least else [least]


def resolve_sweep(
    sweep: str | None,
    words: list[str],
    outputs: Path,
    config_dir: Path | None = None,
    name: str | None = None,
    say: Say = lambda line: None,
    when_valid: Callable[[], None] = lambda: None,
) -> Sweep:
    """Resolve a sweep file (or, without one, the words alone) into runs.

    Args:
        sweep: name or file of a sweep; None for the runs that `words` alone describe.
        words: Hydra overrides; one with several values is an axis.
        outputs: where sweeps' folders lie.
        config_dir: the user's own root of configs.
        name: what the sweep's folder is called; by default, as the sweep.
        say: told what takes long.
        when_valid: called as soon as one cell is known to make sense on this machine, before its text is tokenised.

    Raises UserError when the sweep cannot be read or none of its cells can be run.
    """
    roots = paths.search_roots(config_dir)
    file = None
    if sweep is not None:
        found, file = paths.find_sweep(sweep, roots)
        name = name or found.replace("/", "-")
    name = folder_name(name or "train")
    # The spec is read with the words that hold for every cell, which may set parts of it.
    of_sweep, of_runs = split_words(words)
    whole = Composer(roots, file, of_sweep)
    spec = whole.sweep_spec() if file or of_sweep else SweepSpec()
    resolver = _Resolver(outputs, name, roots, say, when_valid)
    if spec.search is not None:
        search = search_space(spec.search, of_runs)
        return Sweep(
            name=name,
            folder=outputs / name,
            question=spec.question,
            axes={key: [] for key in search.space},
            runs=[],
            skipped=[],
            warnings=resolver.warnings,
            search=_resolve_search(search, Composer(roots, file, of_runs), resolver),
        )
    expansion = expand(spec, of_runs)
    composer = Composer(roots, file, expansion.fixed)

    runs: list[PlannedRun] = []
    skipped: list[SkippedCell] = []
    identities: set[str] = set()
    for values in expansion.cells:
        try:
            chain = resolver.resolve_cell(values, composer, expansion.axes)
        except UserError as problem:
            skipped.append(SkippedCell(values=values, reason=str(problem)))
        else:
            # Two cells can be one run: say, an axis that a model does not use, or one pretrained model for several.
            for run in chain:
                if run.identity not in identities:
                    identities.add(run.identity)
                    runs.append(run)
    axes = dict(expansion.axes)
    if any(run.needs for run in runs):  # two kinds of runs, which the table tells apart by what they predict
        chains = axes.pop("init.pretrain", [])
        axes |= {INIT: ["scratch", "pretrained"]} if len(chains) > 1 else {}
        axes["task"] = list(dict.fromkeys(run.config.task.name for run in runs))
    if not runs:
        reasons = list(dict.fromkeys(cell.reason for cell in skipped))
        more = f" (and {len(reasons) - 1} more reasons)" if len(reasons) > 1 else ""
        whole_sweep = f"none of the {len(skipped)} cells can be run: " if len(skipped) > 1 else ""
        raise UserError(f"{whole_sweep}{reasons[0]}{more}")
    return Sweep(
        name=name,
        folder=outputs / name,
        question=spec.question,
        axes=axes,
        runs=runs,
        skipped=skipped,
        has_manifest=file is not None or bool(expansion.axes),
        warnings=resolver.warnings,
    )


def folder_name(name: str) -> str:
    """Return a sweep's name as its folder's: as slugs are, and by its hash where that would leave nothing of it."""
    plain = slug({"name": name})
    return plain if re.search("[a-z0-9]", name.lower()) else f"sweep-{hash_text(name, 6)}"


def resolve_runs(folder: Path, runs: Sequence[RunDir], say: Say = lambda line: None) -> Sweep:
    """Return runs that exist as a sweep that can start, from nothing but their directories.

    Raises UserError when one of them cannot be read, or cannot run here.
    """
    manifest = read_manifest(folder)
    values = {cell.run_id: cell.values for cell in manifest.cells} if manifest else {}
    resolver = _Resolver(folder.parent, folder.name, paths.search_roots(), say, lambda: None)
    planned = []
    for run in runs:
        config = run.read_config()
        if config.run is None:
            raise UserError(f"{run.path}: its config does not name the run")
        planned.append(resolver.resolve_run(values.get(config.run.id, {}), config, run))
    question = manifest.question if manifest else None
    return Sweep(folder.name, folder, question, {}, planned, [], has_manifest=False, warnings=resolver.warnings)


def _resolve_search(search: SearchSpec, composer: Composer, resolver: "_Resolver") -> Searched:
    """Check a search and the corners of its space. Raises UserError when none of them can be run."""
    _check_search(search)
    ends = {
        key: axis.choices if isinstance(axis, Choices) else [axis.low, axis.high] for key, axis in search.space.items()
    }

    def resolve(values: Values) -> PlannedRun:
        return resolver.resolve(values, composer.config(values), ends)

    found: list[PlannedRun] = []
    problems: list[str] = []
    for values in corners(search):
        config = composer.config(values)  # a bound or a choice that no config can have is a wrong input
        _check_rungs(search, config)
        try:
            found.append(resolver.resolve(values, config, ends))
        except UserError as problem:
            problems.append(str(problem))
    if not found:
        raise UserError(f"no corner of the search's space can be run: {problems[0]}")
    what = search.model_dump(mode="json", include={"space", "objectives"})
    return Searched(
        spec=search,
        identity=hash_text(json.dumps([found[0].identity, what], sort_keys=True), HASH_LENGTH),
        corners=sorted(found, key=lambda planned: planned.horizon.flops or planned.horizon.seconds or 0.0),
        resolve=resolve,
        say=resolver.say,
    )


def _check_search(search: SearchSpec) -> None:
    if find_spec("optuna") is None:
        raise UserError("a search needs optuna: pip install 'lmexp[optuna]'")
    numbers = [name for name in COLUMNS if name not in WORDS]
    for name in search.objectives:
        if name not in numbers and not name.startswith(OPEN):
            raise UserError(f"sweep.search.objectives: {name} is no column of numbers.{nearest(name, numbers)}")
    if search.prune and (len(search.objectives) > 1 or next(iter(search.objectives)) not in CURVE_QUALITIES):
        raise UserError(
            f"sweep.search.prune compares trials on their way: it needs a single objective, "
            f"one of {', '.join(CURVE_QUALITIES)}"
        )


def _check_rungs(search: SearchSpec, config: RunConfig) -> None:
    every = config.evaluation.every
    if search.prune and every > search.prune.start + 1e-9:
        raise UserError(
            f"sweep.search.prune.from={search.prune.start:g} comes before the first evaluation: set "
            f"evaluation.every={search.prune.start:g} or less, or prune.from={every:g}"
        )


class _Resolver:
    """Resolves configs, reading each source and asking for each device once."""

    def __init__(self, outputs: Path, sweep: str, roots: list[Path], say: Say, when_valid: Callable[[], None]) -> None:
        self.outputs, self.sweep, self.roots, self.say = outputs, sweep, roots, say
        self._tell_valid: Callable[[], None] | None = when_valid
        self.warnings: list[str] = []
        self._devices: dict[str, Device] = {}
        self._settler = InputResolver(outputs / STORES, say)
        # A run is known by its hash wherever it lies; the sweep's own folder comes last and wins.
        folders = sorted(outputs.glob("[!.]*/"), key=lambda folder: folder.name == sweep)
        self._known = {run.name.rsplit("-", 1)[-1]: run.path for f in folders for run in runs_in(f)}

    def resolve_cell(self, values: Values, composer: Composer, axes: dict[str, list[Any]]) -> list[PlannedRun]:
        """Return the run of a cell, after the one that is to give it its weights, if the sweep trains that first.

        Raises UserError when one of them cannot be run.
        """
        config = composer.config(values)
        own = {key: value for key, value in values.items() if key != "init.pretrain"}
        if "init.pretrain" in axes:  # too long for a name or a table
            own[INIT] = "pretrained" if config.init.pretrain else "scratch"
        axes = axes | {INIT: ["scratch", "pretrained"][: len(axes.get("init.pretrain", []))], "task": ["", ""]}
        if not config.init.pretrain:
            return [self.resolve(own, config, axes)]
        if config.init.run is not None:
            raise UserError("init.run and init.pretrain both say what the weights begin as; set one of them")
        pretrain = config.init.pretrain
        groups = [key for key in pretrain if "." not in key]  # what was set in another choice of these does not apply
        kept = {key: value for key, value in values.items() if key.split(".")[0] not in groups}
        before = composer.without(groups).config(kept | pretrain).model_copy(update={"init": InitConfig()})
        varied = {key: value for key, value in own.items() if key.split(".")[0] != INIT}
        first = self.resolve(varied | {"task": before.task.name}, before, axes)
        init = config.init.model_copy(update={"run": str(first.run.path.absolute()), "run_id": first.identity})
        tokenizer = self._settler.store(first.config).path / "tokenizer.json"
        config = begin_with(config.model_copy(update={"init": init}), first.config, tokenizer)
        named = own | {"task": config.task.name}
        return [first, replace(self.resolve(named, config, axes), needs=first)]

    def resolve(self, values: Values, config: RunConfig, axes: dict[str, list[Any]]) -> PlannedRun:
        """Return the run of a cell. Raises UserError when it cannot be run."""
        if config.init.run is not None and config.init.run_id is None:
            config = self._with_init(config)
        config, length, device = self._runnable(config, read_source=True)
        identity = run_id(config)
        varied = {key: value for key, value in values.items() if len(axes[key]) > 1}
        words = slug(varied or {"model": config.model.name, "precision": config.precision.name})
        info = RunInfo(id=identity, sweep=self.sweep, slug=words)
        config = config.model_copy(update={"run": info})
        # Cells that share a run, as several may one that gives them their weights, have one directory.
        path = self._known.setdefault(identity, self.outputs / self.sweep / f"{words}-{identity}")
        return PlannedRun(values=values, config=config, horizon=length, device=device, run=RunDir(path))

    def resolve_run(self, values: Values, config: RunConfig, run: RunDir) -> PlannedRun:
        """Return a run that has its directory already. Raises UserError when it cannot be run."""
        config, length, device = self._runnable(config, read_source=False)
        return PlannedRun(values=values, config=config, horizon=length, device=device, run=run)

    def _runnable(self, config: RunConfig, read_source: bool) -> tuple[RunConfig, Horizon, Device]:
        """Check a config against this machine and its text, and fill in what is found there."""
        check_config(config)
        check_logger(config.logger)
        device = self._check_device(config)
        config = self._with_hardware(config, device)
        if read_source:
            config = self._settler.identified(config)
        if self._tell_valid and not device.elsewhere:
            self._tell_valid()
            self._tell_valid = None
        config = self._settler.settled(config)
        self._check_memory(config, device)
        feed = open_feed(config, self._settler.store(config))
        if cut := feed.cut:
            self._warn(f"data.truncate cuts {cut:,} texts to the context of {config.model.name}")
        length = horizon(config, feed.epoch_tokens, device.kind)
        if length.budget_share < 0.95:
            self._warn(
                f"whole steps of {config.batch.tokens} tokens spend {length.budget_share:.0%} of the budget "
                f"({config.model.name}, d_model {config.model.d_model}, {config.model.n_layers} layers); "
                "a smaller batch.tokens spends more of it"
            )
        return config, length, device

    def _with_init(self, config: RunConfig) -> RunConfig:
        """Fill in whose weights a run begins with, and its model and tokenizer."""
        assert config.init.run is not None
        run = find_run(config.init.run, self.outputs)
        if not run.final.is_dir():
            raise UserError(
                f"init.run={config.init.run}: {run.name} has no finished model, it is {run.read_state().state}"
            )
        theirs = RunDir(run.final).read_config()
        assert theirs.run is not None, "a run's config is named"
        init = config.init.model_copy(update={"run": str(run.path.absolute()), "run_id": theirs.run.id})
        return begin_with(config.model_copy(update={"init": init}), theirs, run.final / "tokenizer.json")

    def _check_device(self, config: RunConfig) -> Device:
        accelerator = config.trainer.accelerator
        if not isinstance(config.launcher, LocalLauncher):
            return _device_elsewhere(config)
        if accelerator not in self._devices:
            self._devices[accelerator] = detect(accelerator)
        device = self._devices[accelerator]
        if device.kind != "cpu" and world_size(config) > device.count:
            raise UserError(f"trainer.devices={config.trainer.devices}: this machine has {device.count}")
        if device.kind == "cuda" and (asked := devices_of(config)) > device.count:
            raise UserError(f"launcher.devices_per_run={asked:g}: this machine has {device.count}")
        if reason := unsupported_precision(config.precision, device):
            raise UserError(f"precision={config.precision.name}: {reason}")
        if config.precision.compute == "fp8" and find_spec("torchao") is None:
            raise UserError("precision=fp8 needs torchao: pip install 'lmexp[quant]'")
        if warning := slow_precision(config.precision, device):
            self._warn(warning)
        return device

    def _with_hardware(self, config: RunConfig, device: Device) -> RunConfig:
        """Fill in what is known of the device, where the config leaves that to be found."""
        asked = config.hardware
        if device.elsewhere:  # `auto` is found out there
            return config
        if not fits(asked, device):
            if device.kind == "cpu":
                raise UserError(f"hardware={asked.name} is no CPU, and runs train on one here; hardware=auto fits")
            self._warn(f"hardware={asked.name} does not know {device.name}; its figures are used as you ask")
        return config.model_copy(update={"hardware": hardware_of(asked, device, self.roots)})

    def _check_memory(self, config: RunConfig, device: Device) -> None:
        """Refuse what cannot fit, by more than the estimate's uncertainty."""
        smallest = 1 if config.batch.micro == "auto" else None
        estimate = estimate_memory(config, device.kind, smallest)
        has, share = f"{device.name} has {device.memory_gb:,.0f} GB", device.memory_gb
        if device.kind == "cpu":
            share /= world_size(config)
        elif (part := devices_of(config)) < 1:
            share *= part
            has += f", and {part:g} of it is the run's"
        if estimate.total > share * 1e9:
            raise UserError(
                f"{config.model.name} needs {estimate.total / 1e9:,.0f} GB for weights, gradients and optimizer "
                f"alone; {has}"
            )
        if 0.9 * estimate.peak > share * 1e9:
            less = "" if smallest else ", or less by a smaller micro-batch: batch.micro=auto finds it"
            raise UserError(f"{config.model.name} needs about {estimate.peak / 1e9:,.0f} GB{less}; {has}")

    def _warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)


def _device_elsewhere(config: RunConfig) -> Device:
    """Return what is known of a cluster's device: its kind by the accelerator, the rest by the hardware named."""
    kind: Literal["cpu", "cuda"] = "cpu" if config.trainer.accelerator == "cpu" else "cuda"
    memory = config.hardware.memory_gb or math.inf
    name = config.hardware.name if config.hardware.name != "auto" else f"a {kind} device of {config.launcher.name}"
    return Device(kind, name, config.trainer.devices, memory, None, native_bf16=True, elsewhere=True)


def manifest_of(sweep: Sweep) -> Manifest:
    """Return what the sweep consists of now, for status and report."""
    return Manifest(
        name=sweep.name,
        question=sweep.question,
        axes=sweep.axes,
        cells=[
            Cell(
                run_id=planned.identity,
                path=_relative(planned.run.path, sweep.folder),
                values=planned.values,
            )
            for planned in sweep.runs
        ],
        skipped=sweep.skipped,
    )


def _relative(path: Path, folder: Path) -> str:
    """Return a run's path seen from its sweep's folder: a run of another sweep is `../other/...`."""
    return path.name if path.parent == folder else f"../{path.parent.name}/{path.name}"

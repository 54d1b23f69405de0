"""From one config to a run that can start: checked against this machine, its inputs resolved, its directory chosen."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from lmexp.config.checks import check_config, devices_of, sequences, world_size
from lmexp.config.compose import Composer, Values
from lmexp.config.flat import flat
from lmexp.config.identity import ids_of, slug
from lmexp.config.models.hf import HFConfig
from lmexp.config.outside import check_outside, with_versions
from lmexp.config.privacy_checks import check_samples
from lmexp.config.schema import HardwareConfig, InitConfig, RunConfig, RunInfo
from lmexp.config.tokenizers import AUTO_ENTRIES
from lmexp.config.trust import allow_settings
from lmexp.cost.accounting import accounting
from lmexp.cost.device import Device, detect, slow_precision, slow_vocabulary, unsupported_precision
from lmexp.cost.elsewhere import HardwareElsewhere
from lmexp.cost.hardware import AUTO, fits, hardware_of, with_given
from lmexp.cost.horizon import Horizon, horizon
from lmexp.cost.memory import estimate_memory
from lmexp.data.membership import membership_texts
from lmexp.data.open_feed import open_feed
from lmexp.data.prepare import AnyStore, automatic_sizes, warnings
from lmexp.data.sources import check_apart
from lmexp.errors import UserError
from lmexp.files import absolute_text
from lmexp.messages import Say
from lmexp.resolve.inputs import InputResolver, begin_with
from lmexp.resolve.learning_rate import with_learning_rate
from lmexp.resolve.planned import PlannedRun
from lmexp.runs.directory import STORES, RunDir, runs_in
from lmexp.runs.find import find_run
from lmexp.runs.manifest import INIT
from lmexp.runs.mirrors.open import check_logger
from lmexp.runs.origin import code_version
from lmexp.runs.state import RESULTS

MIN_BUDGET_SHARE = 0.95
"""A run that spends less than this share of its budget, because steps are whole, is worth a warning."""
SURE_SHARE = 0.9
"""A run is refused only if this share of its estimated peak memory already exceeds the device."""
PRETRAINED = "pretrained"
"""The value of the axis `init` for runs that start from a pretraining that needs no name of its own."""


AUTOMATIC = ("optim.lr", "tokenizer.vocab_size", "target_tokenizer.vocab_size")
"""Keys whose value `auto` stands for a number that follows from the cell."""


def init_name(pretraining: Values, alternatives: Sequence[Values]) -> str:
    """Return the value of the axis `init`: scratch, pretrained or, if there are alternatives, which of them.

    It is then named by what sets it apart, as in `pretrained-tokens500000`.
    """
    if not pretraining:
        return "scratch"
    keys = dict.fromkeys(key for each in alternatives for key in each)
    apart = [key for key in keys if any(each.get(key) != alternatives[0].get(key) for each in alternatives)]
    return f"{PRETRAINED}-{slug({key: pretraining.get(key) for key in apart})}" if apart else PRETRAINED


class RunResolver:
    """Resolves configs into runs; reads each source and looks at each device once."""

    def __init__(
        self,
        outputs: Path,
        sweep: str,
        roots: list[Path],
        say: Say,
        when_valid: Callable[[], None],
        elsewhere: HardwareElsewhere | None = None,
    ) -> None:
        """`when_valid` is called once, as soon as one config is known to make sense on this machine.

        With `elsewhere`, runs are checked for that hardware instead of this machine. The plan checks whether they fit
        into its memory.
        """
        self._elsewhere = elsewhere
        self.outputs, self.sweep, self.roots, self.say = outputs, sweep, roots, say
        self._when_valid: Callable[[], None] | None = when_valid
        self.warnings: list[str] = []
        self._devices: dict[str, Device] = {}
        self._hardware: dict[tuple[str, Device], HardwareConfig] = {}
        self._inputs = InputResolver(outputs / STORES, say)
        # The hash identifies a run wherever its directory is; the sweep's own folder comes last and takes precedence.
        folders = sorted(outputs.glob("[!.]*/"), key=lambda folder: folder.name == sweep)
        self._paths = {run.name.rsplit("-", 1)[-1]: run.path for f in folders for run in runs_in(f)}

    def resolve_cell(self, values: Values, composer: Composer, alternatives: Sequence[Values] = ()) -> list[PlannedRun]:
        """Return the run of a cell; before it, the run that provides its weights, if the sweep trains that one first.

        `alternatives` are the values of `init.pretrain` that a name must tell apart. Raises UserError if one of the
        runs cannot run.
        """
        config = composer.config(values)
        own = {key: value for key, value in values.items() if key != "init.pretrain"}
        if "init.pretrain" in values:
            own[INIT] = init_name(config.init.pretrain, alternatives)
        if not config.init.pretrain:
            return [self.resolve(own, config)]
        if config.init.run is not None:
            raise UserError("init.run and init.pretrain both say where the weights come from; set one of them")
        first = self._pretraining(values, own, config, composer)
        init = config.init.model_copy(update={"run": absolute_text(first.run.path), "run_id": first.identity})
        tokenizer = self._inputs.store(first.config).path / "tokenizer.json"
        config = begin_with(config.model_copy(update={"init": init}), first.config, tokenizer)
        return [first, replace(self.resolve(own | {"task": config.task.name}, config), needs=first)]

    def _pretraining(self, values: Values, own: Values, config: RunConfig, composer: Composer) -> PlannedRun:
        """Return the run that trains the weights for a cell: the cell with the overrides of `init.pretrain`."""
        pretrain = config.init.pretrain
        groups = [key for key in pretrain if "." not in key]  # overrides of another choice of these groups do not apply
        kept = {key: value for key, value in values.items() if key.split(".")[0] not in groups}
        before = composer.without(groups).config(kept | pretrain).model_copy(update={"init": InitConfig()})
        # The name of one of several pretrainings separates their own runs too.
        dropped = (INIT, PRETRAINED)
        varied = {key: value for key, value in own.items() if not key.startswith("init.") and (key, value) != dropped}
        return self.resolve(varied | {"task": before.task.name}, before)

    def resolve(self, values: Values, config: RunConfig) -> PlannedRun:
        """Return the run of a cell, named after the cell's values alone. Raises UserError if it cannot run."""
        if config.init.run is not None and config.init.run_id is None:
            config = self._with_init(config)
        allow_settings(config.model_dump(mode="json", by_alias=True))  # they were composed, not read from a run
        config, length, device = self._runnable(config, read_source=True)
        automatic = [key for key in AUTOMATIC if values.get(key) == "auto"]
        if automatic:  # names, tables and filters show the number
            known = dict(flat(config.model_dump(mode="json")))
            values = values | {key: known[key] for key in automatic if key in known}
        ids = ids_of(config)
        identity = next((each for each in ids if each in self._paths), ids[0])
        name = slug(values or {"model": config.model.name, "precision": config.precision.name})
        info = RunInfo(id=identity, sweep=self.sweep, slug=name)
        config = config.model_copy(update={"run": info})
        # Cells that are the same run, as several can start from the same weights, share one directory.
        path = self._paths.setdefault(identity, self.outputs / self.sweep / f"{name}-{identity}")
        return self._planned(values, config, length, device, RunDir(path))

    def store(self, config: RunConfig) -> AnyStore:
        """Return the store of a run's data; see InputResolver.store."""
        return self._inputs.store(config)

    def resolve_run(self, values: Values, config: RunConfig, run: RunDir) -> PlannedRun:
        """Return a run that already has its directory. Raises UserError if it cannot run."""
        config, length, device = self._runnable(config, read_source=False)
        return self._planned(values, config, length, device, run)

    def _planned(self, values: Values, config: RunConfig, length: Horizon, device: Device, run: RunDir) -> PlannedRun:
        state = run.read_state()
        if state.state not in RESULTS and state.code not in (None, code_version()) and run.last_saved() is not None:
            self._warn(f"{run.name} resumes under other code or packages than it began with; its record will name both")
        return PlannedRun(values=values, config=config, horizon=length, device=device, run=run)

    def _runnable(self, config: RunConfig, read_source: bool) -> tuple[RunConfig, Horizon, Device]:
        """Check a config against this machine and its data, and fill in what they decide."""
        check_config(config)
        check_outside(config)
        check_logger(config.logger)
        device = self._check_device(config)
        config = self._with_hardware(config, device)
        if read_source:
            config = with_versions(self._inputs.identified(config))
            check_apart(config.data)
        if self._when_valid and not device.elsewhere:
            self._when_valid()
            self._when_valid = None
        automatic = automatic_sizes(config)
        config = self._inputs.settled(config)
        self._say_sizes(config, automatic)
        if self._elsewhere is None:
            self._check_memory(config, device)
        is_given = isinstance(config.model, HFConfig) and config.model.pretrained is not None
        has_table = config.task.label_head() is None and not is_given
        if has_table and (warning := slow_vocabulary(config.model.vocab_size or 0, config.precision, device)):
            self._warn(warning)
        store = self._inputs.store(config)
        for warning in warnings(store):
            self._warn(warning)
        feed = open_feed(config, store)
        if config.privacy.is_on:
            check_samples(config, feed.disjoint_sequences, sequences(config))
        if "test" in store.splits:
            open_feed(config, store, "test")  # a split that is too short is refused now, not when the run starts
        if count := config.evaluation.membership:
            membership_texts(store, config.model.context, count)  # too few documents are refused now, not at the end
        if cut := feed.cut:
            self._warn(f"data.truncate cuts {cut:,} texts to the context of {config.model.name}")
        length = horizon(config, feed.epoch_tokens, device.kind, feed.parts)
        if config.privacy.is_on:
            assert length.steps is not None, "check_config refuses budgets of time"
            accounting(config, feed.disjoint_sequences).enough_noise(length.steps)  # refused now, not at the start
        config = with_learning_rate(config, length.tokens, self._warn)
        if length.budget_share < MIN_BUDGET_SHARE:
            self._warn(
                f"whole steps of {config.batch.tokens} tokens spend {length.budget_share:.0%} of the budget "
                f"({config.model.name}, d_model {config.model.d_model}, {config.model.n_layers} layers); "
                "a smaller batch.tokens spends more of it"
            )
        return config, length, device

    def _with_init(self, config: RunConfig) -> RunConfig:
        """Fill in the run that `init.run` names, and its model and tokenizer."""
        assert config.init.run is not None
        run = find_run(config.init.run, self.outputs, is_finished=True)
        if not run.final.is_dir():
            raise UserError(
                f"init.run={config.init.run}: {run.name} has no finished model, it is {run.read_state().state}"
            )
        source = RunDir(run.final).read_config()
        assert source.run is not None, "a run's config has a name"
        init = config.init.model_copy(update={"run": absolute_text(run.path), "run_id": source.run.id})
        return begin_with(config.model_copy(update={"init": init}), source, run.final / "tokenizer.json")

    def _check_device(self, config: RunConfig) -> Device:
        """Return the device that a run trains on. Raises UserError if this machine lacks what it needs."""
        if self._elsewhere is not None:
            self._elsewhere.check(config)
            return self._elsewhere.device
        accelerator = config.trainer.accelerator
        if not config.launcher.is_local:
            return _device_elsewhere(config)
        if accelerator not in self._devices:
            self._devices[accelerator] = detect(accelerator)
        device = self._devices[accelerator]
        if device.kind != "cpu" and world_size(config) > device.count:
            raise UserError(f"trainer.devices={config.trainer.devices}: this machine has {device.count}")
        if device.kind == "cuda" and (needed := devices_of(config)) > device.count:
            raise UserError(f"launcher.devices_per_run={needed:g}: this machine has {device.count}")
        if reason := unsupported_precision(config.precision, device):
            raise UserError(f"precision={config.precision.name}: {reason}")
        if config.precision.compute == "fp8" and find_spec("torchao") is None:
            raise UserError("precision=fp8 needs torchao: pip install 'lmexp[quant]'")
        if warning := slow_precision(config.precision, device):
            self._warn(warning)
        return device

    def _with_hardware(self, config: RunConfig, device: Device) -> RunConfig:
        """Fill in what is known about the device, unless the config says it."""
        named = config.hardware
        if self._elsewhere is not None:
            there = self._elsewhere.hardware
            if named.name not in (AUTO, there.name):
                raise UserError(f"hardware={named.name} and --on {there.name} name different devices")
            return config.model_copy(update={"hardware": with_given(there, named)})
        if device.elsewhere:  # the worker resolves `auto` on its node
            return config
        if not fits(named, device):
            if device.kind == "cpu":
                raise UserError(f"hardware={named.name} is no CPU, and runs train on one here; hardware=auto fits")
            self._warn(f"hardware={named.name} does not match {device.name}; its figures are used because you set it")
        key = named.model_dump_json(), device
        if key not in self._hardware:
            self._hardware[key] = hardware_of(named, device, self.roots)
        return config.model_copy(update={"hardware": self._hardware[key]})

    def _check_memory(self, config: RunConfig, device: Device) -> None:
        """Raise UserError if a run exceeds the device's memory by more than the uncertainty of the estimate."""
        smallest = 1 if config.batch.micro == "auto" else None
        estimate = estimate_memory(config, device.kind, smallest)
        has, share = f"{device.name} has {device.memory_gb:,.0f} GB", device.memory_gb
        if device.kind == "cpu":
            share /= world_size(config)
        elif (part := devices_of(config)) < 1:
            share *= part
            has += f", and the run gets {part:g} of it"
        if estimate.total > share * 1e9:
            raise UserError(
                f"{config.model.name} needs {estimate.total / 1e9:,.0f} GB for weights, gradients and optimizer "
                f"alone; {has}"
            )
        if SURE_SHARE * estimate.peak > share * 1e9:
            less = "" if smallest else ", or less with a smaller micro-batch: batch.micro=auto finds it"
            raise UserError(f"{config.model.name} needs about {estimate.peak / 1e9:,.0f} GB{less}; {has}")

    def _say_sizes(self, config: RunConfig, automatic: Sequence[str]) -> None:
        """Warn of a vocabulary that is small, or large, because of its text."""
        for key in automatic:
            size = getattr(config, key).vocab_size
            if size < AUTO_ENTRIES:
                self._warn(f"{key}.vocab_size=auto is {size} here: the training text supports no more entries")
            elif size > AUTO_ENTRIES:
                self._warn(f"{key}.vocab_size=auto is {size} here: the characters of the training text need as many")

    def _warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)


def _device_elsewhere(config: RunConfig) -> Device:
    """Return what is known about a cluster's device: its kind from the accelerator, the rest from `hardware`."""
    kind: Literal["cpu", "cuda"] = "cpu" if config.trainer.accelerator == "cpu" else "cuda"
    memory = config.hardware.memory_gb or math.inf
    name = config.hardware.name if config.hardware.name != "auto" else f"a {kind} device of {config.launcher.name}"
    return Device(kind, name, config.trainer.devices, memory, None, native_bf16=True, elsewhere=True)

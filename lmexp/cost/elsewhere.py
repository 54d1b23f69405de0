"""Hardware that is not here: what the hardware table knows about it, and the speed that follows from an assumed MFU.

    seconds = FLOPs / (devices * peak of the precision * MFU)

The peak is the dense one of the table, and the FLOPs are those of flops.py, which count attention in full.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmexp.config.checks import check_config, device_share, devices_of, sequences, world_size
from lmexp.config.schema import HardwareConfig, PrecisionConfig, RunConfig
from lmexp.cost.device import Device
from lmexp.cost.flops import count_run
from lmexp.cost.hardware import hardware_named, peak_of, with_given
from lmexp.cost.horizon import Horizon
from lmexp.cost.memory import SPARE, estimate_memory
from lmexp.errors import UserError

DEFAULT_MFU = 0.4
"""Llama 3 405B was trained at an MFU of 0.38 to 0.43 in bf16 on up to 16,384 H100s (Llama Team 2024, table 4). lmexp
trained GPT-2 small at 0.43 and a Llama of 1B parameters at 0.55 on one H200, compiled, in bf16 (docs/gpu.md)."""
MIN_PARAMS = 100_000_000
"""Models with fewer parameters than this reach a lower MFU than DEFAULT_MFU."""
NODE = 8
"""Devices of a node, in the overrides that are suggested for a run on several nodes."""
MAX_DEVICES = 1024
"""The largest number of devices that is tried for a run that does not fit."""


@dataclass(frozen=True)
class HardwareElsewhere:
    """Devices of one kind on another machine, or on the nodes of a cluster."""

    hardware: HardwareConfig
    count: int
    """Devices that all runs together may use."""
    mfu: float
    is_default_mfu: bool

    @property
    def device(self) -> Device:
        """One of the devices, with what the hardware table has of it."""
        hardware = self.hardware
        assert hardware.memory_gb is not None, "hardware_elsewhere refuses hardware of unknown memory"
        return Device("cuda", hardware.name, self.count, hardware.memory_gb, None, True, elsewhere=True)

    def check(self, config: RunConfig) -> None:
        """Raise UserError if a run cannot be trained on these devices, whatever its memory."""
        name, trainer = self.hardware.name, config.trainer
        if trainer.accelerator in ("cpu", "mps"):
            raise UserError(
                f"--on plans for GPUs, so it takes {name} for one, and the run has "
                f"trainer.accelerator={trainer.accelerator}"
            )
        if (needed := devices_of(config)) > self.count:
            raise UserError(f"a run takes {needed:g} devices (trainer.devices), and --devices is {self.count}")
        if reason := _unsupported(config.precision, with_given(self.hardware, config.hardware)):
            raise UserError(f"precision={config.precision.name}: {reason}")

    def peak(self, config: RunConfig) -> tuple[float, str]:
        """Return the dense FLOP/s of one device in a run's precision, and their source."""
        peak = peak_of(config.hardware, _multiplies_in(config.precision))
        assert peak is not None, "check refuses precisions without a peak"
        return peak

    def speed(self, config: RunConfig, horizon: Horizon) -> "AssumedSpeed":
        """Return the speed that the assumed MFU gives a run."""
        flops = float(config.batch.tokens) * count_run(config).flops_per_token
        if horizon.flops is not None and horizon.steps:
            flops = horizon.flops / horizon.steps  # examples that share sequences take less
        devices = world_size(config) * device_share(config, "cuda")
        return AssumedSpeed(flops / (devices * self.peak(config)[0] * self.mfu))


@dataclass(frozen=True)
class AssumedSpeed:
    """The time of a step under the assumed MFU; a plan has it in place of a probe."""

    step_seconds: float
    joules_per_step: None = None
    energy_source: None = None

    def seconds(self, steps: int) -> float:
        """Return the training seconds of this many steps."""
        return steps * self.step_seconds

    def steps_in(self, seconds: float) -> int:
        """Return how many steps fit into this many training seconds; at least one."""
        return max(1, round(seconds / self.step_seconds))


@dataclass(frozen=True)
class Fit:
    """Whether a run fits into the memory of its devices."""

    fits: bool
    """Whether the run fits with its config as it is."""
    devices: int | None
    """How many devices the run needs; None if it fits on none of 2, 4, 8, ... MAX_DEVICES that divide its batch."""
    overrides: tuple[str, ...] = ()
    """The overrides with which the run fits; empty if it needs none, or if none help."""


def hardware_elsewhere(
    name: str | None, devices: int | None, mfu: float | None, roots: Sequence[Path]
) -> HardwareElsewhere | None:
    """Return the hardware that `--on`, `--devices` and `--mfu` describe; None without `--on`.

    Raises UserError for hardware that is not in the table or cannot train, and for values that make no sense.
    """
    if name is None:
        given = "--devices" if devices is not None else "--mfu"
        if devices is not None or mfu is not None:
            raise UserError(f"{given} describes hardware that is not here: it needs --on, as in --on h100_sxm")
        return None
    hardware = hardware_named(name, roots)
    if any(pattern.startswith("TPU") for pattern in hardware.match):
        raise UserError(f"--on {name}: lmexp does not run on TPUs; the table has their figures for comparison")
    if hardware.memory_gb is None:
        raise UserError(f"--on {name}: its file in conf/hardware/ has no memory_gb, so nothing is known to fit")
    if devices is not None and devices < 1:
        raise UserError(f"--devices {devices}: give the number of devices there, 1 or more")
    if mfu is not None and not 0 < mfu <= 1:
        raise UserError(f"--mfu {mfu:g}: the share of the peak that training reaches, above 0 and at most 1")
    return HardwareElsewhere(hardware, devices or 1, DEFAULT_MFU if mfu is None else mfu, mfu is None)


def fit(config: RunConfig, memory_gb: float) -> Fit:
    """Return whether a run fits on GPUs with `memory_gb` each, and if not, the smallest change that makes it fit.

    Smaller micro-batches are tried first, then FSDP on 2, 4, 8, ... devices, then FSDP with activation checkpointing.
    A tenth of the memory is kept free, as `batch.micro=auto` does.
    """
    room = (1 - SPARE["cuda"]) * memory_gb * 1e9

    def fits(changed: RunConfig) -> bool:
        micro = 1 if changed.batch.micro == "auto" else None
        return estimate_memory(changed, "cuda", micro).peak <= room

    if fits(config):
        return Fit(True, world_size(config))
    for devices, changed, overrides in _changes(config):
        try:
            check_config(changed)
        except UserError:  # fsdp does not go with every optimizer, precision and batch
            continue
        if fits(changed):
            return Fit(False, devices, overrides)
    return Fit(False, None)


def _changes(config: RunConfig) -> Iterator[tuple[int, RunConfig, tuple[str, ...]]]:
    """Yield the number of devices, the config and its overrides for each change that saves memory on a device."""
    batch = config.batch.model_copy(update={"micro": "auto"})
    smaller = () if config.batch.micro == "auto" else ("batch.micro=auto",)
    if smaller:
        yield world_size(config), config.model_copy(update={"batch": batch}), smaller
    if (recompute := config.trainer.activation_checkpointing) == "none":
        recomputes = {"none": (), "full": ("trainer.activation_checkpointing=full",)}
    else:
        recomputes = {recompute: ()}
    powers = range(1, MAX_DEVICES.bit_length())
    for how, recomputing in recomputes.items():
        for devices in (2**power for power in powers):
            more = () if sequences(config) >= devices else (f"batch.tokens={devices * config.model.sequence_tokens}",)
            tokens = devices * config.model.sequence_tokens if more else batch.tokens
            sharded = {"devices": devices, "num_nodes": 1, "strategy": "fsdp", "activation_checkpointing": how}
            trainer = config.trainer.model_copy(update=sharded)
            changed = {"batch": batch.model_copy(update={"tokens": tokens}), "trainer": trainer}
            nodes = (f"trainer.num_nodes={devices // NODE}",) if devices > NODE else ()
            words = (*nodes, f"trainer.devices={min(devices, NODE)}", "trainer.strategy=fsdp", *smaller, *more)
            yield devices, config.model_copy(update=changed), (*words, *recomputing)


def _multiplies_in(precision: PrecisionConfig) -> str:
    """Return the compute type whose peak counts; emulated fp8 multiplies in float32."""
    return "fp32" if precision.emulate else precision.compute


def _unsupported(precision: PrecisionConfig, hardware: HardwareConfig) -> str | None:
    """Return why a device of the table cannot train in a precision; None if it can."""
    compute = _multiplies_in(precision)
    if compute in ("tf32", "fp8") and any(pattern.startswith("AMD") for pattern in hardware.match):
        return f"lmexp trains in {compute} on NVIDIA GPUs only, and {hardware.name} is AMD's"
    if peak_of(hardware, compute) is None:
        known = ", ".join(map(str, hardware.peak_flops)) or "none"
        return f"the hardware table has no peak of {hardware.name} for {compute} (it has {known})"
    return None

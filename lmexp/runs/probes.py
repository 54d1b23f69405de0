"""Probes: a few steps of a shape, measured, so that a plan can say seconds, energy and money.

A shape is what decides the speed of a step: model, batch, precision, optimizer, devices, threads, versions.
Runs that differ in seed, budget, data or learning rate share one. So does the number of runs that use the device at a
time: a shape that shares it is measured with copies of itself. A probe lies in `<outputs>/.probes/<shape>/`,
which is a run directory with `probe.json` in place of a record.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from lmexp.config.schema import RunConfig
from lmexp.files import hash_text, read_json, write_json
from lmexp.runs.directory import RunDir
from lmexp.runs.origin import PACKAGES, pinned
from lmexp.runs.state import State

PROBES = ".probes"
FILE = "probe.json"


@dataclass(frozen=True)
class Probe:
    """What a few steps of a shape took."""

    step_seconds: float
    """Mean over the steps after the warm-up."""
    steps: int
    """How many those were."""
    warmup_seconds: float
    """Seconds of all warm-up steps together."""
    warmup_steps: int
    joules_per_step: float | None
    """Counted, over all devices; None where no counter can be read."""
    energy_source: str | None
    measured: float
    """When, in seconds since the epoch."""
    exclusive: bool = True
    """Whether nothing else was seen on the device meanwhile; if False, the speed is that of a shared device. It is
    always False if copies were measured side by side."""

    cpu_wait_fraction: float | None = None
    """Share of the measured time in which other programs kept it waiting for a core; None if unknown."""

    def seconds(self, steps: int) -> float:
        """Return the training seconds that so many steps will take."""
        if steps <= self.warmup_steps:
            return self.warmup_seconds * steps / self.warmup_steps
        return self.warmup_seconds + (steps - self.warmup_steps) * self.step_seconds

    def steps_in(self, seconds: float) -> int:
        """Return how many steps fit into so many training seconds; at least one."""
        after = (seconds - self.warmup_seconds) / self.step_seconds
        return max(1, round(self.warmup_steps + after))


_TRIAL = TypeAdapter(Probe)


def shape_of(config: RunConfig, device: str, threads: int, sharing: int = 1) -> str:
    """Return the identity of a config's shape on a device, with so many CPU threads.

    `sharing` is how many runs use the device at a time.
    """
    what = config.model_dump(
        mode="json",
        by_alias=True,
        include={"model", "task", "batch", "precision", "trainer", "optim"},
        exclude={
            "model": {"name", "mup_base_width", "mup_base_head_size"},
            "optim": {"lr", "lr_rule", "adamw_lr", "weight_decay"},
            "trainer": {"log_every", "profiler", "enable_model_summary", "enable_progress_bar"},
        },
    )
    where = {"device": device, "threads": threads, "packages": [pinned(package) for package in PACKAGES]}
    beside = {"sharing": sharing} if sharing > 1 else {}
    return hash_text(json.dumps({**what, **where, **beside}, sort_keys=True), 12)


def read_probe(outputs: Path, shape: str) -> Probe | None:
    """Return what was measured of a shape before, or None."""
    try:
        return _TRIAL.validate_python(read_json(outputs / PROBES / shape / FILE))
    except (OSError, ValueError, ValidationError, RecursionError):
        return None


def write_probe(run: RunDir, probe: Probe) -> None:
    """Leave a probe's result in its directory, atomically."""
    write_json(run.path / FILE, asdict(probe))


def probe_run(outputs: Path, shape: str, config: RunConfig) -> RunDir:
    """Return the directory in which a shape is tried, its config in place; an earlier result is dropped."""
    run = RunDir(outputs / PROBES / shape)
    if run.path.is_dir():
        (run.path / FILE).unlink(missing_ok=True)
        run.write_config(config)
        run.write_state(State())
        return run
    return RunDir.create(run.path, config)

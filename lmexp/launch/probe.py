"""Probes: train a few steps of each distinct shape of a sweep, so that its plan knows time and money."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, harmonic_mean

from lmexp.config.checks import device_share, world_size
from lmexp.cost.contention import MAX_WAIT_FRACTION
from lmexp.errors import UserError
from lmexp.launch.processes import Process, start, stop_all
from lmexp.launch.slots import Places, busy_warning, threads_of
from lmexp.messages import Say, silent
from lmexp.resolve.planned import PlannedRun
from lmexp.runs.directory import RunDir
from lmexp.runs.probes import FILE, Probe, probe_run, read_probe, shape_of, write_probe

POLL_SECONDS = 0.05


def shape(planned: PlannedRun) -> str:
    """Return the shape of a planned run on this machine."""
    config, device = planned.config, planned.device
    return shape_of(config, device.name, threads_of(config, device), sharing_of(planned))


def sharing_of(planned: PlannedRun) -> int:
    """Return how many runs like this one use a device at a time."""
    return round(1 / device_share(planned.config, planned.device.kind))


def known_probes(runs: Sequence[PlannedRun], outputs: Path) -> list[Probe | None]:
    """Return for each run what an earlier probe measured of its shape."""
    return [read_probe(outputs, shape(planned)) for planned in runs]


def measure(runs: Sequence[PlannedRun], outputs: Path, say: Say = silent) -> dict[str, Probe]:
    """Train a few steps of each distinct shape of `runs`, one after another, with the machine to itself.

    Returns the result of each shape; see `measure_shape`. A probe that fails is reported with its reason and its log,
    and has none. Raises UserError if the runs would
    train on a cluster.
    """
    if runs and runs[0].device.elsewhere:
        raise UserError(f"only this machine can be measured, not one of launcher={runs[0].config.launcher.name}")
    if warning := busy_warning(runs):
        say(warning)
    shapes = {shape(planned): planned for planned in runs}
    results = {}
    for number, (name, planned) in enumerate(shapes.items(), 1):
        copies = sharing_of(planned)
        beside = f", {copies} side by side" if copies > 1 else ""
        say(f"measuring shape {number} of {len(shapes)}: {planned.run.name}{beside}")
        if probe := measure_shape(planned, outputs, say):
            results[name] = probe
    return results


def measure_shape(planned: PlannedRun, outputs: Path, say: Say = silent) -> Probe | None:
    """Measure and remember the shape of a run, with copies of it beside it if it shares its device.

    A result is not remembered if other programs kept a probe on a CPU waiting for its cores. Returns None, after saying
    why, if a probe failed.
    """
    name, places = shape(planned), Places(planned.device)
    runs: list[RunDir] = []
    handles: list[Process] = []
    try:
        for number in range(1, sharing_of(planned) + 1):
            place = places.take(planned.config)
            if place is None:  # launcher.slots allows fewer runs at a time than there are shares of a device
                break
            runs.append(probe_run(outputs, name if number == 1 else f"{name}-{number}", planned.config))
            handles.append(start(runs[-1], world_size(planned.config), place, probe=True))
        while any(handle.exit_code() is None for handle in handles):
            time.sleep(POLL_SECONDS)
    except BaseException:
        stop_all(handles)
        raise
    probes = [probe for run in runs if (probe := read_probe(outputs, run.name)) is not None]
    if len(probes) < len(runs):
        failed, handle = next(
            (run, handle) for run, handle in zip(runs, handles, strict=True) if read_probe(outputs, run.name) is None
        )
        reason = failed.read_state().reason or f"ended with exit code {handle.exit_code()}"
        say(f"{planned.run.name} could not be measured: {reason}; its log: {failed.log}")
        (runs[0].path / FILE).unlink(missing_ok=True)
        return None
    for copy in runs[1:]:
        shutil.rmtree(copy.path, ignore_errors=True)
    probe = probes[0] if len(probes) == 1 else _mean(probes)
    if planned.device.kind == "cpu" and max(each.cpu_wait_fraction or 0.0 for each in probes) > MAX_WAIT_FRACTION:
        (runs[0].path / FILE).unlink(missing_ok=True)
        say(
            f"warning: other programs kept {planned.run.name} waiting for its cores while it was measured: this "
            "command uses the lower speed and does not keep it"
        )
    elif len(probes) > 1:
        write_probe(runs[0], probe)
    elif not probe.exclusive:
        say(f"warning: {planned.run.name} was measured beside other work, and is planned at that lower speed")
    return probe


def _mean(probes: Sequence[Probe]) -> Probe:
    """Return the probe of an average copy: so many of it train as many steps per second as these together."""
    joules = [probe.joules_per_step for probe in probes]
    return replace(
        probes[0],
        step_seconds=harmonic_mean([probe.step_seconds for probe in probes]),
        steps=min(probe.steps for probe in probes),
        warmup_seconds=fmean(probe.warmup_seconds for probe in probes),
        joules_per_step=None if None in joules else fmean(each for each in joules if each is not None),
    )

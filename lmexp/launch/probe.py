"""Probes: train a few steps of each distinct shape of a sweep, so that its plan knows time and money."""

import time
from collections.abc import Sequence
from pathlib import Path

from lmexp.config.checks import world_size
from lmexp.errors import UserError
from lmexp.launch.processes import start, stop_all
from lmexp.launch.slots import Places, busy_warning, threads_of
from lmexp.messages import Say, silent
from lmexp.resolve.planned import PlannedRun
from lmexp.runs.probes import Probe, probe_run, read_probe, shape_of

POLL_SECONDS = 0.05


def shape(planned: PlannedRun) -> str:
    """Return the shape of a planned run on this machine."""
    return shape_of(planned.config, planned.device.name, threads_of(planned.config, planned.device))


def known_probes(runs: Sequence[PlannedRun], outputs: Path) -> list[Probe | None]:
    """Return for each run what an earlier probe measured of its shape."""
    return [read_probe(outputs, shape(planned)) for planned in runs]


def measure(runs: Sequence[PlannedRun], outputs: Path, say: Say = silent) -> None:
    """Train a few steps of each distinct shape of `runs`, one after another, alone on the machine.

    A probe that fails is reported with its reason and its log, and leaves no result. Raises UserError if the runs would
    train on a cluster.
    """
    if runs and runs[0].device.elsewhere:
        raise UserError(f"only this machine can be measured, not one of launcher={runs[0].config.launcher.name}")
    if warning := busy_warning(runs):
        say(warning)
    shapes = {shape(planned): planned for planned in runs}
    for number, (name, planned) in enumerate(shapes.items(), 1):
        say(f"measuring shape {number} of {len(shapes)}: {planned.run.name}")
        run = probe_run(outputs, name, planned.config)
        place = Places(planned.device).take(planned.config)
        assert place is not None, "the machine is free"
        handle = start(run, world_size(planned.config), place, probe=True)
        try:
            while handle.exit_code() is None:
                time.sleep(POLL_SECONDS)
        except BaseException:
            stop_all([handle])
            raise
        probe = read_probe(outputs, name)
        if probe is None:
            reason = run.read_state().reason or f"ended with exit code {handle.exit_code()}"
            say(f"{planned.run.name} could not be measured: {reason}; its log: {run.log}")
        elif not probe.exclusive:
            say(f"warning: {planned.run.name} was measured beside other work, and is planned at that lower speed")

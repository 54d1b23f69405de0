"""Trials: each distinct shape of a sweep is run for a few steps, so that its plan can say time and money."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lmexp.config.checks import world_size
from lmexp.errors import UserError
from lmexp.launch.places import Places, threads_of
from lmexp.launch.processes import start, stop_all
from lmexp.launch.resolve import PlannedRun
from lmexp.runs.trials import Trial, read_trial, shape_of, trial_run

POLL_SECONDS = 0.05

Say = Callable[[str], None]


def shape(planned: PlannedRun) -> str:
    """Return the shape of a planned run, here."""
    return shape_of(planned.config, planned.device.name, threads_of(planned.config, planned.device))


def known_trials(runs: Sequence[PlannedRun], outputs: Path) -> list[Trial | None]:
    """Return for each run what was measured of its shape before."""
    return [read_trial(outputs, shape(planned)) for planned in runs]


def measure(runs: Sequence[PlannedRun], outputs: Path, say: Say = lambda line: None) -> None:
    """Try each distinct shape of `runs`, one after another, alone on the machine.

    One that fails is said, with its reason and its log, and left without a result. Raises UserError when the runs are
    a cluster's.
    """
    if runs and runs[0].device.elsewhere:
        raise UserError(f"this machine can be measured, and not one of launcher={runs[0].config.launcher.name}")
    shapes = {shape(planned): planned for planned in runs}
    for number, (name, planned) in enumerate(shapes.items(), 1):
        say(f"measuring shape {number} of {len(shapes)}: {planned.run.name}")
        run = trial_run(outputs, name, planned.config)
        place = Places(planned.device).take(planned.config)
        assert place is not None, "nothing else has a place yet"
        handle = start(run, world_size(planned.config), place, trial=True)
        try:
            while handle.exit_code() is None:
                time.sleep(POLL_SECONDS)
        except BaseException:
            stop_all([handle])
            raise
        trial = read_trial(outputs, name)
        if trial is None:
            reason = run.read_state().reason or f"ended with exit code {handle.exit_code()}"
            say(f"{planned.run.name} could not be measured: {reason}; its log: {run.log}")
        elif not trial.exclusive:
            say(f"warning: another run was on the device, so {planned.run.name} is planned at the speed of sharing it")

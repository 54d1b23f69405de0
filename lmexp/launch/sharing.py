"""How many runs side by side make the best use of a device: measured once, then used by `devices_per_run: auto`.

A small run leaves much of a device idle: its operations are too short for several cores, or for a whole GPU. Then
several such runs together train more tokens per second than one after another. How many is measured by probes: copies
of one run, side by side, each with its share of the device. One shape stands for the sweep: that on which the runs to
come spend most of their time. If their times were not measured, it is that on which they spend most of their FLOPs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lmexp.config.checks import world_size
from lmexp.config.compose import Values
from lmexp.config.launchers import AUTO, LocalLauncher
from lmexp.config.schema import RunConfig
from lmexp.cost.device import cores
from lmexp.cost.memory import estimate_memory
from lmexp.launch.probe import known_probes, measure_shape, shape
from lmexp.launch.slots import busy_warning
from lmexp.messages import Say, silent
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.runs.state import RESULTS

MAX_SHARING = 8
"""Runs that share a GPU at most; the processes of more take turns, and each takes memory of its own."""
MIN_GAIN = 1.05
"""More runs side by side are chosen only if together they train this many times as fast: each of them ends later."""


@dataclass(frozen=True)
class Sharing:
    """How many runs side by side train the most steps per second on one device."""

    runs: int
    speedup: float
    """Steps per second of all of them together, relative to one run that has the device to itself."""
    measured_on: str
    """Name of the run whose shape was measured."""

    @property
    def sentence(self) -> str:
        """The result in one line."""
        if self.runs == 1:
            return f"one run at a time makes the best use of a device (measured on {self.measured_on})"
        return (
            f"{self.runs} runs side by side on a device train {self.speedup:.2f} times as many steps per second as one "
            f"at a time (measured on {self.measured_on})"
        )


def settle_sharing(sweep: Sweep, may_measure: bool, say: Say = silent) -> tuple[Sweep, Sharing | None]:
    """Return a sweep whose `launcher.devices_per_run=auto` is replaced by the share that was measured to be the best.

    Without `may_measure`, only what was measured before counts. Where the best is not known, each run has its devices
    to itself, and the second result is None.
    """
    if not any(is_auto(planned.config) for planned in sweep.examples):
        return sweep, None
    sharing = best_sharing(sweep, may_measure, say)
    runs = sharing.runs if sharing else 1
    search = sweep.search
    if search is not None:
        resolve = search.resolve

        def shared_trial(values: Values) -> PlannedRun:
            return shared(resolve(values), runs)

        search = replace(search, corners=[shared(corner, runs) for corner in search.corners], resolve=shared_trial)
    return replace(sweep, runs=[shared(planned, runs) for planned in sweep.runs], search=search), sharing


def is_auto(config: RunConfig) -> bool:
    """Whether how many runs share a device is to be measured."""
    return isinstance(config.launcher, LocalLauncher) and config.launcher.devices_per_run == AUTO


def may_share(config: RunConfig) -> bool:
    """Whether `devices_per_run: auto` could be set: nothing else says how many runs there are on a device."""
    launcher = config.launcher
    if not isinstance(launcher, LocalLauncher) or launcher.slots or world_size(config) > 1:
        return False
    return launcher.devices_per_run in (None, AUTO)


def shared(planned: PlannedRun, runs: int) -> PlannedRun:
    """Return a run that shares its device with so many runs, itself included; one that it must wait for does too.

    A run whose config does not leave this to lmexp is returned as it is.
    """
    if not may_share(planned.config):
        return planned
    share = {"devices_per_run": 1 / runs, "exclusive": False} if runs > 1 else {"devices_per_run": None}
    launcher = planned.config.launcher.model_copy(update=share)
    needs = planned.needs and shared(planned.needs, runs)
    return replace(planned, config=planned.config.model_copy(update={"launcher": launcher}), needs=needs)


def best_sharing(sweep: Sweep, may_measure: bool, say: Say = silent) -> Sharing | None:
    """Return how many runs of a sweep side by side make the best use of a device; None if that is not known.

    The number is doubled as long as that pays. What was measured before is not measured again.
    """
    candidates = [planned for planned in sweep.examples if may_share(planned.config)]
    if not candidates:
        return None
    outputs = sweep.folder.parent
    planned = _representative(candidates, outputs)
    speeds: dict[int, float] = {}
    best = 1
    for runs in _numbers_to_try(sweep, candidates):
        trial, is_first = shared(planned, runs), not speeds
        (probe,) = known_probes([trial], outputs)
        if probe is None and not may_measure:
            return None
        if probe is None:
            if is_first and (warning := busy_warning([trial])):
                say(warning)
            say(f"measuring {runs} run{'s' if runs > 1 else ''} at a time: {planned.run.name}")
            probe = measure_shape(trial, outputs, say)
        if probe is None:  # it does not fit beside another, and the reason was said
            break
        speeds[runs] = runs / probe.step_seconds
        if runs > 1 and speeds[runs] < MIN_GAIN * speeds[best]:
            break
        best = runs
    return Sharing(best, speeds[best] / speeds[1], planned.run.name) if speeds else None


def _representative(candidates: Sequence[PlannedRun], outputs: Path) -> PlannedRun:
    """Return a run of the shape on which runs without a result will spend most time, or FLOPs if times are unknown.

    FLOPs are the second choice, because small runs take more time for each FLOP, and gain most from sharing a device.
    """
    left = [planned for planned in candidates if planned.run.read_state().state not in RESULTS] or candidates
    alone = [shared(planned, 1) for planned in left]
    probes = known_probes(alone, outputs)
    is_known = all(probe and planned.horizon.spent_steps for probe, planned in zip(probes, left, strict=True))
    costs: dict[str, float] = {}
    examples: dict[str, PlannedRun] = {}
    for planned, single, probe in zip(left, alone, probes, strict=True):
        name = shape(single)
        steps, flops = planned.horizon.spent_steps or 0, planned.horizon.spent_flops or 0.0
        costs[name] = costs.get(name, 0.0) + (probe.seconds(steps) if probe and is_known else flops)
        examples.setdefault(name, planned)
    return examples[max(costs, key=costs.__getitem__)]


def _numbers_to_try(sweep: Sweep, candidates: Sequence[PlannedRun]) -> Iterator[int]:
    """Yield how many runs may share a device: 1, 2, 4, ... up to what cores, memory and the sweep allow."""
    device, launcher = candidates[0].device, candidates[0].config.launcher
    most = MAX_SHARING if device.kind != "cpu" else max(1, cores() // (launcher.threads_of(1) or 1))
    count = sweep.search.spec.trials if sweep.search else len(sweep.runs)
    most = min(most, -(-count // device.count))
    examples = {shape(shared(planned, 1)): planned.config for planned in candidates}.values()
    peaks = [estimate_memory(each, device.kind, 1 if each.batch.micro == "auto" else None).peak for each in examples]
    most = min(most, max(1, int(device.memory_gb * 1e9 // max(peaks))))
    runs = 1
    while runs < most:
        yield runs
        runs *= 2
    yield most


def has_work(sweep: Sweep) -> bool:
    """Whether any run of a sweep is still to be trained."""
    return sweep.search is not None or any(each.run.read_state().state not in RESULTS for each in sweep.runs)

"""The queue: which run starts next, what became of those that ended.

One coordinator starts each run as soon as a place is free, and learns what became of it from its state
file, not from what it printed. A run that fails is a row with a reason; the others go on.
"""

import os
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from lmexp.config.checks import world_size
from lmexp.config.schema import RunConfig
from lmexp.cost.device import Device, cores
from lmexp.cost.memory import estimate_memory
from lmexp.errors import UserError
from lmexp.launch.local import Handle, Place, start, stop_all
from lmexp.launch.resolve import PlannedRun, Sweep, manifest_of
from lmexp.runs.directory import RESULTS, RunDir, State
from lmexp.runs.manifest import write_manifest

POLL_SECONDS = 0.05
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a sweep, and its runs with it."""
SPARE_BYTES = 2_000_000
"""Disk that a run needs besides its weights: curve, log, config, tokenizer."""


class Listener(Protocol):
    """Told what happens, for those who watch."""

    def started(self, planned: PlannedRun) -> None:
        """A run was started."""

    def ended(self, planned: PlannedRun, state: State) -> None:
        """A run ended, or was found to have ended earlier."""

    def waiting(self, running: Sequence[PlannedRun]) -> None:
        """Nothing happened just now."""


@dataclass
class _Running:
    planned: PlannedRun
    handle: Handle
    place: Place


def run_sweep(sweep: Sweep, listener: Listener) -> list[State]:
    """Run what a sweep has not run yet, and return the state of every run, in the sweep's order.

    A run that another process is working on is left to it. Raises UserError, before anything starts, when
    the outputs cannot be written; on KeyboardInterrupt the running ones are stopped and marked cancelled.
    """
    pending = [planned for planned in sweep.runs if _is_pending(planned)]
    _check_disk(sweep, pending)
    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
        if sweep.has_manifest:
            write_manifest(sweep.folder, manifest_of(sweep))
        for planned in pending:
            _enqueue(planned)
    except OSError as error:
        raise UserError(f"cannot write in {sweep.folder}: {error.strerror or error}") from None
    for planned in sweep.runs:
        if planned not in pending:
            listener.ended(planned, planned.run.read_state())

    places = Places(sweep.runs[0].config, sweep.runs[0].device)
    running: list[_Running] = []
    handlers = {which: signal.signal(which, _interrupt) for which in STOPPING}
    try:
        while pending or running:
            while pending and (place := places.take(world_size(pending[0].config))):
                planned = pending.pop(0)
                if not _is_pending(planned):  # another coordinator has come first
                    places.give_back(place)
                    listener.ended(planned, planned.run.read_state())
                    continue
                running.append(_Running(planned, start(planned.run, world_size(planned.config), place), place))
                listener.started(planned)
            for one in [one for one in running if one.handle.exit_code() is not None]:
                running.remove(one)
                places.give_back(one.place)
                listener.ended(one.planned, _settle(one))
            listener.waiting([one.planned for one in running])
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        for which in STOPPING:  # an impatient second one must not leave runs behind
            signal.signal(which, signal.SIG_IGN)
        stop_all([one.handle for one in running])
        for planned in [*(one.planned for one in running), *pending]:
            if _is_pending(planned):  # neither done in the last moment nor another coordinator's
                planned.run.update_state(state="cancelled", reason="the sweep was stopped", pid=None)
        raise
    finally:
        for which, handler in handlers.items():
            signal.signal(which, handler)
    return [planned.run.read_state() for planned in sweep.runs]


def _interrupt(*_: object) -> None:
    """Being asked to end is like being stopped from the keyboard: no run is left behind."""
    raise KeyboardInterrupt


def _is_pending(planned: PlannedRun) -> bool:
    """Whether a run is still to be done: new, or ended without a result."""
    state = planned.run.read_state()
    return state.state not in RESULTS and not planned.run.is_alive(state)


def _enqueue(planned: PlannedRun) -> None:
    """Make the run's directory, or set an earlier attempt back to queued; its checkpoint stays."""
    if not (planned.run.path / "config.yaml").exists():
        with suppress(FileExistsError):  # another coordinator made it just now
            RunDir.create(planned.run.path, planned.config)
        return
    # The run is the same, but what cannot change its result may not be: logger, price, how often it is saved.
    planned.run.write_config(planned.config)
    if planned.run.read_state().state != "queued":
        planned.run.update_state(state="queued", reason=None, pid=None)


def _settle(one: _Running) -> State:
    """Return the state of a run whose process has ended; one that left no word is marked failed."""
    state = one.planned.run.read_state()
    if state.state not in ("queued", "running") or one.planned.run.is_alive(state):
        return state
    code = one.handle.exit_code() or 0
    how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code} and no result"
    return one.planned.run.update_state(
        state="failed", reason=f"the process was {how}" if code < 0 else f"the process {how}", pid=None
    )


def _check_disk(sweep: Sweep, pending: list[PlannedRun]) -> None:
    """Raise UserError when the disk plainly cannot hold what the pending runs will leave."""
    if not pending:
        return
    estimates = [estimate_memory(planned.config) for planned in pending]
    kept = sum(estimate.weights for estimate in estimates) + len(pending) * SPARE_BYTES
    while_training = 2 * max(estimate.weights + estimate.optimizer for estimate in estimates)
    needed = kept + while_training
    free = shutil.disk_usage(sweep.folder.parent).free
    if free < needed:
        raise UserError(
            f"the disk of {sweep.folder.parent} has {free / 1e6:.0f} MB free; "
            f"{len(pending)} runs need about {needed / 1e6:.0f} MB"
        )


def slots_of(config: RunConfig, device: Device) -> int:
    """Return how many runs go at a time."""
    at_once = device.count // world_size(config) if device.kind == "cuda" else 1
    return config.launcher.slots or max(1, at_once)


def threads_of(config: RunConfig, device: Device) -> int:
    """Return the CPU threads that a run has."""
    return config.launcher.threads or max(1, cores() // slots_of(config, device))


class Places:
    """The devices and threads of this machine, given out to runs."""

    def __init__(self, config: RunConfig, device: Device) -> None:
        self._cuda = device.kind == "cuda"
        self._threads = threads_of(config, device)
        self._free_slots = slots_of(config, device)
        self._free_devices = _visible_devices(device) if self._cuda else []

    def take(self, devices: int) -> Place | None:
        """Return a place for a run on so many devices, or None while there is none."""
        if self._free_slots == 0 or (self._cuda and len(self._free_devices) < devices):
            return None
        self._free_slots -= 1
        mine = tuple(self._free_devices.pop(0) for _ in range(devices)) if self._cuda else ()
        return Place(devices=mine, threads=self._threads)

    def give_back(self, place: Place) -> None:
        """A run has left its place."""
        self._free_slots += 1
        self._free_devices += place.devices


def _visible_devices(device: Device) -> list[str]:
    """Return the names of the GPUs that this process may use: indices, or whatever it was given."""
    outer = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in outer.split(",")] if outer else [str(i) for i in range(device.count)]

"""A simulation of the queue: which devices each run of a sweep would get, and when, if the time of each is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from lmexp.config.checks import devices_of
from lmexp.config.launchers import LocalLauncher
from lmexp.config.schema import RunConfig
from lmexp.cost.device import Device
from lmexp.launch.slots import Place, Places
from lmexp.resolve.planned import PlannedRun


@dataclass(frozen=True)
class Placed:
    """The devices on which a run would train, and when."""

    run: str
    """The identity of the run."""
    devices: tuple[str, ...]
    """Indices for CUDA_VISIBLE_DEVICES; on a cluster the scheduler chooses them, and these are only examples."""
    starts: float
    """Seconds since the sweep began."""
    ends: float


def place_runs(runs: Sequence[PlannedRun], seconds: Sequence[float], device: Device) -> list[Placed]:
    """Return the devices and times of each run, in the order of `runs`.

    As in the queue, runs start in their order as soon as there is room, and a run that needs another run's weights
    starts after that one. `seconds` has the duration of each run. No run may take more devices than `device.count`.
    """
    places, now = Places(device), 0.0
    waiting, names = list(range(len(runs))), {planned.identity for planned in runs}
    placed: dict[int, Placed] = {}
    under_way: list[tuple[float, int, Place]] = []
    done: set[str] = set()
    while waiting or under_way:
        for i in list(waiting):
            needs = runs[i].needs
            if needs and needs.identity in names and needs.identity not in done:
                continue
            place = places.take(_local(runs[i].config))
            if place is None:  # later runs wait for this one
                break
            waiting.remove(i)
            placed[i] = Placed(runs[i].identity, place.devices, now, now + seconds[i])
            heappush(under_way, (now + seconds[i], i, place))
        now, i, place = heappop(under_way)
        places.give_back(place)
        done.add(runs[i].identity)
    return [placed[i] for i in range(len(runs))]


def max_at_once(placed: Sequence[Placed]) -> tuple[int, int]:
    """Return the largest number of runs that train at the same time, and of devices in use at the same time."""
    runs = devices = 0
    for start in {one.starts for one in placed}:
        running = [one for one in placed if one.starts <= start < one.ends]
        runs = max(runs, len(running))
        devices = max(devices, len({device for one in running for device in one.devices}))
    return runs, devices


def _local(config: RunConfig) -> RunConfig:
    """Return a config for the local launcher: a scheduler with enough free devices places runs in the same way."""
    if isinstance(config.launcher, LocalLauncher):
        return config
    share = devices_of(config)
    launcher = LocalLauncher(devices_per_run=share, exclusive=share >= 1)
    return config.model_copy(update={"launcher": launcher})

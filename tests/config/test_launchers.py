"""Launcher sections: each says how many devices, threads and runs at a time it gives, and names its engine."""

from types import SimpleNamespace
from typing import Any, get_args

import pytest

from lmexp.config.checks import device_share
from lmexp.config.launchers import LauncherSection, LocalLauncher, RayLauncher, ShippedLauncher, SlurmLauncher
from lmexp.launch.engine import Engine, load_engine

SECTIONS = get_args(ShippedLauncher)


class Own(LauncherSection):
    """A launcher that only has a name."""

    name: str = "own"


def section(kind: type[LauncherSection], **values: Any) -> LauncherSection:
    needed = {RayLauncher: {"address": "head:1"}}.get(kind, {})
    return kind(**{"name": kind.model_fields["name"].annotation.__args__[0], **needed, **values})  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", SECTIONS)
def test_every_launcher_names_an_engine(kind: type[LauncherSection]):
    engine = load_engine(section(kind))
    assert issubclass(engine, Engine) and not engine.__abstractmethods__


@pytest.mark.parametrize(
    "launcher, trials, slots, expected",
    [
        (section(LocalLauncher), 100, 3, (3, 3)),
        (section(SlurmLauncher), 100, 0, (20, 1000)),
        (section(SlurmLauncher, running_jobs=7), 100, 0, (7, 7)),
        (section(RayLauncher, max_jobs=12), 100, 0, (20, 12)),
        (section(RayLauncher), 3, 0, (1, 1000)),
        (Own(), 100, 0, (20, 1000)),
    ],
)
def test_trials_at_a_time_are_the_slots_here_and_a_fifth_on_a_cluster(
    launcher: LauncherSection, trials: int, slots: int, expected: tuple[int, int]
):
    assert (launcher.parallel_default(trials, slots), launcher.max_parallel(slots)) == expected


@pytest.mark.parametrize(
    "launcher, processes, devices, threads",
    [
        (section(LocalLauncher), 2, 2, None),
        (section(LocalLauncher, devices_per_run=0.5, threads=3), 1, 0.5, 3),
        (section(LocalLauncher, devices_per_run=4), 2, 4, None),
        (section(SlurmLauncher, cpus=3), 2, 2, 6),
        (section(RayLauncher, gpus=0.25), 1, 0.25, 1),
        (Own(), 2, 2, 2),
    ],
)
def test_devices_and_threads_of_a_run(launcher: LauncherSection, processes: int, devices: float, threads: int | None):
    assert (launcher.devices(processes), launcher.threads_of(processes)) == (devices, threads)


@pytest.mark.parametrize(
    "launcher, on_cpu, on_gpu",
    [
        (section(LocalLauncher), 1, 1),
        (section(LocalLauncher, slots=4), 0.25, 1),  # each run has GPUs of its own, but the CPU is one device
        (section(LocalLauncher, devices_per_run=0.5, exclusive=False), 0.5, 0.5),
        (section(LocalLauncher, devices_per_run=2), 1, 1),
        (section(RayLauncher, gpus=0.25, exclusive=False), 0.25, 0.25),
        (section(SlurmLauncher), 1, 1),
    ],
)
def test_the_share_of_a_device_that_a_run_has(launcher: LauncherSection, on_cpu: float, on_gpu: float):
    run: Any = SimpleNamespace(launcher=launcher, trainer=SimpleNamespace(devices=1, num_nodes=1))
    assert (device_share(run, "cpu"), device_share(run, "cuda")) == (on_cpu, on_gpu)

"""Places: each run has its own devices, or its own share of one; nobody gets what another has."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.config import paths
from lmexp.config.checks import check_config, devices_of
from lmexp.config.compose import Composer
from lmexp.config.launchers import LocalLauncher
from lmexp.config.schema import RunConfig
from lmexp.cost.device import Device, cores
from lmexp.cost.memory import estimate_memory
from lmexp.errors import UserError
from lmexp.launch import local
from lmexp.launch.slots import NEARLY, Place, Places, busy_warning, slots_of, threads_of, visible_devices
from lmexp.resolve import run as resolving
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.resolve.sweep import resolve_sweep

Configure = Callable[..., RunConfig]
RAY = ["launcher=ray", "launcher.address=head:6379"]
SLURM = ["launcher=slurm"]


def gpus(count: int) -> Device:
    return Device("cuda", "a GPU", count, 80.0, (9, 0), native_bf16=True)


CPU = Device("cpu", "a CPU", 1, 8.0, None, native_bf16=True)


@pytest.fixture
def anywhere(small: list[str]) -> Configure:
    """Compose a small config that names its own launcher."""
    words = [word for word in small if not word.startswith("launcher.")]
    return lambda *more: Composer(paths.search_roots(), words=[*words, *more]).config({})


@pytest.fixture(autouse=True)
def nothing_set_outside(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_each_run_sees_only_its_own_devices(config: Configure):
    places, two = Places(gpus(5)), config("trainer.devices=2")
    first, second = places.take(two), places.take(two)
    assert first and second and places.take(two) is None
    assert first.environment() == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert second.environment() == {"CUDA_VISIBLE_DEVICES": "2,3"}
    places.give_back(first)
    assert places.take(config()) and places.take(two)


def test_a_slot_may_have_more_devices_than_the_run_has_processes(config: Configure):
    place = Places(gpus(4)).take(config("launcher.devices_per_run=2"))
    assert place and place.devices == ("0", "1")


def test_runs_that_share_a_device_fill_it_before_they_take_another(config: Configure):
    places, half = Places(gpus(2)), config("launcher.devices_per_run=0.5", "launcher.exclusive=false")
    taken = [places.take(half) for _ in range(5)]
    assert [place and place.devices for place in taken] == [("0",), ("0",), ("1",), ("1",), None]
    whole = config()
    assert places.take(whole) is None
    assert taken[0] and taken[1]
    places.give_back(taken[0])
    assert places.take(whole) is None, "half of it is still another's"
    places.give_back(taken[1])
    place = places.take(whole)
    assert place and place.devices == ("0",)


@pytest.mark.parametrize(
    "outer, names",
    [
        ("2,3", ["2", "3"]),
        ("GPU-8932f937-d72c, GPU-1", ["GPU-8932f937-d72c", "GPU-1"]),
        ("MIG-GPU-8932f937/1/0", ["MIG-GPU-8932f937/1/0"]),
        ("1,-1,0", ["1"]),  # as in CUDA
        ("", []),
        ("-1", []),
    ],
)
def test_an_outer_choice_of_devices_is_respected(monkeypatch: pytest.MonkeyPatch, outer: str, names: list[str]):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", outer)
    assert visible_devices(gpus(8)) == names


def test_the_cores_are_split_evenly_between_the_runs_of_a_cpu(config: Configure):
    alone = config("launcher.threads=null")
    half = config("launcher.threads=null", "launcher.devices_per_run=0.5", "launcher.exclusive=false")
    assert (slots_of(alone, CPU), threads_of(alone, CPU)) == (1, cores())
    assert (slots_of(half, CPU), threads_of(half, CPU)) == (2, max(1, cores() // 2))


def test_the_warning_of_a_busy_machine_is_about_the_runs_that_take_the_most_cores(
    config: Configure, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("lmexp.cost.contention.cores_of_others", lambda: 3.0)
    monkeypatch.setattr("lmexp.launch.slots.cores", lambda: 8)
    small, large = config("launcher.threads=2"), config("launcher.threads=4", "launcher.slots=2")
    planned = [cast(PlannedRun, SimpleNamespace(config=one, device=CPU)) for one in (small, large, small)]
    warning = busy_warning(planned)
    assert warning is not None and "3.0 of 8 cores" in warning and warning.endswith("launcher.threads=2 is faster")
    assert busy_warning(planned[:1]) is None, "two threads find a core each"
    on_gpu = cast(PlannedRun, SimpleNamespace(config=large, device=gpus(1)))
    on_cluster = cast(PlannedRun, SimpleNamespace(config=large, device=replace(CPU, elsewhere=True)))
    assert busy_warning([on_gpu, on_cluster]) is None


@pytest.mark.parametrize(("set_to", "threads"), [("1", 1), ("3", 3), ("99", 8), ("2,4", 2), ("many", 8), ("0", 8)])
def test_no_process_gets_more_threads_than_omp_num_threads_says(
    config: Configure, monkeypatch: pytest.MonkeyPatch, set_to: str, threads: int
):
    monkeypatch.setattr("lmexp.launch.slots.cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", set_to)
    assert threads_of(config("launcher.threads=null"), CPU) == threads
    assert threads_of(config("launcher.threads=null", "trainer.devices=2"), CPU) == min(8, 2 * threads)
    assert threads_of(config("launcher.threads=5"), CPU) == 5, "a number in the config counts more"
    assert slots_of(config("trainer.devices=2"), CPU) == 1, "several processes of a run share the CPU"


@pytest.mark.parametrize(
    "words, said",
    [
        (["launcher.devices_per_run=0.5"], "launcher.exclusive=false"),
        (["launcher.devices_per_run=1.5"], "whole number"),
        (["launcher.devices_per_run=0.5", "launcher.exclusive=false", "trainer.devices=2"], "2 processes"),
        (["trainer.num_nodes=2"], "one node"),
        (["launcher.devices_per_run=auto", "launcher.slots=2"], "set one of them"),
        (["launcher.devices_per_run=auto", "trainer.devices=2"], "2 processes"),
    ],
)
def test_places_that_make_no_sense_are_refused(config: Configure, words: list[str], said: str):
    with pytest.raises(UserError, match=said):
        check_config(config(*words))


def test_on_a_cluster_a_run_has_the_threads_of_its_cores_and_may_share_a_gpu_of_ray(anywhere: Configure):
    half = [*RAY, "launcher.gpus=0.5", "launcher.cpus=3"]
    shared = anywhere(*half, "launcher.exclusive=false")
    check_config(shared)
    with pytest.raises(UserError, match=r"launcher\.exclusive=false"):
        check_config(anywhere(*half))
    assert (devices_of(shared), threads_of(shared, CPU)) == (0.5, 3)
    assert threads_of(anywhere("launcher=slurm", "launcher.cpus=3", "trainer.devices=2"), CPU) == 6


@pytest.mark.parametrize(
    "words",
    [[*choice, word] for choice in (RAY, SLURM) for word in ("launcher.devices_per_run=1", "launcher.threads=2")]
    + [[*SLURM, "launcher.exclusive=false"]],
    ids=" ".join,
)
def test_what_a_cluster_does_not_heed_is_no_key_of_its_launcher(anywhere: Configure, words: list[str]):
    for word in (words[-1], f"+{words[-1]}"):
        with pytest.raises(UserError, match=words[-1].partition("=")[0].removeprefix("launcher.")):
            anywhere(*words[:-1], word)


@pytest.mark.parametrize("choice", [RAY, SLURM], ids=["ray", "slurm"])
def test_how_many_runs_share_a_device_is_not_measured_for_a_cluster(anywhere: Configure, choice: list[str]):
    with pytest.raises(UserError, match="the scheduler says where runs train"):
        anywhere(*choice, "launcher.devices_per_run=auto")


@pytest.fixture
def resolved_on(small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """Resolve a run as on a machine with such a device."""

    def resolved(device: Device, *words: str) -> RunConfig:
        monkeypatch.setattr(resolving, "detect", lambda accelerator: device)
        return resolve_sweep(None, [*small, *words], tmp_path / "outputs").runs[0].config

    return resolved


def test_more_devices_than_there_are_is_said_and_not_waited_for(resolved_on: Callable[..., RunConfig]):
    resolved_on(gpus(2), "launcher.devices_per_run=2")
    with pytest.raises(UserError, match=r"launcher\.devices_per_run=3: this machine has 2"):
        resolved_on(gpus(2), "launcher.devices_per_run=3")


def test_a_run_with_a_part_of_a_device_must_fit_into_that_part(resolved_on: Callable[..., RunConfig]):
    peak = estimate_memory(resolved_on(gpus(1)), "cuda").peak
    device = replace(gpus(1), memory_gb=1.2 * peak / 1e9)
    half = ("launcher.exclusive=false", "launcher.devices_per_run=0.5")
    resolved_on(device)
    resolved_on(replace(device, memory_gb=2 * device.memory_gb), *half)
    with pytest.raises(UserError, match=r"and the run gets 0\.5 of it"):
        resolved_on(device, *half)


class Ended:
    """A process that has ended."""

    pid = None

    def __init__(self, code: int) -> None:
        self._code = code

    def exit_code(self) -> int:
        return self._code


@pytest.mark.parametrize(
    ("code", "processes", "seconds", "is_oom"),
    [
        (-signal.SIGKILL, 1, 1, True),
        (-signal.SIGKILL, 1, 3600, False),  # by somebody; what the system had ended before was another's
        (-signal.SIGTERM, 1, 1, False),
        (1, 1, 1, False),
        (1, 2, 1, True),  # torchrun's, when one of its processes was killed
    ],
)
def test_out_of_memory_is_a_kill_just_after_the_system_ended_a_process_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, processes: int, seconds: float, is_oom: bool
):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/vmstat").write_text("pgpgin 7\noom_kill 3\n")
    now = [1000.0]
    monkeypatch.setattr(local.time, "monotonic", lambda: now[0])
    sweep = cast(Sweep, SimpleNamespace(examples=[SimpleNamespace(device=CPU)]))
    engine, memory = local.LocalEngine(sweep), local.OomWatcher(tmp_path)
    engine._memory = memory
    handle = local.LocalHandle(Ended(code), processes, Place((), 1), memory)
    assert engine.why(handle) is None, "none was ended since the start"
    (tmp_path / "proc/vmstat").write_text("pgpgin 7\noom_kill 4\n")
    handle.exit_code()
    now[0] += seconds
    handle.exit_code()
    assert (engine.why(handle) is not None) == is_oom


@pytest.mark.parametrize(
    ("groups", "counter"),
    [
        ("0::/a/b\n", "sys/fs/cgroup/a/b/memory.events"),
        ("0::/a/b\n", "sys/fs/cgroup/a/memory.events"),  # the group itself counts no memory
        ("5:cpu:/\n4:memory:/a\n0::/\n", "sys/fs/cgroup/memory/a/memory.oom_control"),
        ("4:memory:/docker/1f\n", "sys/fs/cgroup/memory/memory.oom_control"),  # as the host names it
        ("0::/\n", "proc/vmstat"),
    ],
)
def test_kills_are_counted_in_the_control_group_where_there_is_one(tmp_path: Path, groups: str, counter: str):
    def write(file: str, count: int) -> None:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(f"oom 9\noom_kill {count}\n")

    write("proc/vmstat", 3)
    write(counter, 3)
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/cgroup").write_text(groups)
    memory = local.OomWatcher(tmp_path)
    if counter != "proc/vmstat":
        write("proc/vmstat", 4)  # a neighbour's
        memory.look()
        assert not memory.was_short
    write(counter, 4)
    memory.look()
    assert memory.was_short


@given(st.lists(st.sampled_from(["1", "2", "3", "0.5", "0.25", "0.3", "back"]), max_size=40))
def test_no_device_is_ever_given_out_beyond_its_whole(asked: list[str]):
    places, taken = Places(gpus(3)), []
    for word in asked:
        if word == "back":
            if taken:
                places.give_back(taken.pop(0))
            continue
        share = float(word)
        launcher = LocalLauncher(devices_per_run=share, threads=1)
        run: Any = SimpleNamespace(launcher=launcher, trainer=SimpleNamespace(devices=1, num_nodes=1))
        if place := places.take(run):
            taken.append(place)
            assert len(set(place.devices)) == max(1, int(share))
        for name in "012":
            used = sum(place.share for place in taken if name in place.devices)
            assert used <= 1 + NEARLY
            whole = [place for place in taken if name in place.devices and place.share == 1]
            assert not whole or used == 1, "who has a whole device shares it with nobody"

"""NVML, played back from a recording: which device it is, what it used, which processes are on it."""

import os

import pytest

from lmexp.cost.device import Device
from lmexp.cost.energy import open_meter
from lmexp.cost.exclusive import Neighbours, own_processes
from lmexp.cost.nvml import Gpu
from tests.cost.recording import Frame, Play

GPU = Device("cuda", "a GPU", 2, 80.0, (9, 0), native_bf16=True)
ME, COORDINATOR, STRANGER = os.getpid(), os.getppid(), 2**22 + 1
"""Process ids; the last is beyond those that Linux gives out."""


def test_the_energy_is_that_of_the_gpu_with_torchs_uuid_whatever_its_index(play: Play):
    recording = play({"GPU-a": [Frame(0), Frame(9_000)], "GPU-b": [Frame(5_000), Frame(7_500)]}, ["GPU-b", "GPU-a"])
    meter = open_meter(GPU, 0, watts=700, shares_machine=False)
    recording.now = 1
    assert (meter.joules(), meter.source) == (2.5, "nvml")
    assert set(recording.calls) == {"energy of GPU-b"}


@pytest.mark.parametrize("watts", [60.0, None])
def test_a_slice_of_a_gpu_has_no_counter_and_does_not_get_that_of_the_board(play: Play, watts: float | None):
    play({"MIG-c": [Frame(None)], "GPU-a": [Frame(1000, is_sliced=True)]}, ["MIG-c", "GPU-a"])
    for index in (0, 1):  # a slice by its own name, and a GPU of which CUDA shows a slice
        meter = open_meter(GPU, index, watts, shares_machine=False)
        assert meter.source == ("estimated" if watts else None)
        assert Gpu(index).is_slice


def test_a_slice_that_the_environment_names_is_that_slice(play: Play, monkeypatch: pytest.MonkeyPatch):
    play({"MIG-c": [Frame(pids=[STRANGER])], "GPU-a": [Frame(1000, pids=[])]}, ["GPU-a"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-c")
    assert Gpu(0).uuid == "MIG-c" and Gpu(0).processes() == {STRANGER}


def test_after_a_reset_of_the_counter_the_energy_is_unknown(play: Play):
    recording = play({"GPU-a": [Frame(5_000), Frame(6_000), Frame(10)]}, ["GPU-a"])
    meter = open_meter(GPU, 0, watts=700, shares_machine=False)
    recording.now = 1
    assert meter.joules() == 1.0
    recording.now = 2
    assert (meter.joules(), meter.source) == (None, None)


@pytest.mark.parametrize(
    ("pids", "others"),
    [
        ([], False),
        ([ME], False),
        ([ME, COORDINATOR], False),  # which has asked the GPU what it is
        ([ME, STRANGER], True),
        ([STRANGER], False),  # a container: it is this process, under its number outside
        ([STRANGER, STRANGER + 1], True),
    ],
)
def test_another_process_on_the_gpu_is_seen_and_the_runs_own_are_not(play: Play, pids: list[int], others: bool):
    play({"GPU-a": [Frame(pids=[])], "GPU-b": [Frame(pids=pids)]}, ["GPU-a", "GPU-b"])
    assert Neighbours([Gpu(0), Gpu(1)])() == others


def test_a_slice_does_not_count_the_processes_on_the_rest_of_its_gpu(play: Play):
    play({"GPU-a": [Frame(pids=[ME, STRANGER], is_sliced=True)]}, ["GPU-a"])
    assert not Neighbours([Gpu(0)])()


def test_the_ranks_of_a_run_are_its_own_processes(monkeypatch: pytest.MonkeyPatch):
    class Process:
        """This process and another one, which torchrun has started."""

        def __init__(self, pid: int = 1) -> None:
            self.pid = pid

        def parent(self) -> "Process":
            return Process(0)

        def parents(self) -> list["Process"]:
            return [Process(0)]

        def children(self, recursive: bool) -> list["Process"]:
            return [Process(1), Process(2)] if self.pid == 0 else []

    monkeypatch.setattr("lmexp.cost.exclusive.psutil.Process", Process)
    assert own_processes() == {0, 1}
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert own_processes() == {0, 1, 2}

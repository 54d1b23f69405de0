"""A run that must wait for the cores of a CPU learns that from the kernel, and another program's load is seen."""

import multiprocessing
import os
import time

import pytest

from lmexp.cost import contention
from lmexp.cost.contention import CpuWait, busy_warning, cores_of_others

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")


def _work(core: int, seconds: float) -> None:
    os.sched_setaffinity(0, {core})
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def _waited(core: int, results: "multiprocessing.Queue[float | None]") -> None:
    os.sched_setaffinity(0, {core})
    wait = CpuWait()
    _work(core, 1.0)
    results.put(wait.fraction())


def test_programs_that_share_one_core_wait_for_it():
    context, core = multiprocessing.get_context("fork"), min(os.sched_getaffinity(0))
    results = context.Queue()
    others = [context.Process(target=_work, args=(core, 20.0)) for _ in range(2)]
    for process in others:
        process.start()
    measured = context.Process(target=_waited, args=(core, results))
    measured.start()
    fraction = results.get(timeout=60)
    for process in others:
        process.kill()
    assert fraction is not None and fraction > 0.4, "three programs share a core: each waits two thirds of the time"


def test_a_program_that_sleeps_waits_for_nothing():
    wait = CpuWait()
    time.sleep(0.3)
    assert (wait.fraction() or 0) < 0.1


def test_other_programs_count_and_ones_own_do_not():
    core, mine = min(os.sched_getaffinity(0)), os.getpid()
    if os.fork() == 0:  # its child outlives it, and belongs to nobody here
        if os.fork() == 0:
            _work(core, 3.0)
        os._exit(0)
    os.wait()
    time.sleep(0.1)
    assert os.getpid() == mine and cores_of_others(1.0) > 0.3


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What one sample after another sees other programs use."""
    samples: list[float] = []
    monkeypatch.setattr(contention, "cores_of_others", lambda: samples.pop(0))
    return samples


@pytest.mark.parametrize(
    ("samples", "threads", "at_once", "cores", "said"),
    [
        (
            [0.97, 1.04],
            2,
            1,
            2,
            "other programs use 1.0 of 2 cores, so the speeds will be too low; beside them, t=1 is",
        ),
        (
            [6.1, 6.0],
            4,
            4,
            16,
            "other programs use 6.0 of 16 cores, so the speeds will be too low; beside them, t=2 is",
        ),
        ([3.0, 3.0], 1, 1, 3, "other programs use 3.0 of 3 cores, so the speeds will be too low"),
        ([0.0], 4, 1, 2, "a run of 4 threads has only 2 cores; t=2 is faster"),
        ([0.0], 8, 2, 8, "2 runs of 8 threads have only 8 cores; t=4 is faster"),
    ],
)
def test_a_busy_machine_is_said_with_the_threads_that_would_be_faster(
    others: list[float], samples: list[float], threads: int, at_once: int, cores: int, said: str
):
    others += samples
    warning = busy_warning(threads, at_once, cores, "t")
    assert warning is not None and warning.startswith(f"warning: {said}")
    assert ("faster" in warning) == ("=" in said)


@pytest.mark.parametrize(
    ("samples", "threads", "at_once", "cores"),
    [
        ([0.1], 2, 1, 2),  # hardly any load
        ([1.9, 0.1], 2, 1, 2),  # the end of another program
        ([2.0], 2, 1, 4),  # cores enough for all
        ([0.0], 1, 4, 2),  # slots that the user has chosen, with one thread each: nothing is faster
    ],
)
def test_a_machine_that_is_busy_for_a_moment_or_has_cores_enough_is_no_reason_to_warn(
    others: list[float], samples: list[float], threads: int, at_once: int, cores: int
):
    others += samples
    assert busy_warning(threads, at_once, cores, "t") is None
    assert others == [], "it looked as often as it had to"

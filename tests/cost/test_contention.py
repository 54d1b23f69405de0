"""A run that must wait for the cores of a CPU learns that from the kernel, and another program's load is seen."""

import multiprocessing
import os
import time

import pytest

from lmexp.cost.contention import CpuWait, cores_of_others

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

"""Runs of several processes inside a sweep: started by torchrun from their directories, and dying as one."""

import time
from collections.abc import Callable
from contextlib import suppress

import psutil
import pytest

from lmexp.launch.queue import run_sweep
from lmexp.resolve.planned import PlannedRun, Sweep
from tests.launch.test_queue import LONG, Notes, resolve, when_running

__all__ = ["resolve"]  # the fixture
Resolve = Callable[..., Sweep]
TWO = ["trainer.devices=2", "trainer.accelerator=cpu"]


def ranks_of(planned: PlannedRun) -> list[psutil.Process]:
    """The processes that torchrun started for a run, the leader first."""
    torchrun = psutil.Process(planned.run.read_state().pid).parent()
    assert torchrun is not None
    ranks = [process for process in torchrun.children() if "lmexp.worker" in process.cmdline()]
    return sorted(ranks, key=lambda process: process.environ()["RANK"])


@pytest.mark.slow
def test_sharded_weights_are_an_axis_that_changes_no_loss(resolve: Resolve):
    sweep = resolve(*TWO, "trainer.strategy=ddp,fsdp")
    assert [state.state for state in run_sweep(sweep, Notes())] == ["done", "done"]
    whole, sharded = (planned.run.read_record()[0] for planned in sweep.runs)
    assert (whole["world_size"], sharded["world_size"]) == (2, 2)
    assert sharded["loss"] == pytest.approx(whole["loss"], rel=1e-6)


@pytest.mark.slow(70)
def test_two_runs_of_two_processes_at_once_do_not_meet(resolve: Resolve):
    """Each torchrun finds a port of its own."""
    sweep, notes = resolve("seed=1,2,3,4", *TWO, "launcher.slots=2"), Notes()
    assert [state.state for state in run_sweep(sweep, notes)] == ["done"] * 4
    assert notes.at_once == 2
    assert len({planned.run.read_record()[0]["loss"] for planned in sweep.runs}) == 4


@pytest.mark.slow(70)
@pytest.mark.parametrize("which", [0, 1])
def test_when_one_process_is_killed_all_are_gone_and_the_run_goes_on(resolve: Resolve, which: int):
    sweep = resolve("budget.tokens=128_000", "checkpoint.every=0.02", *TWO)
    before: list[psutil.Process] = []

    def kill_once(planned: PlannedRun) -> None:
        if before:
            assert not [process for process in before if process.is_running() and process.status() != "zombie"]
            return
        while not planned.run.last_saved():
            time.sleep(0.05)
        before.extend(ranks_of(planned))
        before[which].kill()

    notes = Notes(kill_once)
    (state,) = run_sweep(sweep, notes)
    assert (state.state, state.attempts) == ("done", 2), state.reason
    assert "resuming after step" in sweep.runs[0].run.log.read_text()


@pytest.mark.slow
def test_a_run_of_several_processes_that_takes_too_long_leaves_none_behind(resolve: Resolve):
    from lmexp.launch.policy import Policy

    sweep, seen = resolve(LONG, *TWO), []

    def look(planned: PlannedRun) -> None:
        when_running(planned, lambda state: seen.extend(ranks_of(planned)))

    (state,) = run_sweep(sweep, Notes(look), Policy(timeout=1))
    assert state.state == "timeout" and len(seen) == 2
    for process in seen:
        with suppress(psutil.NoSuchProcess):
            assert process.status() == "zombie"

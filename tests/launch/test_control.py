"""What a sweep does from outside: whether it goes on by itself, and which scheduler is asked to cancel its jobs."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lmexp.config.launchers import LocalLauncher, OutsideLauncher, RayLauncher, SlurmLauncher
from lmexp.errors import UserError
from lmexp.launch import control
from lmexp.launch.engine import Engine
from lmexp.launch.pending import enqueue
from lmexp.messages import MAX_LINES
from lmexp.runs.coordinators import coordinating
from lmexp.runs.directory import RunDir
from lmexp.runs.manifest import Cell, Manifest, write_manifest
from lmexp.runs.state import State
from tests.launch.test_queue import Resolve, resolve

__all__ = ["resolve"]  # the fixture

LAUNCHERS = {
    "slurm": SlurmLauncher(name="slurm"),
    "ray": RayLauncher(name="ray", address="head:6379"),
    "local": LocalLauncher(),
    "theirs": OutsideLauncher(target="stranger.Launcher"),
}


class Scheduler(Engine[Any]):
    """A scheduler that notes what it is asked to cancel."""

    cancelled: ClassVar[list[str]] = []

    def start(self, runs: Any) -> Any: ...
    def stop(self, handles: Any) -> None: ...

    @classmethod
    def cancel(cls, jobs: Any) -> None:
        cls.cancelled += jobs


@pytest.fixture
def waiting(resolve: Resolve) -> Callable[..., RunDir]:
    """Return a run that is queued under a launcher."""

    def make(launcher: str, seed: int = 0, **state: Any) -> RunDir:
        (planned,) = resolve(f"seed={seed}", name=launcher).runs
        enqueue(planned)
        planned.run.write_config(planned.config.model_copy(update={"launcher": LAUNCHERS[launcher]}))
        planned.run.update_state(**state)
        return planned.run

    return make


@pytest.mark.parametrize(
    "launcher, state, goes_on",
    [
        ("slurm", {"state": "queued", "job": "slurm:7_0"}, True),
        ("slurm", {"state": "preempted", "job": "slurm:7_0"}, True),
        ("slurm", {"state": "failed", "job": "slurm:7_0"}, False),
        ("slurm", {"state": "queued"}, False),
        ("ray", {"state": "queued", "job": "ray:1"}, False),  # Ray's tasks end with their coordinator
        ("local", {"state": "queued"}, False),
    ],
)
def test_only_what_a_scheduler_keeps_goes_on_without_a_coordinator(
    waiting: Callable[..., RunDir], launcher: str, state: dict[str, Any], goes_on: bool
):
    folder = waiting(launcher, **state).path.parent
    assert control.goes_on(folder, print) is goes_on
    with coordinating(folder):
        assert control.goes_on(folder, print)


@pytest.mark.parametrize("damage", [False, True])
def test_a_run_that_waits_is_at_work_only_while_a_coordinator_or_a_process_is(
    waiting: Callable[..., RunDir], damage: bool
):
    run = waiting("local")
    if damage:
        (run.path / "state.json").write_text("{")
    assert not control.is_at_work(run, print)
    with pytest.raises(UserError, match=f"{run.name} is queued.*, and no command is at work on it"):
        control.check_has_ended(run)
    with coordinating(run.path.parent):
        assert control.is_at_work(run, print)
    lock = run.lock()
    assert lock is not None
    with lock:
        assert control.is_at_work(run, print)
    assert not control.is_at_work(run, print)
    run.write_state(State(state="cancelled"))
    assert not control.is_at_work(run, print)
    control.check_has_ended(run)


def test_a_run_whose_job_waits_in_a_scheduler_is_at_work(waiting: Callable[..., RunDir]):
    assert control.is_at_work(waiting("slurm", state="preempted", job="slurm:7_0"), print)
    assert not control.is_at_work(waiting("ray", state="queued", job="ray:1"), print)


def test_jobs_are_cancelled_by_the_engine_of_their_launcher(
    waiting: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch
):
    run = waiting("slurm", state="queued", job="slurm:12_3")
    monkeypatch.setattr(control, "load_engine", lambda launcher: Scheduler)
    monkeypatch.setattr(Scheduler, "cancelled", [])
    folder: Path = run.path.parent
    assert control.cancel(folder, print) == [run]
    assert Scheduler.cancelled == ["slurm:12_3"]


def test_cancelling_names_a_few_of_many_runs_that_it_cannot_stop_or_find(
    waiting: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch
):
    runs = [waiting("slurm", seed, state="queued", job=f"slurm:{seed}") for seed in range(MAX_LINES + 4)]
    folder = runs[0].path.parent
    write_manifest(folder, Manifest(name="s", cells=[Cell(run_id=run.name, path=run.name) for run in runs]))

    def cancel(jobs: Any) -> None:
        raise UserError("the scheduler does not answer")

    monkeypatch.setattr(control, "load_engine", lambda launcher: Scheduler)
    monkeypatch.setattr(Scheduler, "cancel", cancel)
    with pytest.raises(UserError, match=r"0 runs stopped.* and 7 more: .*the scheduler does not answer$"):
        control.cancel(folder, print)
    for run in runs:
        shutil.rmtree(run.path)
    said: list[str] = []
    assert control.cancel(folder, said.append) == []
    assert len(said) == MAX_LINES + 1 and said[-1] == f"and 4 more; `lmexp status {folder.name}` shows all runs"


def test_a_launcher_that_is_not_trusted_keeps_its_jobs_and_stops_nothing_else(
    waiting: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    theirs, mine = (
        waiting("theirs", 1, state="queued", job="mine:4"),
        waiting("slurm", state="queued", job="slurm:12_3"),
    )
    monkeypatch.setattr(SlurmLauncher, "engine", f"{__name__}.Scheduler")
    monkeypatch.setattr(Scheduler, "cancelled", [])
    monkeypatch.setattr(Scheduler, "outlives_coordinator", True)
    folder = mine.path.parent
    shutil.move(theirs.path, folder / "theirs")
    theirs = RunDir(folder / "theirs")
    assert control.goes_on(folder, print)  # the trusted one's job is still there
    with pytest.raises(UserError, match=rf"1 run stopped.*{theirs.name}.*--trust stranger"):
        control.cancel(folder, print)
    assert Scheduler.cancelled == ["slurm:12_3"]
    assert mine.read_state().never_started and mine.read_state().job is None
    assert theirs.read_state().state == "queued" and theirs.read_state().job == "mine:4"
    assert not control.goes_on(folder, print) and "--trust stranger" in capsys.readouterr().out

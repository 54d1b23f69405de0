"""What a sweep does from outside: whether it goes on by itself, and which scheduler is asked to cancel its jobs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lmexp.config.launchers import LocalLauncher, RayLauncher, SlurmLauncher
from lmexp.launch import control
from lmexp.launch.engine import Engine
from lmexp.launch.pending import enqueue
from lmexp.runs.coordinators import coordinating
from lmexp.runs.directory import RunDir
from tests.launch.test_queue import Resolve, resolve

__all__ = ["resolve"]  # the fixture

LAUNCHERS = {
    "slurm": SlurmLauncher(name="slurm"),
    "ray": RayLauncher(name="ray", address="head:6379"),
    "local": LocalLauncher(),
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

    def make(launcher: str, **state: Any) -> RunDir:
        (planned,) = resolve(name=launcher).runs
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
    assert control.goes_on(folder) is goes_on
    with coordinating(folder):
        assert control.goes_on(folder)


def test_jobs_are_cancelled_by_the_engine_of_their_launcher(
    waiting: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch
):
    run = waiting("slurm", state="queued", job="slurm:12_3")
    monkeypatch.setattr(control, "load_engine", lambda launcher: Scheduler)
    folder: Path = run.path.parent
    assert control.cancel(folder, print) == [run]
    assert Scheduler.cancelled == ["slurm:12_3"]

"""What cancelling and retrying change, and what they leave alone."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from lmexp.cli import app
from lmexp.config.launchers import SlurmLauncher
from lmexp.config.trust import trusting
from lmexp.errors import UserError
from lmexp.launch import slurm
from lmexp.launch.control import RETRIED, cancel, set_back
from lmexp.launch.pending import enqueue
from lmexp.runs.manifest import Cell, Manifest, write_manifest
from tests.launch.test_queue import Resolve, resolve

__all__ = ["resolve"]  # the fixture


def test_cancelling_leaves_what_has_ended_as_it_was(resolve: Resolve):
    failed, pruned, preempted, queued = (planned.run for planned in map_enqueued(resolve, "seed=0,1,2,3"))
    preempted.update_state(state="preempted", attempts=1)
    failed.update_state(state="failed", reason="ValueError: boom")
    pruned.update_state(state="cancelled", reason="pruned at 25 % of its budget")
    assert cancel(failed.path.parent, print) == [preempted, queued]
    assert failed.read_state().reason == "ValueError: boom"
    assert pruned.read_state().is_pruned
    assert [(run.read_state().state, run.read_state().reason) for run in (preempted, queued)] == [
        ("cancelled", "the sweep was cancelled"),
        ("queued", "the sweep was cancelled"),  # of a run that never started, nothing was cancelled
    ]


def test_cancelling_a_sweep_that_has_ended_says_that_nothing_was_to_do(resolve: Resolve):
    (ended,) = map_enqueued(resolve, "seed=0")
    ended.run.update_state(state="failed", reason="boom", attempts=1)
    folder = ended.run.path.parent
    result = CliRunner().invoke(app, ["cancel", folder.name, "--output-dir", str(folder.parent)])
    assert result.exit_code == 0
    assert f"nothing to cancel: no run of {folder.name} trains or waits" in result.output


def test_retrying_takes_runs_of_the_sweep_only(resolve: Resolve):
    (mine,) = map_enqueued(resolve, "seed=0")
    (other,) = map_enqueued(resolve, "seed=1", name="other")
    other.run.update_state(state="failed", reason="boom")
    outputs: Path = other.run.path.parent.parent
    with pytest.raises(UserError, match="is no run of s"):
        set_back(mine.run.path.parent, outputs, [other.run.name], RETRIED, fresh=False)
    assert other.run.read_state().state == "failed"


def test_a_run_that_waits_in_a_scheduler_is_not_handed_over_twice(resolve: Resolve):
    (planned,) = map_enqueued(resolve, "seed=0")
    planned.run.note_job("slurm:12_3")
    with pytest.raises(UserError, match="slurm:12_3"):
        set_back(planned.run.path.parent, planned.run.path.parent.parent, [planned.run.name], RETRIED, fresh=False)


def test_what_a_run_has_taken_is_not_forgotten_when_it_is_set_back(resolve: Resolve):
    (planned,) = map_enqueued(resolve, "seed=0")
    planned.run.update_state(state="failed", started=100.0, finished=160.0, earlier=30.0)
    set_back(planned.run.path.parent, planned.run.path.parent.parent, [], RETRIED, fresh=False)
    assert planned.run.read_state().spent == 90


def map_enqueued(resolve: Resolve, *words: str, name: str = "s") -> list:
    """Return the runs of a sweep, with their directories made."""
    runs = resolve(*words, name=name).runs
    for planned in runs:
        enqueue(planned)
    return runs


def test_a_run_without_its_directory_does_not_stop_the_others_from_being_cancelled(resolve: Resolve):
    gone, mine = (planned.run for planned in map_enqueued(resolve, "seed=0,1"))
    write_manifest(
        mine.path.parent, Manifest(name="s", cells=[Cell(run_id=run.name, path=run.name) for run in (gone, mine)])
    )
    shutil.rmtree(gone.path)
    said: list[str] = []
    assert [run.name for run in cancel(mine.path.parent, said.append)] == [mine.name]
    assert said == [f"{gone.name} is skipped: its directory is missing"]


def test_a_process_that_a_state_names_wrongly_is_not_killed(resolve: Resolve):
    (planned,) = map_enqueued(resolve, "seed=0")
    with subprocess.Popen(["sleep", "60"]) as innocent, planned.run.lock() or pytest.fail("nobody has it"):
        planned.run.update_state(state="running", host=socket.gethostname(), pid=innocent.pid)
        said: list[str] = []
        assert cancel(planned.run.path.parent, said.append) == []
        assert innocent.poll() is None and "does not name; stop that one by hand" in said[0]
        innocent.kill()


def test_a_run_that_says_what_only_the_user_may_say_is_not_retried(resolve: Resolve):
    (planned,) = map_enqueued(resolve, "seed=0")
    config = planned.run.read_config()
    launcher = SlurmLauncher(name="slurm", setup=["touch /tmp/x"])
    planned.run.write_config(config.model_copy(update={"launcher": launcher}))
    planned.run.update_state(state="failed", reason="boom")
    folder = planned.run.path.parent
    with pytest.raises(UserError, match=r"--trust launcher\.setup"):
        set_back(folder, folder.parent, [], RETRIED, fresh=False)
    assert planned.run.read_state().state == "failed"
    with trusting(["launcher.setup"]):
        assert set_back(folder, folder.parent, [], RETRIED, fresh=False) == [planned.run]


def test_what_has_a_line_break_is_no_option_of_a_job():
    for key in ("partition", "account", "qos", "constraint"):
        with pytest.raises(ValidationError):
            SlurmLauncher.model_validate({"name": "slurm", key: "x\ntouch /tmp/x #"})
    for options in ({"exclude": "x\ntouch"}, {"a\nb": "x"}):
        with pytest.raises(ValidationError):
            SlurmLauncher.model_validate({"name": "slurm", "options": options})


def test_a_state_names_no_options_of_scancel(monkeypatch: pytest.MonkeyPatch):
    cancelled: list[str] = []
    names = "12_3|lmexp-s\n13|somebody-elses\n"
    monkeypatch.setattr(slurm, "cancel_jobs", lambda jobs: cancelled.extend(jobs))
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(slurm, "_run", lambda *words: subprocess.CompletedProcess(words, 0, names, ""))
    slurm.SlurmEngine.cancel(["slurm:12_3", "slurm:13", "slurm:--user=me", "slurm:14 15", "ray:16"])
    assert cancelled == ["12_3"]

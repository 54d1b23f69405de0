"""What cancelling and retrying change, and what they leave alone."""

from pathlib import Path

import pytest

from lmexp.errors import UserError
from lmexp.launch.control import RETRIED, cancel, set_back
from lmexp.launch.pending import enqueue
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

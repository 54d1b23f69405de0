"""Lining runs up: what is there already stays as it is."""

import pytest

from lmexp.launch.pending import enqueue
from lmexp.runs.state import StateName
from tests.launch.test_queue import Resolve, resolve

__all__ = ["resolve"]  # the fixture


@pytest.mark.parametrize("state", ["done", "oom", "diverged", "timeout"])
def test_lining_a_run_up_leaves_a_result_that_came_meanwhile(resolve: Resolve, state: StateName):
    planned = resolve("seed=0").runs[0]
    enqueue(planned)
    if state == "done":
        planned.run.write_record([{"run_id": planned.identity}])
    planned.run.update_state(state=state, reason="just now")
    enqueue(planned)
    assert planned.run.settle(state="queued") == planned.run.read_state()
    assert (planned.run.read_state().state, planned.run.read_state().reason) == (state, "just now")


def test_lining_a_run_up_leaves_one_that_is_being_trained(resolve: Resolve):
    planned = resolve("seed=0").runs[0]
    enqueue(planned)
    with planned.run.idle() as state:  # as a worker holds it
        assert state is not None
        planned.run.update_state(state="running", pid=7)
        enqueue(planned)
        assert planned.run.settle(state="queued", pid=None) is None
    assert (planned.run.read_state().state, planned.run.read_state().pid) == ("running", 7)

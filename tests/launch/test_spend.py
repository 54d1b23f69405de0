"""Caps on what the runs of a sweep may spend together: real runs, one of them really killed."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from lmexp.config.schema import RunConfig
from lmexp.cost.device import detect
from lmexp.errors import UserError
from lmexp.launch.policy import Policy
from lmexp.launch.queue import run_sweep
from lmexp.launch.spend import Ledger
from lmexp.runs.state import State
from tests.launch.test_policy import Resolve, kill
from tests.launch.test_queue import LONG, Notes, resolve

__all__ = ["resolve"]  # the fixture


def test_a_cap_on_flops_stops_before_the_run_that_would_pass_it(resolve: Resolve):
    sweep = resolve("seed=1,2,3")
    flops = sweep.runs[0].horizon.flops or 0
    states = run_sweep(sweep, Notes(), Policy(max_flops=2.5 * flops))
    assert [state.state for state in states] == ["done", "done", "queued"]
    assert "--max-flops" in (states[2].reason or "")
    again = run_sweep(sweep, Notes(), Policy(max_flops=2.5 * flops))
    assert [state.state for state in again] == ["done", "done", "queued"], "what earlier calls spent counts"
    assert [state.state for state in run_sweep(sweep, Notes())] == ["done"] * 3


def test_rows_that_share_steps_count_what_was_spent_for_each(config: Callable[..., RunConfig]):
    rows = [{"train_flops": 10.0, "spent_flops": 10.0, "wall_seconds": 3600.0},
            {"train_flops": 20.0, "spent_flops": 13.0, "wall_seconds": 7200.0}]  # fmt: skip
    run = SimpleNamespace(read_record=lambda: rows)
    planned: Any = SimpleNamespace(identity="a", run=run, config=config(), device=detect("cpu"))
    ledger = Ledger(Policy(max_flops=100), lambda planned: None)
    ledger.ended(planned, State())
    assert (ledger.spent.flops, ledger.spent.hours) == (23.0, 1 + 2 * 13 / 20)


def test_a_cap_counts_what_stands_behind_in_the_order_too(resolve: Resolve):
    run_sweep(resolve("seed=2,3"), Notes())
    sweep = resolve("seed=1,2,3")
    spent = sum(planned.run.read_record()[0]["wall_seconds"] for planned in sweep.runs[1:])
    states = run_sweep(sweep, Notes(), Policy(max_hours=spent / 3600))
    assert [state.state for state in states] == ["queued", "done", "done"]


def test_a_cap_counts_every_attempt_of_a_run_that_was_killed(resolve: Resolve):
    sweep = resolve(LONG, "checkpoint.every=1")
    run_sweep(sweep, Notes(kill))  # three attempts, none of which got anywhere
    (planned,) = sweep.runs
    state = planned.run.read_state()
    assert state.attempts == 3 and state.finished is None and state.started and state.heartbeat
    assert state.earlier > 0 and state.spent >= state.earlier + state.heartbeat - state.started
    again = run_sweep(sweep, Notes(), Policy(max_hours=state.spent / 2 / 3600))
    assert again[0].state == "queued" and "--max-hours" in (again[0].reason or "")


def test_caps_on_hours_and_dollars_go_by_what_the_runs_before_took(resolve: Resolve):
    (first,) = run_sweep(resolve("seed=1", "hardware.dollars_per_hour=3600"), Notes())  # a dollar a second
    assert first.state == "done"
    sweep = resolve("seed=1,2,3", "hardware.dollars_per_hour=3600")
    spent = sweep.runs[0].run.read_record()[0]["wall_seconds"]
    for policy in (Policy(max_dollars=1.5 * spent), Policy(max_hours=1.5 * spent / 3600)):
        assert [state.state for state in run_sweep(sweep, Notes(), policy)] == ["done", "queued", "queued"]


def test_a_cap_on_dollars_needs_a_price(resolve: Resolve):
    with pytest.raises(UserError, match="dollars_per_hour"):
        run_sweep(resolve("seed=1"), Notes(), Policy(max_dollars=1))

"""Budgets of time and money: the schedule follows the share that is spent, whatever the speed."""

import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.cost.horizon import Horizon
from lmexp.errors import UserError
from lmexp.runs.directory import RunDir
from lmexp.train.checkpoint import last_checkpoint
from lmexp.train.progress import Progress
from lmexp.train.worker import main

MakeRun = Callable[..., RunDir]
TIMED = ["budget.tokens=null", "schedule=linear", "trainer.log_every=1"]


def ends_decayed(run: RunDir, seconds: float) -> bool:
    """Whether the last step was taken at the rate of the budget's end, give or take the time of two steps."""
    points = [point for point in run.read_curve() if "lr" in point]
    times = [0.0, *(point["seconds"] for point in points)]
    longest = max(after - before for before, after in pairwise(times))
    return points[-1]["lr"] <= 1e-3 / 0.95 * max(2 * longest / seconds, 1e-9)


@pytest.mark.parametrize("model", ["model.n_layers=1", pytest.param("model.n_layers=6", marks=pytest.mark.slow)])
def test_a_budget_of_seconds_ends_with_its_decay_done_whatever_the_speed(make_run: MakeRun, model: str):
    run = make_run(*TIMED, "budget.seconds=3", model)
    assert main(run.path) == 0, run.log
    (row,) = run.read_record()
    assert row["train_seconds"] == pytest.approx(3, abs=max(2 * row["step_ms_p95"] / 1e3, 0.1))
    assert ends_decayed(run, 3)
    assert row["tokens"] == row["steps"] * row["batch_tokens"]
    assert run.read_state().share == 1


@pytest.mark.slow
def test_a_budget_of_seconds_survives_a_kill_and_goes_on_with_what_was_left(make_run: MakeRun):
    run = make_run(*TIMED, "budget.seconds=6", "checkpoint.every=0.1")
    process = subprocess.Popen([sys.executable, "-m", "lmexp.worker", run.path])
    deadline = time.time() + 60
    while not (last_checkpoint(run).exists() and (run.read_curve() or [{}])[-1].get("seconds", 0) > 2.5):
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = run.read_curve()[-1]["seconds"]
    assert main(run.path) == 0
    (row,) = run.read_record()
    assert before < 5.5 < row["train_seconds"] < 6.5  # not six seconds from the start again
    times = [point["seconds"] for point in run.read_curve()]
    assert times == sorted(times)
    assert ends_decayed(run, 6)
    assert row["wall_seconds"] > row["train_seconds"]  # the first attempt's counts as well


def test_a_budget_of_dollars_is_one_of_seconds_at_the_price_of_the_hardware(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
):
    limits: list[tuple[str, float]] = []
    monkeypatch.setattr("lmexp.train.training.limit_memory", lambda device, share: limits.append((device.kind, share)))
    priced = ["hardware.dollars_per_hour=18", "hardware.watts=100", "launcher.slots=2"]
    run = make_run(*TIMED, "budget.dollars=0.01", *priced)
    assert main(run.path) == 0
    (row,) = run.read_record()
    # Runs that share a device share its price, but the launcher must not change how long a run trains.
    assert row["train_seconds"] == pytest.approx(2, abs=0.2)
    assert row["dollars_per_hour"] == 18
    assert row["dollars"] == pytest.approx(18 * row["wall_seconds"] / 3600 / 2) and row["device_share"] == 0.5
    if row["energy_source"] == "estimated":
        assert row["energy_kwh"] == pytest.approx(100 * row["wall_seconds"] / 3.6e6 / 2, rel=0.2)
    assert limits == [("cpu", 0.5)]
    assert row["dollars_per_million_tokens"] == pytest.approx(row["dollars"] / row["tokens"] * 1e6)
    with pytest.raises(UserError, match=r"budget\.dollars needs a price"):
        make_run(*TIMED, "budget.dollars=0.01")


def test_the_price_is_part_of_a_run_only_where_it_decides_how_long_it_trains(make_run: MakeRun):
    money = [*TIMED, "budget.dollars=1"]
    assert make_run(*money, "hardware.dollars_per_hour=1").name != make_run(*money, "hardware.dollars_per_hour=2").name
    tokens = make_run("hardware.dollars_per_hour=1").name
    assert make_run("hardware.dollars_per_hour=2", place="elsewhere").name == tokens


@given(st.floats(1, 100), st.lists(st.floats(0.05, 2), min_size=2, max_size=50), st.floats(0.01, 1))
def test_the_share_of_time_only_grows_ends_at_one_and_every_share_falls_due_once(
    total: float, steps: list[float], every: float
):
    progress, spent, due = Progress(Horizon(seconds=total), 1, 1), 0.0, 0
    last = 0.0
    for i in range(10_000):
        spent += (step := steps[i % len(steps)])
        progress.advance(spent, step)
        assert last <= progress.share <= 1
        last = progress.share
        due += progress.due(every)
        if progress.done:
            break
    assert progress.share == 1 and spent >= total - max(steps)  # not long before the end, and not beyond a step
    assert spent <= total + 2 * max(steps)
    assert 1 <= due <= 1 / every + 2

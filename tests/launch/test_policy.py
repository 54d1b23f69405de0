"""What a sweep does when runs fail, vanish, take too long or cost too much: real runs, really killed."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from lmexp.errors import UserError
from lmexp.launch.policy import MAX_LOST_RETRIES, Policy, parse_duration, parse_on_failure
from lmexp.launch.queue import run_sweep
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.runs.directory import RunDir
from tests.conftest import Lmexp
from tests.launch.test_queue import LONG, Notes, resolve, when_running

__all__ = ["resolve"]  # the fixture
Resolve = Callable[..., Sweep]


def break_first(sweep: Sweep) -> None:
    """Make the first run raise: its validation tokens are not there when it looks for them."""
    run = RunDir.create(sweep.runs[0].run.path, sweep.runs[0].config)
    (run.path / "checkpoints").write_text("in the way")


def test_after_a_failure_others_go_on_or_not_as_asked(resolve: Resolve):
    for stop, expected in ((False, ["failed", "done"]), (True, ["failed", "queued"])):
        sweep = resolve(f"seed={10 + stop},{20 + stop}")
        break_first(sweep)
        states = run_sweep(sweep, Notes(), Policy(stop_at_failure=stop))
        assert [state.state for state in states] == expected
    assert "not started" in (states[1].reason or "") and sweep.runs[0].run.name in (states[1].reason or "")


def test_a_run_that_raises_is_tried_again_as_often_as_asked(resolve: Resolve):
    sweep, notes = resolve("seed=1"), Notes()
    break_first(sweep)
    (state,) = run_sweep(sweep, notes, Policy(retries=2))
    assert state.state == "failed" and state.attempts == 3
    assert len(notes.retried) == 2 and "retry 1 of 2" in notes.retried[0]


def test_a_run_that_succeeds_when_tried_again_is_done(resolve: Resolve):
    sweep = resolve("seed=1")
    break_first(sweep)
    obstacle = sweep.runs[0].run.path / "checkpoints"
    notes = Notes(when_retried=lambda planned: obstacle.unlink())
    (state,) = run_sweep(sweep, notes, Policy(retries=1))
    assert (state.state, state.attempts) == ("done", 2)


def kill(planned: PlannedRun) -> None:
    when_running(planned, lambda state: psutil.Process(state.pid).kill())


def test_a_run_whose_process_vanishes_goes_on_from_its_checkpoint(resolve: Resolve):
    sweep = resolve("budget.tokens=51200", "checkpoint.every=0.05")
    deaths: list[int] = []

    def kill_once(planned: PlannedRun) -> None:
        if not deaths:
            while not planned.run.last_saved():
                time.sleep(0.02)
            deaths.append(1)
            kill(planned)

    notes = Notes(kill_once)
    (state,) = run_sweep(sweep, notes)
    assert state.state == "done" and state.attempts == 2
    assert "killed by signal 9" in notes.retried[0]
    assert "resuming after step" in sweep.runs[0].run.log.read_text()


def test_a_run_that_vanishes_again_and_again_without_getting_further_is_given_up(resolve: Resolve):
    sweep, notes = resolve(LONG, "checkpoint.every=1"), Notes(kill)
    (state,) = run_sweep(sweep, notes)
    assert state.state == "failed" and "3 times" in (state.reason or "")
    assert len(notes.retried) == MAX_LOST_RETRIES


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_a_result_and_no_end(resolve: Resolve):
    sweep = resolve(f"{LONG.split('=')[0]}=20_000_000,5120")
    long, short = sorted(sweep.runs, key=lambda planned: -(planned.horizon.tokens or 0))
    states = run_sweep(sweep, Notes(), Policy(timeout=6))
    by_run = {planned.run.name: state for planned, state in zip(sweep.runs, states, strict=True)}
    assert by_run[long.run.name].state == "timeout" and "6 s" in (by_run[long.run.name].reason or "")
    assert by_run[short.run.name].state == "done"
    told = Notes()
    assert [state.state for state in run_sweep(sweep, told)] == [state.state for state in states]
    assert not any(line.startswith("started") for line in told.told), "a timeout is a result: it is not tried again"


def test_words_of_policy():
    assert parse_on_failure("retry:3") == (False, 3) and parse_on_failure("stop") == (True, 0)
    assert parse_duration("90") == 90 and parse_duration("1.5h") == 5400 and parse_duration("15m") == 900
    for wrong in ("", "0", "-3", "5 weeks", "h"):
        with pytest.raises(UserError):
            parse_duration(wrong)
    for wrong in ("retry", "retry:", "retry:-1", "never"):
        with pytest.raises(UserError):
            parse_on_failure(wrong)


def test_a_damaged_state_of_a_finished_run_costs_nothing(resolve: Resolve):
    sweep = resolve("seed=1")
    run_sweep(sweep, Notes())
    run: RunDir = sweep.runs[0].run
    before = (run.path / "record.json").read_bytes()
    (run.path / "state.json").write_text('{"state": "do')
    notes = Notes()
    (state,) = run_sweep(sweep, notes)
    assert state.state == "done" and not any(line.startswith("started") for line in notes.told)
    assert (run.path / "record.json").read_bytes() == before
    assert list(Path(run.path).glob("state.json.damaged*"))


@pytest.fixture
def small_machine() -> Iterator[Path]:
    """A control group of 1.6 GB, whose kernel ends what takes more; where this process may make one."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root) / f"lmexp-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text(str(int(1.6e9)))
        except OSError:
            with suppress(OSError):
                group.rmdir()
            continue
        yield group
        for _ in range(100):
            with suppress(OSError):
                group.rmdir()
                return
            time.sleep(0.1)
    pytest.skip("no control group can be made here")


@pytest.mark.slow(40)
def test_a_run_that_the_system_ends_for_want_of_memory_is_a_result(small: list[str], small_machine: Path, lmexp: Lmexp):
    words = [word for word in small if not word.startswith(("batch", "budget"))]
    words += ["batch.tokens=2048,2097152", "budget.tokens=2100000", "trainer.log_every=1000"]
    into = ("bash", "-c", f'echo $$ > {small_machine}/cgroup.procs; exec "$@"', "lmexp")
    result = lmexp("train", "-m", *words, "--json", prefix=into, timeout=250)
    states = {row["batch_tokens"] or row["batch.tokens"]: row["state"] for row in json.loads(result.stdout)["runs"]}
    assert result.returncode == 0 and sorted(states.values()) == ["done", "oom"], result.stderr
    assert "oom: the system killed it because memory ran out" in result.stderr

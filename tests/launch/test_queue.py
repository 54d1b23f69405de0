"""The queue: what runs, what is skipped, what became of those that failed."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from lmexp.launch.queue import run_sweep
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir
from lmexp.runs.state import State
from lmexp.train.worker import main
from tests.command import start_process

LONG = "budget.tokens=20_000_000"
"""Far more than a test waits for."""


class Notes:
    """A listener that writes down what it is told."""

    def __init__(
        self,
        when_started: Callable[[PlannedRun], None] = lambda planned: None,
        when_retried: Callable[[PlannedRun], None] = lambda planned: None,
    ) -> None:
        self.told: list[str] = []
        self.retried: list[str] = []
        self.at_once = 0
        self.when_started, self.when_retried = when_started, when_retried

    def started(self, planned: PlannedRun) -> None:
        self.told.append(f"started {planned.values}")
        self.when_started(planned)

    def ended(self, planned: PlannedRun, state: State) -> None:
        self.told.append(f"{state.state} {planned.values}")

    def again(self, planned: PlannedRun, why: str) -> None:
        self.retried.append(why)
        self.when_retried(planned)

    def waiting(self, running: Sequence[PlannedRun]) -> None:
        self.at_once = max(self.at_once, len(running))


@pytest.fixture
def resolve(small: list[str], tmp_path: Path) -> Callable[..., Sweep]:
    return lambda *words, name="s": resolve_sweep(None, [*small, *words], tmp_path / "outputs", name=name)


Resolve = Callable[..., Sweep]


def when_running(planned: PlannedRun, act: Callable[[State], None]) -> None:
    """Act once the run's process has trained for a step."""
    for _ in range(600):
        state = planned.run.read_state()
        if state.state == "running" and planned.run.read_curve():
            return act(state)
        time.sleep(0.1)
    raise AssertionError(f"it never ran: {planned.run.log.read_text()}")


def test_a_sweep_run_again_runs_nothing_again(resolve: Resolve):
    first, again = Notes(), Notes()
    assert [s.state for s in run_sweep(resolve("seed=0,1"), first)] == ["done", "done"]
    before = {run.run.path: (run.run.path / "record.json").stat().st_mtime_ns for run in resolve("seed=0,1").runs}
    run_sweep(resolve("seed=0,1"), again)
    assert again.told == ["done {'seed': 0}", "done {'seed': 1}"]
    assert before == {path: (path / "record.json").stat().st_mtime_ns for path in before}


def test_widening_reordering_and_another_sweep_share_the_finished_runs(resolve: Resolve):
    run_sweep(resolve("seed=0,1"), Notes())
    wider, other = Notes(), Notes()
    run_sweep(resolve("seed=2,1,0"), wider)
    assert [told for told in wider.told if told.startswith("started")] == ["started {'seed': 2}"]
    sweep = resolve("seed=1", name="other")
    run_sweep(sweep, other)
    assert other.told == ["done {'seed': 1}"] or other.told == ["done {}"]
    assert sweep.runs[0].run.path.parent.name == "s"


def test_a_run_that_raises_is_a_row_with_a_reason_and_the_others_go_on(resolve: Resolve):
    sweep = resolve("seed=0,1,2")
    broken = RunDir.create(sweep.runs[1].run.path, sweep.runs[1].config)
    (broken.path / "checkpoints").write_text("in the way of its folder")
    states = run_sweep(sweep, Notes())
    assert [state.state for state in states] == ["done", "failed", "done"]
    assert "Error" in (states[1].reason or "") and "Traceback" in broken.log.read_text()


@pytest.mark.slow
def test_slots_run_at_once_share_the_cores_and_say_so(resolve: Resolve):
    notes = Notes()
    sweep = resolve("seed=0,1", "launcher.slots=2", "budget.tokens=100_000")
    run_sweep(sweep, notes)
    assert notes.at_once == 2
    assert [run.run.read_record()[0]["exclusive"] for run in sweep.runs] == [False, False]


def _coordinate(sweep: Sweep) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts in the background ignore it
    run_sweep(sweep, Notes())


@pytest.mark.parametrize("how, devices", [(signal.SIGINT, 1), pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow)])
def test_stopping_the_sweep_ends_its_runs_with_all_their_processes(resolve: Resolve, how: int, devices: int):
    sweep = resolve("seed=0,1", LONG, f"trainer.devices={devices}")
    process = start_process(_coordinate, sweep)
    pids: list[int] = []
    when_running(sweep.runs[0], lambda state: pids.append(state.pid or 0))
    os.kill(process.pid or 0, how)
    os.kill(process.pid or 0, how)  # an impatient second time
    process.join(30)
    states = [planned.run.read_state() for planned in sweep.runs]
    assert [state.state for state in states] == ["cancelled", "queued"]  # the second had not started
    left = [p.info for p in psutil.process_iter(["pid", "cmdline", "status"]) if p.info["status"] != "zombie"]
    assert pids[0] not in [info["pid"] for info in left]
    assert str(sweep.runs[0].run.path) not in str([info["cmdline"] for info in left])


def test_a_run_that_another_process_works_on_is_left_to_it_and_waited_for(resolve: Resolve):
    sweep, notes = resolve("budget.tokens=100_000"), Notes()
    process = start_process(_coordinate, sweep)
    when_running(sweep.runs[0], lambda state: None)
    (state,) = run_sweep(sweep, notes)
    assert (state.state, state.attempts) == ("done", 1)
    assert [line.split()[0] for line in notes.told] == ["done"]
    process.join()


@pytest.mark.slow
def test_a_run_that_another_process_gave_up_is_taken_over(resolve: Resolve):
    sweep, notes = resolve("budget.tokens=100_000", "checkpoint.every=0.05"), Notes()
    process = start_process(_coordinate, sweep)

    def kill(state: State) -> None:
        process.kill()
        process.join()
        threading.Timer(1, psutil.Process(state.pid).kill).start()

    when_running(sweep.runs[0], kill)
    (state,) = run_sweep(sweep, notes)
    assert (state.state, state.attempts) == ("done", 2)
    assert [line.split()[0] for line in notes.told] == ["started", "done"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_a_run_has_the_threads_that_its_launcher_gives_it(small: list[str], tmp_path: Path, strategy: str):
    """Lightning's DDP takes all cores, unless the environment says otherwise."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [
        sys.executable,
        "-m",
        "lmexp.cli",
        "train",
        *small,
        f"trainer.strategy={strategy}",
        "trainer.accelerator=cpu",
    ]
    ended = subprocess.run(command, cwd=tmp_path, env=environment | {"LMEXP_OUTPUTS": str(tmp_path)}, check=False)
    assert ended.returncode == 0
    (record,) = tmp_path.glob("train/*/record.json")
    assert json.loads(record.read_text())["rows"][0]["threads"] == 1


@pytest.mark.slow
def test_several_devices_are_started_by_torchrun(resolve: Resolve):
    sweep = resolve("trainer.devices=1,2")
    states = run_sweep(sweep, Notes())
    assert [state.state for state in states] == ["done", "done"], sweep.runs[1].run.log.read_text()
    one, two = (planned.run.read_record()[0] for planned in sweep.runs)
    assert (one["world_size"], two["world_size"]) == (1, 2)
    assert one["loss"] == pytest.approx(two["loss"], abs=2e-5)


@pytest.mark.slow
def test_several_processes_end_a_budget_of_seconds_at_the_same_step(resolve: Resolve):
    sweep = resolve("trainer.devices=2", "budget.tokens=null", "budget.seconds=2", "hardware.watts=100")
    (state,) = run_sweep(sweep, Notes())
    assert (state.state, state.share) == ("done", 1), sweep.runs[0].run.log.read_text()
    (row,) = sweep.runs[0].run.read_record()
    assert row["train_seconds"] == pytest.approx(2, abs=max(0.2, 2 * row["step_ms_p95"] / 1e3))
    if row["energy_source"] == "estimated":  # one CPU, whatever the processes
        assert row["energy_kwh"] == pytest.approx(100 * row["wall_seconds"] / 3.6e6, rel=0.2)


def test_two_coordinators_on_one_sweep_train_each_run_once(resolve: Resolve):
    sweep = resolve("seed=0,1,2", "budget.tokens=50_000")
    both = [start_process(_coordinate, sweep) for _ in range(2)]
    for process in both:
        process.join(120)
    states = [planned.run.read_state() for planned in sweep.runs]
    assert [(state.state, state.attempts) for state in states] == [("done", 1)] * 3
    for planned in sweep.runs:
        steps = [point["step"] for point in planned.run.read_curve()]
        assert steps == sorted(steps)


def test_a_run_that_failed_under_another_coordinator_is_not_started_again_until_the_sweep_is(resolve: Resolve):
    sweep = resolve("seed=0,1", "launcher.slots=1", "budget.tokens=256")
    second = sweep.runs[1].run

    def fail_elsewhere(planned: PlannedRun) -> None:
        if planned is sweep.runs[0]:
            second.update_state(state="failed", reason="it had to be")

    notes = Notes(when_started=fail_elsewhere)
    assert [state.state for state in run_sweep(sweep, notes)] == ["done", "failed"]
    assert sorted(notes.told) == ["done {'seed': 0}", "failed {'seed': 1}", "started {'seed': 0}"]
    assert run_sweep(sweep, Notes())[1].state == "done"


@pytest.mark.slow
def test_a_run_that_another_process_keeps_locked_for_long_is_started_and_not_said_to_have_died(resolve: Resolve):
    sweep, notes = resolve(), Notes()
    run = RunDir.create(sweep.runs[0].run.path, sweep.runs[0].config)
    lock = run.lock()
    assert lock is not None
    threading.Timer(2, lock.close).start()
    (state,) = run_sweep(sweep, notes)
    assert (state.state, state.attempts, notes.retried) == ("done", 1, [])


def test_a_state_that_claims_to_run_without_a_process_is_run_again(resolve: Resolve):
    sweep = resolve()
    run = RunDir.create(sweep.runs[0].run.path, sweep.runs[0].config)
    run.update_state(state="running", pid=1, host=socket.gethostname(), heartbeat=time.time())  # init's, not ours
    assert run_sweep(sweep, Notes())[0].state == "done"


def test_a_run_that_is_resumed_takes_the_logger_and_the_price_of_now(resolve: Resolve):
    before, now = resolve(), resolve("logger=tensorboard", "hardware.dollars_per_hour=3600")
    RunDir.create(before.runs[0].run.path, before.runs[0].config).update_state(state="cancelled")
    assert run_sweep(now, Notes())[0].state == "done"
    (row,) = now.runs[0].run.read_record()
    assert row["run_id"] == before.runs[0].identity
    assert row["dollars"] == pytest.approx(row["wall_seconds"])  # a dollar a second
    assert list((now.runs[0].run.path / "tensorboard").glob("events*"))


def test_a_config_that_was_changed_is_not_trained_under_its_old_name(resolve: Resolve):
    sweep = resolve()
    run = RunDir.create(sweep.runs[0].run.path, sweep.runs[0].config)
    file = run.path / "config.yaml"
    file.write_text(file.read_text().replace("n_layers: 2", "n_layers: 1"))
    assert main(run.path) == 1  # by hand: refused
    assert "config.yaml was changed" in (run.read_state().reason or "")
    assert run_sweep(sweep, Notes())[0].state == "done"  # by its sweep: what it is named after
    assert run.read_record()[0]["n_layers"] == 2


def test_a_run_whose_folder_vanishes_fails_alone(resolve: Resolve):
    sweep, notes = resolve("seed=0,1"), Notes()

    def remove(planned: PlannedRun) -> None:
        if planned is sweep.runs[0]:
            when_running(planned, lambda state: psutil.Process(state.pid).kill())
            shutil.rmtree(planned.run.path)

    notes.when_started = remove
    run_sweep(sweep, notes)
    assert "failed {'seed': 0}" in notes.told and "done {'seed': 1}" in notes.told


def test_what_goes_wrong_in_the_coordinator_leaves_no_run_behind(resolve: Resolve):
    sweep, pids = resolve(LONG), list[int]()

    class Broken(Notes):
        def waiting(self, running: Sequence[PlannedRun]) -> None:
            if running and (pid := running[0].run.read_state().pid):
                pids.append(pid)
                raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        run_sweep(sweep, Broken())
    assert pids and not psutil.pid_exists(pids[0])
    assert sweep.runs[0].run.read_state().state == "cancelled"


def test_several_signals_at_once_leave_no_run_behind(resolve: Resolve):
    sweep, pids = resolve(LONG), list[int]()
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}

    class Impatient(Notes):
        def waiting(self, running: Sequence[PlannedRun]) -> None:
            if running and not pids and (pid := running[0].run.read_state().pid):
                pids.append(pid)
                before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # they all arrive when it ends
                for which in signals:
                    signal.raise_signal(which)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, Impatient())
    assert not psutil.pid_exists(pids[0])
    assert sweep.runs[0].run.read_state().state == "cancelled"


def test_a_record_is_the_truth_whatever_the_state_says(resolve: Resolve):
    sweep = resolve("seed=0")
    (planned,) = sweep.runs
    run_sweep(sweep, Notes())
    written = (planned.run.path / "record.json").stat().st_mtime_ns
    planned.run.write_state(State(state="running", host=socket.gethostname(), pid=1))  # killed before it said so
    assert main(planned.run.path) == 0
    assert planned.run.read_state().state == "done"
    assert (planned.run.path / "record.json").stat().st_mtime_ns == written


def test_what_a_killed_coordinator_left_half_made_is_in_nobodys_way(resolve: Resolve):
    sweep = resolve("seed=0")
    path = sweep.runs[0].run.path
    (path.parent / f".{path.name}.{os.getpid()}").mkdir(parents=True)
    assert [state.state for state in run_sweep(sweep, Notes())] == ["done"]

"""Slurm: a real one, of two emulated nodes; runs as jobs, and what becomes of them when something is in the way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.launch import slurm as engine
from lmexp.launch.pending import enqueue
from lmexp.launch.queue import run_sweep
from lmexp.resolve.planned import Sweep
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir
from lmexp.runs.state import State
from tests.conftest import Lmexp
from tests.launch.test_queue import Notes
from tests.train.test_worker import TIMINGS

pytestmark = [pytest.mark.slow(40), pytest.mark.usefixtures("slurm_cluster")]
IN_SLURM = ["launcher=slurm", "launcher.partition=main", "launcher.memory_gb=1", "trainer.accelerator=cpu"]
LATER = "+launcher.options.begin=now+1hour"
"""A job that waits for as long as a test may take."""
LONG, LONGER = "budget.tokens=150_000", "budget.tokens=20_000_000"
"""A run that can be disturbed in time, and one that does not end by itself."""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def words(small: list[str]) -> list[str]:
    return [*(word for word in small if not word.startswith("launcher.")), *IN_SLURM]


@pytest.fixture
def resolve(words: list[str], tmp_path: Path) -> Callable[..., Sweep]:
    return lambda *more: resolve_sweep(None, [*words, *more], tmp_path / "outputs", name="s")


@pytest.fixture
def start(words: list[str], tmp_path: Path) -> Iterator[Start]:
    """Start `lmexp train -m` for the sweep `s`, as `resolve` has it."""
    started: list[subprocess.Popen[str]] = []

    def start(*more: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "lmexp.cli", "train", "-m", *words, *more, "--name", "s"]
        environment = {**os.environ, "LMEXP_OUTPUTS": "outputs", "COLUMNS": "160"}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


Resolve = Callable[..., Sweep]


def until(what: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


def jobs_of(sweep: Sweep) -> list[str]:
    return [(planned.run.read_state().job or "").removeprefix("slurm:") for planned in sweep.runs]


def states_of(sweep: Sweep) -> list[str]:
    return [planned.run.read_state().state for planned in sweep.runs]


def said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def of_result(run: RunDir) -> dict[str, Any]:
    (row,) = run.read_record()
    # Peaks are measured only where nothing else ran beside.
    return {name: value for name, value in row.items() if name not in [*TIMINGS, "peak_source"]}


def test_runs_are_one_array_and_one_that_raises_leaves_the_others_alone(resolve: Resolve, start: Start, lmexp: Lmexp):
    sweep = resolve("seed=0,1,2")
    broken = RunDir.create(sweep.runs[1].run.path, sweep.runs[1].config)
    (broken.path / "checkpoints").write_text("in the way of its folder")
    process = start("seed=0,1,2", "launcher.running_jobs=2")
    until(lambda: all(jobs_of(sweep)))
    first, _, _ = jobs_of(sweep)
    assert jobs_of(sweep) == [f"{first.partition('_')[0]}_{number}" for number in range(3)]
    rows = json.loads(lmexp("status", "s", "--json").stdout)["runs"]
    assert [row["job"] for row in rows] == [f"slurm:{job}" for job in jobs_of(sweep)]
    assert rows[2]["state"] == "queued"
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, out + err
    states = [planned.run.read_state() for planned in sweep.runs]
    assert [state.state for state in states] == ["done", "failed", "done"], err
    assert "Error" in (states[1].reason or "") and "Traceback" in broken.log.read_text()
    assert [len(planned.run.read_record()) for planned in sweep.runs] == [1, 0, 1]
    assert "resolved" not in err and "1/3" in err


def test_stopping_the_command_cancels_running_and_waiting_jobs_and_the_runs_save_first(resolve: Resolve, start: Start):
    sweep = resolve("seed=0,1", LONGER)
    process = start("seed=0,1", LONGER, "launcher.running_jobs=1")
    until(lambda: sweep.runs[0].run.read_curve())
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # an impatient second time
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert said("squeue", "--noheader") == ""
    assert states_of(sweep) == ["cancelled", "queued"], "the second never started"
    assert sweep.runs[0].run.last_saved() is not None


def test_preempted_and_requeued_runs_go_on_in_the_same_job_and_end_as_undisturbed_ones(
    resolve: Resolve, start: Start, small: list[str], tmp_path: Path
):
    sweep = resolve("seed=0,1", LONG)
    same = [*small, "trainer.accelerator=cpu", "seed=0,1", LONG]
    undisturbed = resolve_sweep(None, same, tmp_path / "local", name="s")
    process = start("seed=0,1", LONG)
    until(lambda: all(jobs_of(sweep)))
    before = jobs_of(sweep)
    # As before the time limit, and where preemption sends it; and as where it does not, and gives SIGTERM at most.
    disturbances = [["scancel", "--signal=USR2", before[0]], ["scontrol", "requeue", before[1]]]
    left = {0, 1}
    while left:
        until(lambda: any(sweep.runs[which].run.read_curve() for which in left))
        which = next(which for which in left if sweep.runs[which].run.read_curve())
        left.remove(which)
        said(*disturbances[which])
    until(lambda: states_of(sweep)[0] == "preempted")
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, out + err
    assert jobs_of(sweep) == before
    run_sweep(undisturbed, Notes())
    for planned, same in zip(sweep.runs, undisturbed.runs, strict=True):
        assert planned.run.read_state().attempts == 2
        assert "resuming after step" in planned.run.log.read_text()
        assert of_result(planned.run) == of_result(same.run)


def test_a_coordinator_takes_over_the_jobs_of_one_that_was_killed(resolve: Resolve, start: Start):
    sweep = resolve("seed=0,1", LONG)
    first = start("seed=0,1", LONG)
    until(lambda: all(jobs_of(sweep)) and sweep.runs[0].run.read_curve())
    first.kill()
    before = jobs_of(sweep)
    second = start("seed=0,1", LONG)
    _, err = second.communicate(timeout=180)
    assert second.returncode == 0, err
    assert [(state.state, state.attempts) for state in (p.run.read_state() for p in sweep.runs)] == [("done", 1)] * 2
    assert jobs_of(sweep) == before
    assert "is being run by another process" not in err


def test_a_run_on_two_nodes_ends_as_on_one(resolve: Resolve):
    sweep = resolve("trainer.num_nodes=1,2")
    states = run_sweep(sweep, Notes())
    assert [(state.state, state.attempts) for state in states] == [("done", 1)] * 2, sweep.runs[1].run.log.read_text()
    one, two = (planned.run.read_record()[0] for planned in sweep.runs)
    assert (one["world_size"], two["world_size"]) == (1, 2)
    assert two["loss"] == pytest.approx(one["loss"], abs=2e-5)
    of_one, of_two = ([point["step"] for point in planned.run.read_curve()] for planned in sweep.runs)
    assert of_one == of_two  # the first process alone writes


def test_a_handle_names_its_job_as_the_state_does(resolve: Resolve):
    sweep = resolve("seed=0,1", LATER)
    for planned in sweep.runs:
        enqueue(planned)
    opened = engine.SlurmEngine(sweep)
    handles = opened.start(sweep.runs)
    adopted = [engine.SlurmEngine(sweep).adopt(planned, planned.run.read_state()) for planned in sweep.runs]
    opened.stop(handles)
    noted = [planned.run.read_state().job for planned in sweep.runs]
    assert [handle.job for handle in handles] == [handle and handle.job for handle in adopted] == noted
    assert (noted[1] or "").startswith("slurm:") and (noted[1] or "").endswith("_1")


def test_a_job_that_is_cancelled_in_slurm_is_a_cancelled_run(resolve: Resolve):
    sweep = resolve(LATER)
    notes = Notes(lambda planned: subprocess.run(["scancel", *jobs_of(sweep)], check=True))
    (state,) = run_sweep(sweep, notes)
    assert (state.state, state.reason) == ("cancelled", "its Slurm job was cancelled")


def test_a_job_that_cannot_begin_is_a_failed_run_with_its_last_words(resolve: Resolve):
    (state,) = run_sweep(resolve("launcher.setup=['echo no such module >&2; exit 3']"), Notes())
    assert (state.state, state.reason) == ("failed", "its job ended before it began: no such module")


def test_what_slurm_refuses_is_said_before_anything_starts(resolve: Resolve, words: list[str], lmexp: Lmexp):
    done = lmexp("train", *words, "launcher.partition=no", "--name", "s")
    assert (done.returncode, done.stdout) == (2, "")
    assert "launcher=slurm: Invalid partition name specified" in done.stderr and "Traceback" not in done.stderr
    assert not resolve().folder.exists()


def test_what_slurm_refuses_later_is_a_failed_run(resolve: Resolve, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "_try_out", lambda shape: None)
    (state,) = run_sweep(resolve("launcher.partition=no"), Notes())
    assert state == State(state="failed", reason="Slurm refused its job: Invalid partition name specified")


@pytest.mark.parametrize("hidden, needs", [("PATH", "there is no sbatch here"), ("submitit", "needs submitit")])
def test_what_is_missing_is_said(resolve: Resolve, monkeypatch: pytest.MonkeyPatch, hidden: str, needs: str):
    sweep = resolve()
    if hidden == "PATH":
        monkeypatch.setenv("PATH", "")
    else:
        monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(engine.UserError, match=needs):
        run_sweep(sweep, Notes())


def test_what_a_run_asks_for_becomes_options_of_sbatch(words: list[str]):
    of_node = ["trainer.accelerator=gpu", "trainer.devices=2", "launcher.cpus=3", "launcher.memory_gb=2.5"]
    words += [*of_node, "+launcher.options.exclude=node7"]
    asked = engine.shape_of(Composer(paths.search_roots(), words=words).config({}))
    assert asked == {
        "partition": "main", "time": 60, "nodes": 1, "cpus-per-task": 6, "gpus-per-node": 2, "mem": "2385M",
        "requeue": True, "exclude": "node7",
    }  # fmt: skip


def test_while_slurm_does_not_answer_jobs_count_as_they_were(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "ASK_SECONDS", 0.0)
    jobs = engine.Jobs()
    jobs.watch("999999", "RUNNING")
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_run", lambda *words: subprocess.CompletedProcess(words, 1, "", "Unable to contact"))
        assert jobs.state("999999") == "RUNNING"
    assert jobs.state("999999") == engine.UNKNOWN  # and one that it does not know has ended


def test_a_slurm_that_does_not_answer_is_asked_again_only_after_a_while(monkeypatch: pytest.MonkeyPatch):
    asked: list[set[str]] = []
    monkeypatch.setattr(engine, "ask", lambda jobs: asked.append(set(jobs)) or {})
    jobs = engine.Jobs()
    for job in ("1_0", "1_1"):
        jobs.watch(job)
    assert [jobs.state(job) for job in ("1_0", "1_1", "1_0")] == ["PENDING"] * 3
    assert asked == [{"1_0", "1_1"}]
    jobs.watch("2")  # of which it has not been asked at all
    assert (jobs.state("2"), jobs.state("1_0")) == ("PENDING", "PENDING")
    assert len(asked) == 2
    monkeypatch.setattr(engine, "ASK_SECONDS", 0.0)
    jobs.state("1_0")
    assert len(asked) == 3


def test_of_jobs_that_squeue_has_forgotten_accounting_is_asked(monkeypatch: pytest.MonkeyPatch):
    said = {"squeue": "12_0|RUNNING\n", "sacct": "12_1|CANCELLED by 0\n12_2|RUNNING\n"}
    monkeypatch.setattr(engine, "_run", lambda *words: subprocess.CompletedProcess(words, 0, said[words[0]], ""))
    found = engine.ask(["12_0", "12_1", "12_2", "13"])
    assert found == {"12_0": "RUNNING", "12_1": "CANCELLED", "12_2": engine.UNKNOWN, "13": engine.UNKNOWN}

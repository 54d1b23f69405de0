"""Ray: a real cluster of two nodes on this machine; runs as tasks, and what becomes of them when one is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.launch import ray as engine
from lmexp.launch.pending import enqueue
from lmexp.launch.queue import run_sweep
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir
from tests.conftest import Lmexp
from tests.launch.ray import RayCluster, until
from tests.launch.test_queue import LONG, Notes, when_running
from tests.train.test_worker import TIMINGS, record_of

pytestmark = pytest.mark.slow(40)
ray = pytest.importorskip("ray")

Resolve = Callable[..., Sweep]


@pytest.fixture
def cluster(ray_cluster: RayCluster) -> RayCluster:
    ray_cluster.complete()
    return ray_cluster


def of_no_launcher(words: list[str]) -> list[str]:
    return [word for word in words if not word.startswith("launcher.")]


@pytest.fixture
def words(cluster: RayCluster, small: list[str]) -> list[str]:
    return [*of_no_launcher(small), "launcher=ray", f"launcher.address={cluster.address}", "trainer.accelerator=cpu"]


@pytest.fixture
def resolve(words: list[str], tmp_path: Path) -> Resolve:
    return lambda *more: resolve_sweep(None, [*words, *more], tmp_path / "outputs", name="s")


def of_result(run: RunDir) -> dict[str, object]:
    # Peaks are measured only where nothing else ran beside.
    return {name: value for name, value in record_of(run).items() if name not in [*TIMINGS, "peak_source"]}


def processes_of(sweep: Sweep) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(sweep.folder) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def above(planned: PlannedRun, what: str) -> psutil.Process:
    """Return the process above a run's worker that is called so."""
    parents = psutil.Process(planned.run.read_state().pid or 0).parents()
    return next(parent for parent in parents if what in parent.name() or what in " ".join(parent.cmdline()))


def test_runs_are_tasks_and_one_that_raises_leaves_the_others_alone(resolve: Resolve):
    sweep, notes = resolve("seed=0,1,2,3"), Notes()
    broken = RunDir.create(sweep.runs[1].run.path, sweep.runs[1].config)
    (broken.path / "checkpoints").write_text("in the way of its folder")
    states = run_sweep(sweep, notes)
    assert [state.state for state in states] == ["done", "failed", "done", "done"], notes.retried
    assert "Error" in (states[1].reason or "") and "Traceback" in broken.log.read_text()
    assert [len(planned.run.read_record()) for planned in sweep.runs] == [1, 0, 1, 1]
    assert all((state.job or "").startswith("ray:") and state.attempts == 1 for state in states)
    assert notes.at_once == 4  # those that wait for a core among them


def test_a_handle_names_its_task_as_the_state_does(resolve: Resolve):
    sweep = resolve(LONG)
    (planned,) = sweep.runs
    enqueue(planned)
    opened = engine.RayEngine(sweep)
    (handle,) = opened.start([planned])
    try:
        assert handle.job.startswith("ray:") and handle.job == planned.run.read_state().job
        until(lambda: planned.run.read_state().state == "running")
        assert handle.job == planned.run.read_state().job, "the task itself has noted it again"
    finally:
        opened.stop([handle])
        opened.close()


@pytest.mark.parametrize(("devices", "victim"), [(1, "worker"), (2, "Ray's process above it")])
def test_a_run_whose_process_is_killed_is_started_again(resolve: Resolve, devices: int, victim: str):
    sweep = resolve(f"trainer.devices={devices}", "budget.tokens=100_000", "checkpoint.every=0.05")
    (planned,) = sweep.runs
    left: list[psutil.Process] = []

    def kill(planned: PlannedRun) -> None:
        if planned.run.read_state().attempts:
            return
        until(lambda: planned.run.last_saved() is not None)
        left.extend(processes_of(sweep))
        (above(planned, "ray::") if devices == 2 else psutil.Process(planned.run.read_state().pid or 0)).kill()
        psutil.wait_procs(left, 10)

    notes = Notes(kill)
    (state,) = run_sweep(sweep, notes)
    assert (state.state, state.attempts) == ("done", 2), planned.run.log.read_text()
    assert len(left) == (1 if devices == 1 else 3) and not any(process.is_running() for process in left)
    how = "was killed by signal 9" if devices == 1 else "ended with exit code 1 and no result"
    assert notes.retried == [f"its process {how}"]
    assert "resuming after step" in planned.run.log.read_text()
    assert record_of(planned.run)["world_size"] == devices


def test_stopping_the_command_cancels_running_and_waiting_tasks_and_the_runs_save_first(
    resolve: Resolve, words: list[str], tmp_path: Path
):
    sweep = resolve("seed=0,1,2,3", LONG)
    command = [sys.executable, "-m", "lmexp.cli", "train", "-m", *words, "seed=0,1,2,3", LONG, "--name", "s"]
    environment = {**os.environ, "LMEXP_OUTPUTS": str(tmp_path / "outputs")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    until(lambda: sum(bool(planned.run.read_curve()) for planned in sweep.runs) == 3)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # an impatient second time
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert sorted(planned.run.read_state().state for planned in sweep.runs) == ["cancelled"] * 3 + ["queued"]
    assert sum(planned.run.last_saved() is not None for planned in sweep.runs) == 3
    assert not processes_of(sweep)


def test_runs_end_with_a_command_that_is_killed_and_the_next_one_starts_them_again(
    resolve: Resolve, words: list[str], tmp_path: Path
):
    sweep = resolve("budget.tokens=100_000")
    command = [sys.executable, "-m", "lmexp.cli", "train", *words, "budget.tokens=100_000", "--name", "s"]
    environment = {**os.environ, "LMEXP_OUTPUTS": str(tmp_path / "outputs")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    when_running(sweep.runs[0], lambda state: process.kill())
    process.wait()
    until(lambda: not processes_of(sweep), seconds=30)
    (state,) = run_sweep(sweep, Notes())
    assert (state.state, state.attempts) == ("done", 2)


def test_a_run_whose_node_is_lost_goes_on_elsewhere_and_ends_as_an_undisturbed_one(
    resolve: Resolve, cluster: RayCluster, small: list[str], tmp_path: Path
):
    of_run = ["trainer.accelerator=cpu", "seed=0,1", "budget.tokens=100_000", "checkpoint.every=0.05"]
    sweep = resolve(*of_run)
    undisturbed = resolve_sweep(None, [*small, *of_run], tmp_path / "local", name="s")
    second, hit = cluster.raylet("second").pid, []

    def is_there(planned: PlannedRun) -> bool:
        with suppress(psutil.Error, StopIteration):  # it has not begun yet, or is done
            return above(planned, "raylet").pid == second
        return False

    def kill(planned: PlannedRun) -> None:
        if hit or planned is not sweep.runs[1]:
            return
        until(lambda: any(is_there(run) and run.run.last_saved() is not None for run in sweep.runs))
        hit.extend(filter(is_there, sweep.runs))
        cluster.kill("second")

    notes = Notes(kill)
    states = run_sweep(sweep, notes)
    assert [state.state for state in states] == ["done", "done"], notes.retried
    assert hit and [state.attempts for state in states] == [1 + (planned in hit) for planned in sweep.runs]
    run_sweep(undisturbed, Notes())
    for planned, same in zip(sweep.runs, undisturbed.runs, strict=True):
        assert of_result(planned.run) == of_result(same.run)
    assert any("resuming after step" in planned.run.log.read_text() for planned in hit)


def test_a_run_that_no_node_is_left_for_fails_with_its_reason(
    resolve: Resolve, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine, "ROOM_SECONDS", 1.0)
    sweep = resolve("+launcher.resources.other=1", LONG)

    def kill(planned: PlannedRun) -> None:
        if not notes.retried:
            when_running(planned, lambda state: cluster.kill("second"))

    notes = Notes(kill)
    (state,) = run_sweep(sweep, notes)
    assert (state.state, state.reason) == (
        "failed", "no node could take it: no node has other 1, which the run needs; the largest has other 0",
    )  # fmt: skip
    assert not processes_of(sweep)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trainer.devices=4", "launcher=ray: no node has CPU 4, which the run needs; the largest has CPU 2"),
        ("launcher.memory_gb=1e6", "launcher=ray: no node has 1000000.0 GB of memory, which the run needs"),
        (
            "+launcher.resources.a100=1",
            "launcher=ray: no node has a100 1, which the run needs; the largest has a100 0",
        ),
    ],
)
def test_what_no_node_can_give_is_said_before_anything_starts(resolve: Resolve, word: str, said: str):
    sweep = resolve(word)
    with pytest.raises(engine.UserError) as caught:
        run_sweep(sweep, Notes())
    ray.shutdown()
    assert said in str(caught.value) and not sweep.folder.exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto"])
def test_a_cluster_that_is_not_there_is_said_before_anything_starts(small: list[str], lmexp: Lmexp, address: str):
    done = lmexp("train", *of_no_launcher(small), "launcher=ray", f"launcher.address={address}", "--name", "s")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"launcher.address={address}: " in done.stderr and "Traceback" not in done.stderr


def test_what_a_run_asks_for_becomes_resources_of_ray(small: list[str]):
    def needs(*words: str) -> dict[str, float]:
        words = (*of_no_launcher(small), "launcher=ray", "launcher.address=head:6379", *words)
        return engine.needs_of(Composer(paths.search_roots(), words=list(words)).config({}))

    assert needs("trainer.devices=2", "launcher.cpus=3", "launcher.memory_gb=2", "+launcher.resources.a100=1") == {
        "CPU": 6, "GPU": 0, "memory": 2e9, "a100": 1,
    }  # fmt: skip
    assert needs("trainer.accelerator=gpu", "trainer.devices=2")["GPU"] == 2
    assert needs("trainer.accelerator=gpu", "launcher.gpus=0.5")["GPU"] == 0.5
    apart = [{"CPU": 4.0}, {"CPU": 1.0, "GPU": 1.0}]
    assert engine.shortage({"CPU": 4, "GPU": 0}, apart) is None
    assert engine.shortage({"CPU": 4, "GPU": 1}, apart) == (
        "no single node has all that the run needs: CPU 4, GPU 1"
    )  # fmt: skip


def test_what_ray_knows_of_an_end_is_told(monkeypatch: pytest.MonkeyPatch):
    from ray import exceptions as ended

    why = {}
    for error in (ended.OutOfMemoryError("too much"), ended.WorkerCrashedError(), ended.NodeDiedError("node"),
                  ended.RaySystemError("no module named lmexp")):  # fmt: skip
        tasks = engine.Tasks()
        monkeypatch.setattr(tasks, "result", lambda ref, error=error: error)
        handle = engine.RayHandle(tasks, None, "ray:1")
        assert handle.exit_code() == 1
        why[type(error).__name__] = engine.RayEngine.why(_with(tasks), handle)
    assert (why["OutOfMemoryError"] or ("",))[0] == "oom"
    assert why["WorkerCrashedError"] is why["NodeDiedError"] is None
    assert (why["RaySystemError"] or ("", ""))[1].endswith("no module named lmexp")


def _with(tasks: engine.Tasks) -> engine.RayEngine:
    opened = engine.RayEngine.__new__(engine.RayEngine)
    opened._tasks = tasks
    return opened

"""Changing a sweep from outside: in the background, watched, cancelled, retried. The commands, as a user types them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lmexp.runs.coordinators import has_coordinator
from lmexp.runs.directory import RunDir, runs_in
from tests.conftest import Lmexp
from tests.report.synthetic import config

LONG = "budget.tokens=20_000_000"


@pytest.fixture
def sweep(small: list[str], tmp_path: Path) -> Callable[..., list[str]]:
    """Write a sweep file and return its words."""

    def write(*words: str, grid: str = "seed: [1, 2]") -> list[str]:
        (tmp_path / "s.yaml").write_text(f"# @package _global_\nsweep:\n  grid:\n    {grid}\n")
        return ["s.yaml", *small, "checkpoint.every=0.00001", *words]

    return write


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield
    for run in runs_in(tmp_path / "outputs" / "s"):
        state = run.read_state()
        if state.pid and run.is_alive(state):
            psutil.Process(state.pid).kill()


def wait(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.1)


def the_running(folder: Path) -> list[RunDir]:
    return [run for run in runs_in(folder) if run.read_state().state == "running" and run.last_saved()]


@pytest.mark.slow
def test_a_detached_sweep_is_watched_and_cancelled_and_goes_on(
    lmexp: Lmexp, sweep: Callable[..., list[str]], tmp_path: Path
):
    folder = tmp_path / "outputs" / "s"
    started = lmexp("sweep", *sweep(LONG), "--detach", "--json")
    assert started.returncode == 0, started.stderr
    pid = json.loads(started.stdout)["pid"]
    assert has_coordinator(folder) and psutil.pid_exists(pid)
    wait(lambda: the_running(folder), "a run that has been saved")

    shown = json.loads(lmexp("status", "s", "--json").stdout)["runs"]
    assert sorted(row["state"] for row in shown) == ["queued", "running"]
    (running,) = [row for row in shown if row["state"] == "running"]
    wait(lambda: json.loads(lmexp("status", "s", "--json").stdout)["runs"][0]["seconds_left"], "a time left")
    assert "parameters" in lmexp("logs", running["run"]).stdout

    cancelled = lmexp("cancel", "s")
    assert cancelled.returncode == 0 and "1 run cancelled, 1 had not started" in cancelled.stdout
    wait(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", "the coordinator's end", 15)
    assert sorted(run.read_state().state for run in runs_in(folder)) == ["cancelled", "queued"]
    assert not has_coordinator(folder)
    watched = lmexp("status", "s", "--watch", timeout=20)
    assert watched.returncode == 0 and "cancelled" in watched.stdout


@pytest.mark.slow
def test_runs_that_a_killed_coordinator_left_behind_are_cancelled_too(
    lmexp: Lmexp, sweep: Callable[..., list[str]], tmp_path: Path
):
    folder = tmp_path / "outputs" / "s"
    pid = json.loads(lmexp("sweep", *sweep(LONG), "--detach", "--json").stdout)["pid"]
    wait(lambda: the_running(folder), "a run that has been saved")
    psutil.Process(pid).kill()
    (run,) = the_running(folder)
    assert run.is_alive(run.read_state())
    assert lmexp("cancel", "s").returncode == 0
    assert not run.is_alive(run.read_state()) and run.read_state().state == "cancelled"


@pytest.mark.slow
def test_a_log_is_followed_to_the_end_of_its_run(lmexp: Lmexp, sweep: Callable[..., list[str]], tmp_path: Path):
    folder = tmp_path / "outputs" / "s"
    lmexp("sweep", *sweep("budget.tokens=51200", grid="seed: [1]"), "--detach")
    wait(lambda: runs_in(folder), "a run")
    (run,) = runs_in(folder)
    followed = lmexp("logs", run.name, "-f", timeout=100)
    assert followed.returncode == 0
    assert "51,200 tokens  validation loss" in followed.stdout
    wait(lambda: not has_coordinator(folder), "the end of the sweep")
    assert "1/1" in lmexp("logs", "s").stdout, "what the detached sweep said"


@pytest.mark.parametrize("content", ['{"state": "queued"}', "{"])
def test_following_a_run_that_nothing_works_on_ends_with_a_sentence(lmexp: Lmexp, content: str, tmp_path: Path):
    run = RunDir.create(tmp_path / "outputs" / "s" / "a-1", config("gpt_nano", 2, "fp32"))
    run.log.write_text("a line\n")
    (run.path / "state.json").write_text(content)
    shown = lmexp("logs", "a-1", "-f", timeout=60)
    assert shown.returncode == 2 and shown.stdout == "a line\n"
    assert "no command is at work on it" in shown.stderr and len(shown.stderr.splitlines()) == 1
    assert ("state.json could not be read" in shown.stderr) is (content == "{")


@pytest.mark.slow
def test_a_run_without_success_is_retried_from_its_directory_alone(
    lmexp: Lmexp, sweep: Callable[..., list[str]], tmp_path: Path
):
    words = sweep()
    assert lmexp("sweep", *words, "--timeout", "0.001s").returncode == 0, "a timeout is a result"
    alone = lmexp("train", *words[1:], "--timeout", "0.001s")
    assert alone.returncode == 1 and "has no result, timeout: it ran longer" in alone.stderr, "nothing was trained"
    runs = runs_in(tmp_path / "outputs" / "s")
    assert [run.read_state().state for run in runs] == ["timeout", "timeout"]
    assert "timeout" in lmexp("sweep", *words).stderr, "it stays one"
    (tmp_path / "s.yaml").unlink()
    one = lmexp("retry", "s", runs[0].name)
    assert one.returncode == 0, one.stderr
    assert [run.read_state().state for run in runs] == ["done", "timeout"]
    assert lmexp("retry", "s", "--state", "failed").stdout == ""
    assert lmexp("retry", "s").returncode == 0
    assert [run.read_state().state for run in runs] == ["done", "done"]
    refused = lmexp("retry", "s", runs[0].name)
    assert refused.returncode == 2 and "is done" in refused.stderr


@pytest.mark.parametrize(
    "words, said",
    [
        (["status", "nothing"], "no sweep 'nothing'"),
        (["cancel", "nothing"], "no sweep 'nothing'"),
        (["retry", "nothing"], "no sweep 'nothing'"),
        (["logs", "nothing"], "no run 'nothing'"),
        (["sweep", "demo", "--on-failure", "retry"], "retry:N"),
        (["sweep", "demo", "--timeout", "soon"], "no duration"),
        (["sweep", "demo", "--max-hours", "-1"], "max-hours"),
        (["retry", "demo", "--state", "done"], "failed, cancelled"),
        (["status", "demo", "--watch", "--json"], "--watch"),
        (["sweep", "demos", "--detach"], "demo"),
    ],
)
def test_a_wrong_word_is_one_line_and_starts_nothing(lmexp: Lmexp, words: list[str], said: str, tmp_path: Path):
    result = lmexp(*words)
    assert result.returncode == 2 and said in result.stderr and "Traceback" not in result.stderr
    assert not list((tmp_path / "outputs").glob("*/*/config.yaml"))


@pytest.mark.slow
def test_watching_in_a_terminal_shows_a_table_until_it_ends(
    lmexp: Lmexp, sweep: Callable[..., list[str]], tmp_path: Path
):
    import pty

    lmexp("sweep", *sweep("budget.tokens=25600"), "--detach")
    inner, outer = pty.openpty()
    environment = {**os.environ, "LMEXP_OUTPUTS": str(tmp_path / "outputs"), "COLUMNS": "140", "TERM": "xterm"}
    watching = subprocess.Popen([sys.executable, "-m", "lmexp.cli", "status", "s", "--watch"],
                                cwd=tmp_path, env=environment, stdout=outer, stderr=outer)  # fmt: skip
    os.close(outer)
    shown = b""
    try:
        while chunk := os.read(inner, 4096):
            shown += chunk
    except OSError:  # the other end was closed
        pass
    assert watching.wait(timeout=60) == 0
    assert b"tokens/s" in shown and b"2 done" in shown


@pytest.mark.slow
def test_interrupting_a_sweep_saves_what_runs(lmexp: Lmexp, sweep: Callable[..., list[str]], tmp_path: Path):
    folder = tmp_path / "outputs" / "s"
    pid = json.loads(lmexp("sweep", *sweep(LONG, grid="seed: [1]"), "--detach", "--json").stdout)["pid"]
    wait(lambda: the_running(folder), "a run that has been saved")
    (run,) = the_running(folder)
    os.kill(pid, signal.SIGINT)
    wait(lambda: not has_coordinator(folder), "the coordinator's end")
    assert run.read_state().state == "cancelled" and not run.is_alive(run.read_state())

"""Without a terminal, the log of CI, of nohup or of a job shows how far the runs are."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmexp.launch import progress
from lmexp.launch.pending import enqueue
from lmexp.launch.progress import SweepProgress
from lmexp.resolve.planned import Sweep
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.state import State
from lmexp.terminal import PROGRESS_VARIABLE, Terminal
from tests.command import run_command

Print = Callable[..., list[str]]


@pytest.fixture
def sweep(small: list[str], tmp_path: Path) -> Sweep:
    sweep = resolve_sweep(None, [*small, "seed=0,1,2"], tmp_path / "outputs", name="s")
    for planned in sweep.runs:
        enqueue(planned)
    return sweep


@pytest.fixture
def lines_of(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> Print:
    """Return what is printed when the runs of the sweep are in these states and an interval has passed."""

    def lines(*states: State) -> list[str]:
        monkeypatch.setenv(PROGRESS_VARIABLE, "0.01")
        file = io.StringIO()
        shown = SweepProgress(Terminal(file=file, width=20), sweep)
        shown._looked -= 1
        running = sweep.runs[: len(states)]
        for planned, state in zip(running, states, strict=True):
            planned.run.write_state(state)
            shown.started(planned)
        shown.waiting(running)
        return file.getvalue().splitlines()

    return lines


def test_a_run_in_training_has_a_line_with_step_share_loss_speed_and_time_left(lines_of: Print, sweep: Sweep):
    speed: dict[str, Any] = {
        "measured_from": 20.0,
        "measured_share": 0.05,
        "heartbeat": 28.0,
        "tokens_per_second": 100.0,
    }
    state = State(state="running", steps=1200, tokens=1000, share=0.25, train_loss=3.21987, **speed)
    first, last = lines_of(state)
    name = sweep.runs[0].run.name
    assert first == f"{name}  step 1,200, 25%, train loss 3.220, 100 tokens/s, 30 s left"
    assert last == "0/3 runs have ended, 14.4k tokens left", "without its start, nobody knows how long others take"


def test_the_time_left_of_a_sweep_counts_the_startup_of_a_run_once_and_not_as_training(lines_of: Print):
    # 100 s of start-up, then 40 s of training, of which 8 s were watched: two more runs take 140 s each.
    speed: dict[str, Any] = {
        "started": 100.0,
        "measured_from": 202.0,
        "measured_share": 0.05,
        "heartbeat": 210.0,
        "attempts": 1,
    }
    assert lines_of(State(state="running", steps=9, share=0.25, **speed))[-1].endswith("about 5 min 10 s left")
    assert "left" not in lines_of(State(state="running", steps=9, share=0.25, **speed | {"heartbeat": 203.0}))[0]


@pytest.mark.parametrize(
    ("state", "what"),
    [
        (State(), "is starting"),
        (State(job="slurm:12_3"), "waits in its scheduler's queue as slurm:12_3"),
        (State(state="running", attempts=1), "prepares its first step"),
        (State(state="running", steps=20, share=1.0), "step 20, 100%, scores the trained model"),
    ],
)
def test_before_and_after_its_steps_the_line_of_a_run_says_what_it_does(lines_of: Print, state: State, what: str):
    assert what in lines_of(state)[0]


def test_only_some_of_many_runs_have_a_line_and_the_others_are_counted(
    lines_of: Print, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(progress, "MAX_LINES", 1)
    lines = lines_of(State(), State(), State())
    assert lines[1] == "and 2 more runs under way" and len(lines) == 3


def test_nothing_is_printed_before_the_interval_is_over(sweep: Sweep):
    file = io.StringIO()
    SweepProgress(Terminal(file=file), sweep).waiting(sweep.runs)
    assert not file.getvalue()


@pytest.mark.slow(13)
def test_without_a_terminal_a_sweep_prints_how_far_each_of_its_runs_is(small: list[str], tmp_path: Path):
    # A fifth of a second instead of 25 s. The states are written every 2 s, and the time left needs three of them.
    words = [word for word in small if not word.startswith("budget")]
    several = ["seed=0,1", "launcher.slots=2", "budget.seconds=9"]
    done = run_command(tmp_path, "train", "-m", *words, *several, LMEXP_PROGRESS_SECONDS="0.2")
    assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        training = rf"^seed{seed}-\w+  step [\d,]+, \d+%, train loss \d\.\d+, [\d.]+k? tokens/s, \d+ s left$"
        assert re.search(training, done.stderr, re.MULTILINE), done.stderr
    assert "0/2 runs have ended" in done.stderr

"""The status of a sweep says what its runs do now, not what their state files claim."""

from pathlib import Path

import pytest

from lmexp.runs.coordinators import coordinating
from lmexp.runs.directory import RunDir
from lmexp.runs.state import State
from lmexp.runs.status import seconds_left, status
from tests.report.synthetic import config


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "sweep" / "a-1", config("gpt_nano", 2, "fp32"))


def test_a_run_whose_process_is_gone_has_failed_and_the_row_says_what_to_do(run: RunDir):
    run.write_state(State(state="running", host="elsewhere", heartbeat=0.0, tokens=5, share=0.5, tokens_per_second=1.0))
    (row,) = status(run.path.parent)
    assert row["state"] == "failed" and row["reason"] == "its process is gone; run the sweep again to resume"
    assert row["tokens_per_second"] is None and row["seconds_left"] is None
    with coordinating(run.path.parent):
        (row,) = status(run.path.parent)
    assert row["reason"] == "its process is gone; it will be started again"


def test_a_run_in_training_tells_its_speed_and_the_time_that_is_left(run: RunDir):
    lock = run.lock()
    assert lock is not None
    with lock:
        measured = {"measured_from": 20.0, "measured_share": 0.05, "heartbeat": 28.0}
        run.write_state(State(state="running", share=0.25, tokens_per_second=100.0, **measured))
        (row,) = status(run.path.parent)
    assert (row["state"], row["tokens_per_second"], row["seconds_left"]) == ("running", 100.0, 30.0)


def test_a_run_that_ended_keeps_its_state_and_reason(run: RunDir):
    run.write_state(State(state="oom", reason="too large", attempts=2))
    (row,) = status(run.path.parent)
    assert (row["state"], row["reason"], row["attempts"]) == ("oom", "too large", 2)


@pytest.mark.parametrize(
    "known",
    [
        {"tokens_per_second": 100.0, "tokens": 10},
        {"measured_from": 20.0, "measured_share": 0.05},
        {"measured_from": 25.0, "measured_share": 0.05},
        {"measured_from": 20.0, "measured_share": 0.25},
    ],
    ids=["not measured", "no heartbeat since", "watched for 3 seconds", "no progress"],
)
def test_before_the_speed_of_a_run_was_watched_for_a_while_its_time_left_is_unknown(known):
    heartbeat = None if known == {"measured_from": 20.0, "measured_share": 0.05} else 28.0
    assert seconds_left(State(state="running", share=0.25, heartbeat=heartbeat, **known)) is None


def test_runs_of_one_name_have_the_keys_of_their_configs_that_differ(tmp_path: Path):
    folder = tmp_path / "train"
    configs = [config("gpt_nano", layers, "fp32", seed=seed) for layers, seed in ((2, 0), (4, 0), (4, 1))]
    for i, each in enumerate(configs):
        RunDir.create(folder / f"gpt_nano-fp32-{i}", each)
    RunDir.create(folder / "gpt_tiny-fp32-3", config("gpt_tiny", 2, "fp32", seed=5))
    differs = [row["differs"] for row in status(folder)]
    assert differs == [
        {"seed": 0, "model.n_layers": 2},
        {"seed": 0, "model.n_layers": 4},
        {"seed": 1, "model.n_layers": 4},
        {},
    ], "what follows from these, and what only another name has, is left out"

"""A run directory is made whole or not at all, is read whatever is damaged, and is trained by one process at a time."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from lmexp.errors import UserError
from lmexp.runs.directory import RunDir, runs_in
from lmexp.runs.state import STALE_SECONDS, State
from tests.report.synthetic import config, record_of

CONFIG = config("gpt_nano", 2, "fp32")
ELSEWHERE = "another-machine"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "sweep" / "a-1", CONFIG)


@pytest.fixture
def locked(run: RunDir):
    """The run, while another process holds its lock."""
    code = (
        "import sys, time, pathlib; from lmexp.runs.directory import RunDir; "
        f"lock = RunDir(pathlib.Path({str(run.path)!r})).lock(); print('locked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "locked\n"
    yield run, process
    process.kill()
    process.wait()


def test_a_new_run_is_queued_and_has_its_config(run: RunDir):
    assert run.read_config() == CONFIG
    assert run.read_state() == State()
    assert run.read_record() == [] and run.read_curve() == []


def test_a_second_creation_is_refused_and_changes_nothing(run: RunDir):
    run.update_state(state="timeout")
    with pytest.raises(FileExistsError):
        RunDir.create(run.path, config("gpt_tiny", 4, "bf16"))
    assert run.read_config() == CONFIG and run.read_state().state == "timeout"
    assert [path.name for path in run.path.parent.iterdir()] == [run.name], "no draft is left behind"


def test_what_a_killed_process_leaves_of_a_run_that_it_makes_is_used_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = []

    class Killed(BaseException): ...

    def killed(*_: object) -> None:
        raise Killed

    for step in ("write_config", "write_state"):
        with monkeypatch.context() as patched:
            patched.setattr(RunDir, step, killed)
            patched.setattr("shutil.rmtree", lambda *_, **__: None)  # nothing is tidied up after a kill
            with pytest.raises(Killed):
                RunDir.create(tmp_path / "s" / "a-1", CONFIG)
        made.append(sorted(path.name for path in (tmp_path / "s").iterdir()))
    assert made == [[".a-1.draft"]] * 2 and runs_in(tmp_path / "s") == []
    assert RunDir.create(tmp_path / "s" / "a-1", CONFIG).read_config() == CONFIG
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["a-1"]


def test_of_several_processes_that_make_a_run_one_makes_it(tmp_path: Path):
    def make(_: int) -> str:
        try:
            return RunDir.create(tmp_path / "s" / "a-1", CONFIG).name
        except FileExistsError:
            return "exists"

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(make, range(24))) == ["a-1", *["exists"] * 23]
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["a-1"]


def test_a_folder_without_a_config_is_not_a_run(tmp_path: Path):
    with pytest.raises(UserError, match="is not a run directory"):
        RunDir(tmp_path).read_config()


@pytest.mark.parametrize("content", ["model: [", "", "seed: 0\n", "\x00", "- 1\n"])
def test_an_unreadable_config_is_one_short_message(run: RunDir, content: str):
    (run.path / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=r"cannot be read as a config of schema version \d+: [^\n]+$"):
        run.read_config()


@pytest.mark.parametrize("content", ["{", "[1]", '{"state": "flying"}', '{"tokens": "many"}', '{"heartbeat": NaN}'])
def test_a_damaged_state_counts_as_queued_and_is_set_aside(run: RunDir, content: str):
    (run.path / "state.json").write_text(content)
    assert run.read_state() == State(reason="state.json could not be read")
    assert run.set_aside_damaged_state() == "state.json.damaged"
    assert (run.path / "state.json.damaged").read_text() == content
    assert run.set_aside_damaged_state() is None


def test_the_reason_of_a_state_is_read_up_to_a_length_that_tables_can_show(run: RunDir):
    run.update_state(state="failed", reason="x" * 100_000)
    assert run.read_state().reason == "x" * 2000


def test_a_state_with_fields_of_a_later_version_is_read(run: RunDir):
    state = json.loads((run.path / "state.json").read_text())
    (run.path / "state.json").write_text(json.dumps(state | {"state": "timeout", "colour": "green"}))
    assert run.read_state().state == "timeout"


@pytest.mark.parametrize("record", [None, "{", "{}", '{"rows": []}', '{"rows": [3]}', "[]"])
def test_a_run_that_is_done_without_a_readable_record_has_failed(run: RunDir, record: str | None):
    run.update_state(state="done")
    if record is not None:
        (run.path / "record.json").write_text(record)
    state = run.read_state()
    assert state.state == "failed" and state.reason and "record.json is missing or unreadable" in state.reason


def test_lines_of_the_curve_that_are_no_points_are_dropped(run: RunDir):
    run.append_point({"tokens": 1, "train_loss": 3.0})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"tokens": "two"}\n[2]\nnonsense\n{"tokens": 2, "train_loss": 2.5}\n{"tokens": 3, "tra')
    assert [point["tokens"] for point in run.read_curve()] == [1, 2]


def test_a_resumed_run_drops_the_points_that_it_writes_again(run: RunDir):
    for tokens in (1, 2, 3):
        run.append_point({"tokens": tokens})
    run.keep_curve_up_to(2)
    run.append_point({"tokens": 3})
    assert [point["tokens"] for point in run.read_curve()] == [1, 2, 3]


def test_scores_join_the_last_row_of_the_record(run: RunDir):
    rows = [record_of(CONFIG, 3.5) | {"tokens": 10}, record_of(CONFIG, 3.0) | {"tokens": 20}]
    run.write_record(rows)
    (run.path / "scores.json").write_text('{"tag": {"scores": {"span_f1": 0.5}, "details": {}}}')
    first, last = run.read_record()
    assert last["score/tag/span_f1"] == 0.5 and "score/tag/span_f1" not in first


@pytest.mark.parametrize("scores", ["{", '{"tag": 1}', '{"tag": {"scores": {"span_f1": "high"}}}'])
def test_damaged_scores_do_not_hide_the_record(run: RunDir, scores: str):
    run.write_record([record_of(CONFIG, 3.0)])
    (run.path / "scores.json").write_text(scores)
    assert [row["loss"] for row in run.read_record()] == [3.0]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"rows": []}', '{"rows": [{"loss": 1}]}', '{"rows": [{"run_id": [1]}]}']
)
def test_a_damaged_record_is_no_record(run: RunDir, content: str):
    (run.path / "record.json").write_text(content)
    assert run.read_record() == []


def test_only_one_process_has_the_lock_and_its_end_frees_it(locked):
    run, process = locked
    assert run.lock() is None and run.is_alive(State(state="running", host=socket.gethostname()))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    lock = run.lock(patience=5)
    assert lock is not None
    lock.close()
    assert not run.is_alive(State(state="running", host=socket.gethostname()))


def test_processes_that_check_a_run_do_not_take_each_other_for_its_process(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
):
    really, second = fcntl.flock, list[bool]()

    def flock(file: IO[str], operation: int) -> None:
        really(file, operation)
        monkeypatch.setattr(fcntl, "flock", really)
        second.append(run.is_alive(State(state="running")))  # as another process may, while the first has the lock

    monkeypatch.setattr(fcntl, "flock", flock)
    assert not run.is_alive(State(state="running"))
    assert second == [False]


def test_a_process_that_changes_a_waiting_run_is_not_taken_for_one_that_trains_it(run: RunDir):
    with ThreadPoolExecutor() as pool, run.idle() as state:
        assert state == State()
        alive = pool.submit(run.is_alive, state)
        time.sleep(0.1)
        assert not alive.done()
    assert not alive.result()


def test_a_run_that_ends_while_it_is_checked_is_not_lost(run: RunDir, monkeypatch: pytest.MonkeyPatch):
    run.update_state(state="running", host=socket.gethostname())
    check = RunDir.is_alive

    def ends_first(self: RunDir, state: State) -> bool:
        run.update_state(state="failed", reason="no such file")
        return check(self, state)

    monkeypatch.setattr(RunDir, "is_alive", ends_first)
    state, is_lost = run.read_lost()
    assert (state.state, state.reason, is_lost) == ("failed", "no such file", False)


def test_a_process_on_another_machine_is_alive_by_its_heartbeat(run: RunDir):
    state = State(state="running", host=ELSEWHERE, heartbeat=time.time())
    assert run.is_alive(state)
    assert not run.is_alive(replace(state, heartbeat=time.time() - STALE_SECONDS - 1))
    assert not run.is_alive(replace(state, heartbeat=time.time() + 3600)), "nobody knows the time an hour ahead"
    assert not run.is_alive(replace(state, heartbeat=None))
    assert not run.is_alive(replace(state, state="failed"))


def test_a_heartbeat_counts_by_the_clock_of_the_disk_not_of_a_machine(run: RunDir, monkeypatch: pytest.MonkeyPatch):
    written = run.now()
    monkeypatch.setattr(time, "time", lambda: written + 3600)  # this machine's clock is wrong
    assert abs(run.now() - written) < STALE_SECONDS
    assert run.is_alive(State(state="running", host=ELSEWHERE, heartbeat=written))


def test_the_state_of_a_run_in_training_is_left_alone(locked):
    run, _ = locked
    assert run.settle(state="cancelled") is None
    run.note_job("slurm:7")
    assert run.read_state() == State()


def test_a_result_is_not_overwritten_and_a_record_makes_a_run_done(run: RunDir):
    run.update_state(state="oom", reason="too large")
    settled = run.settle(state="cancelled", reason="stopped")
    assert settled is not None and (settled.state, settled.reason) == ("oom", "too large")
    run.write_state(State(state="running", pid=1))
    run.write_record([record_of(CONFIG, 3.0)])
    settled = run.settle(state="failed", reason="its process is gone")
    assert settled is not None and (settled.state, settled.reason, settled.pid) == ("done", None, None)


def test_the_first_report_of_a_failure_stays(run: RunDir):
    run.report_failure(2, "oom", "no memory")
    run.report_failure(1, "failed", "the other process is gone")
    failure = run.read_failure()
    assert failure is not None and (failure.rank, failure.outcome, failure.reason) == (2, "oom", "no memory")
    run.clear_failure(before=failure.at - 60)
    assert run.read_failure() is not None, "it is newer than that"
    run.clear_failure()
    assert run.read_failure() is None


def test_a_folder_lists_its_runs_without_drafts_and_other_folders(run: RunDir):
    (run.path.parent / ".draft").mkdir()
    (run.path.parent / ".draft" / "config.yaml").touch()
    (run.path.parent / "charts").mkdir()
    RunDir.create(run.path.parent / "a-0", CONFIG)
    assert [each.name for each in runs_in(run.path.parent)] == ["a-0", "a-1"]

"""Being asked to stop, at any moment: the state tells the truth, and the run goes on as if nothing had been."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from lmexp.runs.directory import RunDir
from lmexp.train.checkpoint import last_checkpoint
from lmexp.train.worker import main
from tests.train import disturbed
from tests.train.test_worker import TIMINGS, MakeRun, record_of

Start = Callable[..., ForkServerProcess]
DROPOUT = "model.dropout=0.1"  # draws random numbers at every step


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def results(run: RunDir) -> tuple[dict, list]:
    """What a run leaves that is not a measured time."""
    record = {name: value for name, value in record_of(run).items() if name not in TIMINGS}
    return record, [[point.get(name) for name in ("step", "loss", "train_loss", "lr")] for point in run.read_curve()]


def _enter(path: Path, what: str, step: int) -> None:
    sys.exit(disturbed.main(path, what, step=step))


@pytest.fixture
def start() -> Start:
    """Start a worker of one process to which something happens, from a server that has imported torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lmexp.train.worker", "tests.train.disturbed"])

    def start(run: RunDir, what: str, step: int = 0) -> ForkServerProcess:
        process = context.Process(target=_enter, args=(run.path, what, step))
        process.start()
        return process

    return start


def code_of(process: ForkServerProcess) -> int | None:
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize(
    "which, step, state, words",
    [
        (signal.SIGTERM, 1, "cancelled", "stopped by a signal"),
        pytest.param(signal.SIGINT, 7, "cancelled", "stopped by a signal", marks=pytest.mark.slow),
        (signal.SIGUSR2, 10, "preempted", "preempted"),
    ],
)
def test_a_signal_ends_a_run_after_its_step_and_it_goes_on_as_if_nothing_had_been(
    make_run: MakeRun, start: Start, which: int, step: int, state: str, words: str
):
    stopped, undisturbed = make_run(DROPOUT), make_run(DROPOUT, place="undisturbed")
    process = start(stopped, "wait for a signal", step)
    wait_for((stopped.path / "here").exists)
    os.kill(process.pid or 0, which)
    assert code_of(process) == 1
    told = stopped.read_state()
    assert (told.state, told.pid, told.tokens) == (state, None, 256 * step)
    assert told.reason == f"{words} after step {step}; running the sweep again continues from there"
    assert last_checkpoint(stopped).exists() and not stopped.read_record()

    assert [main(run.path) for run in (stopped, undisturbed)] == [0, 0]
    assert results(stopped) == results(undisturbed)


def test_a_second_signal_ends_it_at_once(make_run: MakeRun, start: Start):
    run = make_run()
    assert code_of(start(run, "two signals", 3)) == 1  # before the first checkpoint that is due
    state = run.read_state()
    assert state.state == "cancelled" and "at once, without another checkpoint" in (state.reason or "")
    assert not last_checkpoint(run).exists()


def test_a_signal_that_is_sent_twice_in_one_moment_is_one(make_run: MakeRun, start: Start):
    run = make_run()
    assert code_of(start(run, "one signal twice", 7)) == 1
    assert "after step 7" in (run.read_state().reason or "") and last_checkpoint(run).exists()


def test_a_signal_before_training_ends_it_at_once(make_run: MakeRun, start: Start):
    run = make_run()
    process = start(run, "wait for ever in start")
    wait_for((run.path / "here").exists)
    os.kill(process.pid or 0, signal.SIGTERM)
    assert code_of(process) == 1
    assert (run.read_state().state, run.read_state().reason) == ("cancelled", "stopped by a signal before training")
    assert main(run.path) == 0


def test_a_signal_while_torch_is_imported_is_not_lost(make_run: MakeRun):
    run = make_run()
    process = subprocess.Popen([sys.executable, "-m", "lmexp.worker", str(run.path)], stdout=subprocess.PIPE)
    caught = Path(f"/proc/{process.pid}/status")
    wait_for(lambda: int(caught.read_text().split("SigCgt:")[1].split()[0], 16) >> (signal.SIGUSR2 - 1) & 1)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(60) == 1
    assert (run.read_state().state, run.read_state().reason) == ("preempted", "preempted before training")


@pytest.mark.parametrize("what", ["a signal", "a signal in finish", "two signals in end"])
def test_a_run_that_is_at_its_end_is_done_in_spite_of_signals(make_run: MakeRun, start: Start, what: str):
    run = make_run()
    assert code_of(start(run, what, step=20)) == 0
    assert (run.read_state().state, run.read_state().reason) == ("done", None)
    assert record_of(run)["tokens"] == 5120
    assert main(run.path) == 0 and run.read_state().attempts == 1


def torchrun(run: RunDir, what: str, rank: int = 0, step: int = 0) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["--signals-to-handle=SIGTERM,SIGINT,SIGUSR2", str(Path(disturbed.__file__))]
    with run.log.open("ab") as log:
        return subprocess.Popen(
            [*command, str(run.path), what, str(rank), str(step)],
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        )


@pytest.mark.slow(70)
@pytest.mark.parametrize("way", ["by torchrun", "to one process"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_several_processes_stop_at_the_same_step_and_go_on(make_run: MakeRun, way: str, strategy: str):
    words = [DROPOUT, "trainer.devices=2", f"trainer.strategy={strategy}", "trainer.accelerator=cpu"]
    stopped, undisturbed = make_run(*words), make_run(*words, place="undisturbed")
    outcome = "preempted" if way == "by torchrun" else "cancelled"
    process = torchrun(stopped, "wait for a signal" if way == "by torchrun" else "a signal", rank=1, step=7)
    if way == "by torchrun":
        wait_for((stopped.path / "here").exists)
        process.send_signal(signal.SIGUSR2)
    assert process.wait(60) != 0
    told = stopped.read_state()
    assert told.state == outcome and "after step 10;" in (told.reason or ""), stopped.log.read_text()
    assert torchrun(stopped, "a signal", step=99).wait(60) == 0, stopped.log.read_text()
    assert "resuming after step 10" in stopped.log.read_text()
    assert torchrun(undisturbed, "a signal", step=99).wait(60) == 0
    assert results(stopped) == results(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["error", "error in start"])
def test_an_error_of_one_process_is_the_reason_of_the_run(make_run: MakeRun, what: str):
    run = make_run("trainer.devices=2", "trainer.accelerator=cpu")
    assert torchrun(run, what, rank=1, step=7).wait(60) == 1
    state = run.read_state()
    assert (state.state, state.reason) == ("failed", "process 1: ValueError: it had to be"), run.log.read_text()
    failure = run.read_failure()
    assert failure is not None and (failure.rank, failure.outcome) == (1, "failed")


@pytest.mark.slow
def test_what_an_earlier_attempt_failed_of_is_not_held_against_the_next(make_run: MakeRun):
    run = make_run("trainer.devices=2", "trainer.accelerator=cpu")
    run.report_failure(1, "oom", "of an earlier attempt")
    assert torchrun(run, "a signal", step=99).wait(60) == 0, run.log.read_text()
    assert run.read_state().state == "done" and run.read_failure() is None


@pytest.mark.slow
def test_a_process_that_is_gone_without_a_word_leaves_the_state_as_it_is(make_run: MakeRun):
    run = make_run("trainer.devices=2", "trainer.accelerator=cpu")
    assert torchrun(run, "kill", rank=1, step=7).wait(60) == 1
    state = run.read_state()
    assert state.state == "running" and not run.is_alive(state) and run.read_failure() is None
    assert "is gone and has left no reason" in run.log.read_text()


def test_the_first_report_of_a_failure_stands_until_it_is_cleared(make_run: MakeRun):
    run = make_run()
    run.clear_failure()
    assert run.read_failure() is None
    run.report_failure(3, "oom", "first")
    run.report_failure(1, "failed", "second")
    failure = run.read_failure()
    assert failure is not None and (failure.rank, failure.outcome, failure.reason) == (3, "oom", "first")
    run.clear_failure(before=failure.at - 10)
    assert run.read_failure() == failure
    run.clear_failure()
    assert run.read_failure() is None and not list(run.path.glob(".failure*"))

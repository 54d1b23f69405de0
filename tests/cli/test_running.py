"""What a sweep that stops half-way says, and with which code it exits."""

import errno
import importlib
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

import lmexp.study.plan
import lmexp.study.report
import lmexp.study.run
from lmexp.cli.reporting import show_report
from lmexp.cli.running import end_with_failures, run_and_report
from lmexp.errors import UserError
from lmexp.launch.policy import Policy
from lmexp.messages import MAX_LINES
from lmexp.study.run import RunResult, SweepResult
from tests.command import start_process
from tests.report.synthetic import write_study

FULL = OSError(errno.ENOSPC, "No space left on device", "outputs/s/state.json")


@pytest.mark.parametrize("problem", [FULL, UserError("none of the 3 trials could be run")])
def test_a_fault_after_the_first_start_exits_with_1_and_one_before_it_with_2(
    problem: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Exit code 2 means that nothing was started."""
    starts: list[SimpleNamespace] = []

    def run(resolved: object, policy: object, listener, say: object) -> None:
        for planned in starts:
            listener.started(planned)
        raise problem

    monkeypatch.setattr(lmexp.study.run, "run_resolved", run)
    monkeypatch.setattr(lmexp.study.plan, "plan_resolved", lambda _: SimpleNamespace(notices=[], sentence="a plan"))
    sweep = SimpleNamespace(runs=[], search=None)
    with pytest.raises(type(problem)):  # main() prints it, and exits with 2
        run_and_report(sweep, Policy(), as_json=False)
    starts.append(SimpleNamespace(run=SimpleNamespace(name="a")))
    with pytest.raises(typer.Exit) as ended:
        run_and_report(sweep, Policy(), as_json=False)
    said = capsys.readouterr().err
    assert ended.value.exit_code == 1
    assert "error: No" in said or "error: none of" in said
    assert "the sweep has stopped, and the same command resumes it" in said


def test_of_many_runs_that_failed_a_few_are_named(capsys: pytest.CaptureFixture[str]):
    n = MAX_LINES + 4
    runs = tuple(
        RunResult(f"a-{seed}", Path(f"a-{seed}"), "failed", "no", {}, (), True, {"causal_lm/mine": "it fails"})
        for seed in range(n)
    )
    with pytest.raises(typer.Exit):
        end_with_failures(SweepResult("s", (), runs, (), ()))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 * (MAX_LINES + 1)
    assert said[MAX_LINES] == "and 4 more; scores.json in the directory of each run has its reasons"
    assert said[-1] == "and 4 more; `lmexp status s` shows all"


def test_a_report_whose_files_cannot_be_written_is_still_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def write(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "outputs/demo/report.html")

    monkeypatch.setattr(lmexp.study.report, "write_report_files", write)
    folder = write_study(tmp_path, points=8)
    show_report([folder])
    printed = capsys.readouterr()
    assert "gpt_tiny" in printed.out and "report:" not in printed.out
    assert "warning: the report's files could not be written: Read-only file system" in printed.err
    show_report([folder], as_json=True)
    assert json.loads(capsys.readouterr().out)["report"] is None


def _command(folder: Path) -> None:
    """Be a command that takes long, and leaves word of how it was stopped."""

    def verb() -> None:
        try:
            (folder / "started").touch()
            time.sleep(60)
        except KeyboardInterrupt:
            (folder / "interrupted").touch()

    cli = importlib.import_module("lmexp.cli.app")
    cli.app = verb
    cli.main()


def test_sigterm_stops_a_command_as_ctrl_c_does(tmp_path: Path):
    """So it says what it leaves, and ends what it has started."""
    process = start_process(_command, tmp_path)
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join()
    assert (tmp_path / "interrupted").exists()

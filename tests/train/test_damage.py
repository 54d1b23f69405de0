"""What is broken, or was never written out: it is noticed, said, and costs no more than it must."""

import os
from pathlib import Path

import pytest

from lmexp.analysis.findings import findings
from lmexp.analysis.table import load_study
from lmexp.runs.directory import RunDir
from lmexp.runs.origin import code_version
from lmexp.runs.state import State
from lmexp.train import run as train_run
from lmexp.train.curve import Curve
from lmexp.train.worker import main
from tests.train.test_checkpoint import stop_after
from tests.train.test_stopping import results
from tests.train.test_worker import MakeRun

DIVERGES = ["optim=sgd", "optim.lr=3", "optim.grad_clip=null", "schedule=constant", "trainer.log_every=1"]
"""Its loss is too high from the second of 20 steps on, and stays a number."""


def test_a_curve_of_rubbish_is_written_anew(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    run, other = make_run(), make_run(place="undisturbed")
    stop_after(monkeypatch, run, 7)
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b'\x00\xff\x00\n{"step": 9, "tok')
    assert [main(run.path), main(other.path)] == [0, 0]
    assert results(run) == results(other)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"state": "asleep"}', "\x00\x00"])
def test_a_state_that_is_none_is_set_aside_and_said(make_run: MakeRun, capsys: pytest.CaptureFixture, content: str):
    run = make_run()
    assert run.set_aside_damaged_state() is None
    (run.path / "state.json").write_text(content)
    assert main(run.path) == 0
    assert capsys.readouterr().out.count("state.json could not be read; set aside as state.json.damaged\n") == 1
    assert (run.path / "state.json.damaged").read_text() == content
    assert (run.read_state().state, run.read_state().attempts) == ("done", 1)


def test_a_loss_that_stays_high_is_a_result_wherever_the_run_was_stopped(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
):
    words = [*DIVERGES, "divergence.share=0.15"]
    run, stopped = make_run(*words), make_run(*words, place="stopped")
    assert main(run.path) == 1
    state = run.read_state()
    assert state.state == "diverged" and not run.read_record()
    assert (state.reason or "").startswith("the training loss has been above 1.5 times its first value (")
    losses = [point["train_loss"] for point in run.read_curve() if "train_loss" in point]
    assert (state.reason or "").endswith(f"({losses[-1]:.4g} > 1.5 x {losses[0]:.4g}) for 15 % of the budget")
    high = [step for step, loss in enumerate(losses, 1) if loss > 1.5 * losses[0]]
    assert high == [len(losses) - 3, len(losses) - 2, len(losses) - 1, len(losses)] and high[0] < 4 < high[-1]

    stop_after(monkeypatch, stopped, 4)
    assert main(stopped.path) == 1
    assert stopped.read_state().reason == state.reason


@pytest.mark.parametrize("word", ["divergence.multiple=null", "divergence.multiple=1e9", "divergence.share=1"])
def test_a_loss_that_may_be_high_is_not(make_run: MakeRun, word: str):
    run = make_run(*DIVERGES, word, "budget.tokens=1280", "evaluation.every=1")
    assert main(run.path) == 0, run.read_state().reason


def test_a_loss_that_comes_down_again_in_time_has_not_diverged(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    # Too high for three steps of four at a time, where six in a row are too many.
    def high(self: Curve, loss: float) -> None:
        check(self, 1.0 if self.progress.steps % 4 == 1 else 9.0)

    check = Curve._check_height
    monkeypatch.setattr(Curve, "_check_height", high)
    run = make_run("trainer.log_every=1", "divergence.share=0.25")
    assert main(run.path) == 0, run.read_state().reason
    run = make_run("trainer.log_every=1", "divergence.share=0.1", place="less")
    assert main(run.path) == 1 and run.read_state().state == "diverged"


def test_what_a_later_file_relies_on_is_on_the_disk_before_it(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    happened: list[str] = []
    flush, rename, append = os.fsync, Path.replace, RunDir.append_point

    def flushed(handle: int) -> None:
        happened.append(f"flush {Path(f'/proc/self/fd/{handle}').readlink().name}")
        flush(handle)

    def renamed(self: Path, target: Path) -> Path:
        happened.append(f"rename {Path(target).name}")
        return rename(self, target)

    def appended(self: RunDir, point: dict) -> None:
        happened.append("append")
        append(self, point)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(RunDir, "append_point", appended)
    run = make_run("checkpoint.every=0.5")
    assert main(run.path) == 0
    at = happened.index("rename last.ckpt")
    assert {"flush last.draft", "flush metrics.jsonl"} <= set(happened[:at])
    assert "append" not in happened[happened.index("flush metrics.jsonl") : at]
    assert "flush checkpoints" in happened[at : at + 2]
    at = happened.index("rename record.json")
    for name in ("model.safetensors", "config.yaml", "tokenizer.json", "final", "checkpoints"):
        assert f"flush {name}" in happened[happened.index("rename last.ckpt") : at], name
    assert happened[at + 1] == f"flush {run.name}"


def test_the_state_says_how_fast_a_run_is(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    told: list[State] = []
    write = RunDir.write_state
    monkeypatch.setattr(RunDir, "write_state", lambda self, state: (told.append(state), write(self, state))[1])
    run = make_run()
    assert main(run.path) == 0
    assert told[0].tokens_per_second is None and (run.read_state().tokens_per_second or 0) > 0


def test_a_run_that_goes_on_under_other_code_says_so_and_its_record_names_both(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run = make_run()
    stop_after(monkeypatch, run, 8)
    before = code_version()
    assert run.read_state().code == before
    with monkeypatch.context() as patch:
        patch.setattr(train_run, "code_version", lambda: "source@0123456789ab")
        stop_after(patch, run, 12)
    assert "other code or packages trained the first 8 steps" in capsys.readouterr().out
    stop_after(monkeypatch, run, 13)
    assert "other code or packages trained the first 12 steps" in capsys.readouterr().out
    assert main(run.path) == 0
    assert "other code or packages" not in capsys.readouterr().out
    (row,) = run.read_record()
    assert row["trained_by"] == f"{before} then source@0123456789ab then {before}"
    told = f"Resumed under other code or packages than at the start: {row['slug']}."
    assert any(sentence.startswith(told) for sentence in findings(load_study([run.path.parent])).sentences)

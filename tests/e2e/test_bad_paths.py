"""Paths and names that lead nowhere good, as a user meets them: one message with the reason, exit code 2.

All of them are given to one process, one after the other: most of a command's time is its start.
"""

import io
import os
import sys
from pathlib import Path

import pytest

from lmexp.cli import main

PREPARE = ["prepare", "tokenizer=byte", "data=text"]
NO_USER = "there is no user 'nosuchuser' on this machine"
WRONG: list[tuple[list[str], str]] = [
    ([*PREPARE, "data.path=loop"], "loop: Too many levels of symbolic links"),
    ([*PREPARE, "data.path=fifo.txt"], "fifo.txt: it is a FIFO; a regular file is needed"),
    ([*PREPARE, "data.path=zero.txt"], "zero.txt: it is a device; a regular file is needed"),
    ([*PREPARE, "data.path=~nosuchuser/x"], NO_USER),
    ([*PREPARE, "data.path=a\udcffb"], r"data.path='a\udcffb': it holds a character that no file can hold"),
    ([*PREPARE, "data.path=t.txt", "data.clean.stop_words=~nosuchuser/x"], NO_USER),
    ([*PREPARE, "data.path=t.txt", "tokenizer=hf", "tokenizer.name=~nosuchuser/x"], NO_USER),
    (["prepare", "tokenizer=byte", "data=jsonl", "data.path=deep.jsonl"], "deep.jsonl:1: not valid JSON"),
    (["plan", "loop.yaml"], "loop.yaml: Too many levels of symbolic links"),
    (["plan", "sweeps/folder.yaml"], "sweeps/folder.yaml: it is a folder; a file is needed"),
    (["plan", "demo", "--config-dir", "loop"], "--config-dir loop: there is no folder"),
    (["plan", "number"], "sweeps/number.yaml:1: sweep.grid=3: input should be a valid dictionary"),
    (["plan", "list"], "sweeps/list.yaml: ConfigTypeError raised while composing config"),
    (["plan", "defaults"], "sweeps/defaults.yaml: Invalid defaults list, defaults must be a list"),
    (["plan", "null"], r"sweeps/null.yaml:2: data.path='a\x00b': it holds a character that no file can hold"),
    (["plan", "demo", "sweep.grid={model:3}"], "error: sweep.grid.model=3: input should be a valid list"),
    (["fit", "fifo.txt"], "fifo.txt: it is a FIFO"),
    (["fit", "zero.txt"], "zero.txt: it is a device"),
    (["import", "~nosuchuser/x"], NO_USER),
    (["eval", "x", "--limit", "3"], "--limit is for tasks of lm-eval: name them with --lm-eval"),
    (["eval", "x", "--tasks-dir", "."], "--tasks-dir is for tasks of lm-eval"),
    (["eval", "x", "--lm-eval", "a", "--as", "b"], "--as has no effect with --lm-eval"),
    (["generate", "hf:~nosuchuser/x"], NO_USER),
    (["report", "a\udcffb"], "there is no sweep in"),
    (["score", "x", "--file", "~nosuchuser/x"], NO_USER),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with things that are no files, and configs that are none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMEXP_OUTPUTS", str(tmp_path / "outputs"))
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "sweeps" / "folder.yaml").mkdir(parents=True)
    (tmp_path / "t.txt").write_text("one two\n" * 400)
    (tmp_path / "deep.jsonl").write_text('{"text": ' + "[" * 50_000)
    os.mkfifo(tmp_path / "fifo.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    for loop in ("loop", "loop.yaml"):
        (tmp_path / loop).symlink_to(loop)
    data = "defaults: [{override /data: text}, _self_]\n"
    for name, text in {
        "number": "sweep: {grid: 3}",
        "list": "sweep: {exclude: 3, grid: [1]}",
        "defaults": "defaults: 3\nsweep: {seeds: 1}",
        "path": data + "data: {path: t.txt}\nsweep: {seeds: 1}",
        "null": data + 'data: {path: "a\\0b"}\nsweep: {seeds: 1}',
    }.items():
        (tmp_path / "sweeps" / f"{name}.yaml").write_text(text)
    (tmp_path / "conf" / "model" / "broken.yaml").write_text("a: [1\n")
    for lock in ("sweeps/.#number.yaml", "conf/model/.#broken.yaml"):  # as an editor leaves it
        (tmp_path / lock).symlink_to("me@here.1234")
    return tmp_path


def run_main(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> tuple[object, str, str]:
    """Run a command in this process; return its exit code, and what it printed on both streams."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    with monkeypatch.context() as patched:
        patched.setattr(sys, "argv", ["lmexp", *words])
        patched.setattr(sys, "stdout", streams[0])
        patched.setattr(sys, "stderr", streams[1])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = [(stream.flush(), stream.buffer.getvalue().decode())[1] for stream in streams]  # type: ignore[func-returns-value, attr-defined]
    return ended.value.code, *printed


def test_whatever_a_path_leads_to_there_is_one_message_and_nothing_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    for words, said in WRONG:
        code, _, printed = run_main(monkeypatch, words)
        message = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert (code, len(message)) == (2, 1), (words, printed)
        assert said in message[0] and "Traceback" not in printed, (words, printed)


def test_a_folder_whose_name_is_not_utf_8_is_said_wherever_a_config_would_hold_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    odd = folder / "a\udcffb"
    odd.mkdir()
    monkeypatch.chdir(odd)
    Path("t.txt").write_text("one two\n" * 400)
    Path("config.json").write_text("{}")
    for words in (["plan", str(folder / "sweeps" / "path.yaml"), "tokenizer=byte"], ["import", "."]):
        code, _, printed = run_main(monkeypatch, words)
        assert code == 2 and "this path is not UTF-8" in printed, (words, printed)


def test_lists_pass_over_what_is_no_file_and_show_the_rest(folder: Path, monkeypatch: pytest.MonkeyPatch):
    code, sweeps, _ = run_main(monkeypatch, ["list", "sweeps"])
    assert code == 0 and "number" in sweeps and "folder" not in sweeps and ".#number" not in sweeps
    code, models, _ = run_main(monkeypatch, ["list", "models"])
    assert code == 0 and "gpt_nano" in models and "broken" in models and ".#broken" not in models


def test_what_lmexp_did_not_expect_is_one_line_and_exit_code_1(monkeypatch: pytest.MonkeyPatch):
    class Panic(BaseException):
        """As a library in Rust raises it."""

    for problem, said in ((Panic("slice"), "Panic: slice"), (RecursionError("deep"), "RecursionError: deep")):

        def fail(*_: object, problem: BaseException = problem) -> None:
            raise problem

        monkeypatch.setattr("lmexp.config.paths.search_roots", fail)
        code, _, printed = run_main(monkeypatch, ["list", "models"])
        assert code == 1 and f"error: lmexp did not expect this: {said}. The same command with --debug" in printed

"""The one door to the terminal: any text is printed as text, in any encoding, to a reader that may have gone."""

import io
import json
import os
import sys
import time
from collections.abc import Callable

import pytest
from rich.live import Live
from rich.text import Text

from lmexp.cli import main
from lmexp.cli.app import out
from lmexp.errors import UserError
from lmexp.report.terminal.layout import small_table
from lmexp.terminal import PROGRESS_VARIABLE, Terminal, progress_seconds, reminders

HOSTILE = "[bold]x[/bold] bad.csv:100: \x1b[31mred\x1b]0;t\x07 \r\x9b1A \u202egnp \udcff end"


def printed(show: Callable[[Terminal], object], encoding: str = "utf-8", **options: object) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    show(Terminal(file=file, width=200, **options))
    file.flush()
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


WAYS: dict[str, Callable[[Terminal], object]] = {
    "a line": lambda terminal: terminal.print_line(HOSTILE),
    "a piece": lambda terminal: terminal.print_piece(HOSTILE),
    "rich's own way": lambda terminal: terminal.print(HOSTILE),
    "styled text": lambda terminal: terminal.print(Text(HOSTILE, style="bold")),
    "a table": lambda terminal: terminal.print(small_table((HOSTILE,), [(HOSTILE,)])),
    "a live line": lambda terminal: Live(HOSTILE, console=terminal, auto_refresh=False).__enter__().stop(),
}


@pytest.mark.parametrize("way", WAYS)
def test_text_from_anywhere_does_nothing_to_the_terminal(way: str):
    for encoding in ("utf-8", "ascii", "latin-1", "cp1252", "gb18030"):
        text = printed(WAYS[way], encoding)
        assert "[bold]x[/bold] bad.csv:100: " in text and "end" in text
        assert not any(letter in text for letter in "\x1b\x07\r\x9b\u202e\udcff")


def test_a_line_keeps_its_tabs_and_letters_and_is_not_wrapped():
    line = "a\tb\u3000c\u00a0d\u200de " + "long " * 100 + "数据 é"
    assert printed(lambda terminal: terminal.print_line(line)) == line + "\n"
    assert printed(lambda terminal: terminal.print_line("é – 数 …"), "ascii") == "? - ? ...\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_json_document_reads_back_as_it_was(encoding: str):
    document = {"text": HOSTILE + "\t\n数据 é \U0001f600"}
    text = printed(lambda terminal: terminal.print_document(document), encoding)
    assert json.loads(text) == document and "\x1b" not in text and "\x9b" not in text


class Gone(io.StringIO):
    """A file whose reader has gone."""

    def write(self, text: str) -> int:
        """Fail as a pipe does."""
        raise BrokenPipeError


def test_a_reader_that_has_gone_ends_a_result_and_silences_what_is_said_beside_it():
    said = Terminal(file=Gone(), stderr=True)
    said.print_line("one")
    said.print("two")
    for show in (Terminal.print_line, Terminal.print, Terminal.print_document):
        with pytest.raises(BrokenPipeError):
            show(Terminal(file=Gone()), "one")


def run_main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    """Run the command line in this process, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["lmexp", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_a_command_whose_reader_has_gone_exits_well_and_silently(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for words in (["list", "models"], ["list", "models", "--json"], ["list", "sweeps"]):
        read, write = os.pipe()
        os.close(read)
        with monkeypatch.context() as patched, open(write, "w") as pipe:  # noqa: PTH123
            patched.setattr(sys, "stdout", pipe)
            patched.setattr(out, "quiet", False)  # which a broken pipe sets, for all tests that follow
            assert run_main(patched, *words) == 0
    assert capsys.readouterr().err == ""


def test_a_command_prints_what_the_encoding_lacks_in_another_way(monkeypatch: pytest.MonkeyPatch):
    for words in (["list", "papers"], ["list", "sweeps", "--json"], ["plan", "--help"]):
        output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", output)
            assert run_main(patched, *words) in (0, 2)


def test_a_terminal_of_zero_columns_is_one_whose_width_is_unknown(monkeypatch: pytest.MonkeyPatch):
    """rich printed nothing at all."""
    monkeypatch.setenv("COLUMNS", "0")
    monkeypatch.setenv("LINES", "0")
    file = io.StringIO()
    Terminal(file=file).print("a line of a table")
    assert file.getvalue() == "a line of a table\n"


def wait_for(line: str, file: io.StringIO) -> None:
    deadline = time.monotonic() + 30
    while line not in file.getvalue():
        assert time.monotonic() < deadline, file.getvalue()
        time.sleep(0.005)


def test_work_that_is_silent_without_a_terminal_says_that_it_goes_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(PROGRESS_VARIABLE, "0.01")
    file = io.StringIO()
    with reminders(Terminal(file=file)):
        wait_for("still at work; nothing new for 0 s\n", file)
    said = file.getvalue()
    time.sleep(0.05)
    assert file.getvalue() == said, "the work has ended"


def test_work_that_prints_is_not_silent_and_a_terminal_gets_no_reminders(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(PROGRESS_VARIABLE, "3600")
    file = io.StringIO()
    with reminders(Terminal(file=file)):
        time.sleep(0.02)
    assert not file.getvalue()
    monkeypatch.setenv(PROGRESS_VARIABLE, "0.01")
    with reminders(Terminal(file=file, force_terminal=True)):
        time.sleep(0.05)
    assert not file.getvalue()


def test_the_interval_is_25_seconds_unless_the_environment_says_another_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(PROGRESS_VARIABLE, raising=False)
    assert progress_seconds() == 25
    monkeypatch.setenv(PROGRESS_VARIABLE, "600")
    assert progress_seconds() == 600
    for wrong in ("often", "0", "-1", "nan", "inf"):
        monkeypatch.setenv(PROGRESS_VARIABLE, wrong)
        with pytest.raises(UserError, match=f"LMEXP_PROGRESS_SECONDS={wrong}"):
            progress_seconds()

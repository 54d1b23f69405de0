"""A log is read whole lines at a time, from its end or as it grows."""

from pathlib import Path

import pytest

from lmexp.runs import log
from lmexp.runs.log import further_lines, last_lines


def test_the_last_lines_are_whole_ones(tmp_path: Path):
    file = tmp_path / "log.txt"
    file.write_text("one\ntwo\nthree\nfo")
    assert last_lines(file, 2) == (["two", "three"], len("one\ntwo\nthree\n"))
    assert last_lines(file, 0) == ([], len("one\ntwo\nthree\n"))


def test_a_run_that_has_printed_nothing_has_no_lines(tmp_path: Path):
    assert last_lines(tmp_path / "log.txt", 5) == ([], 0)
    assert list(further_lines(tmp_path / "log.txt", 0, lambda: True)) == []


def test_bytes_that_are_no_text_do_not_stop_the_reader(tmp_path: Path):
    file = tmp_path / "log.txt"
    file.write_bytes(b"caf\xe9\n")
    assert last_lines(file, 1)[0] == ["caf\N{REPLACEMENT CHARACTER}"]


def test_a_progress_bar_is_one_line_its_last_state_and_no_character_but_a_line_feed_ends_one(tmp_path: Path):
    file = tmp_path / "log.txt"
    file.write_bytes("10 %\r 50 %\r100 %\r\na\u2028b\x0cc\n".encode())
    assert last_lines(file, 9)[0] == ["100 %", "a\u2028b\x0cc"]
    assert list(further_lines(file, 0, lambda: True)) == ["100 %", "a\u2028b\x0cc"]


def test_lines_follow_as_they_are_printed_up_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(log, "LOOK_SECONDS", 0.0)
    file = tmp_path / "log.txt"
    file.write_text("seen\n")
    pieces = iter(["first\nsec", "ond\n", "last, without an end"])

    def ended() -> bool:
        """Print one piece more; the run has ended when there is none."""
        piece = next(pieces, None)
        if piece is None:
            return True
        with file.open("a") as printing:
            printing.write(piece)
        return False

    assert list(further_lines(file, len("seen\n"), ended)) == ["first", "second", "last, without an end"]

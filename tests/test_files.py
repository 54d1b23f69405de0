"""Which files of a folder a person put there."""

import pytest

from lmexp.files import is_leftover, lines_of, visible_files


@pytest.mark.parametrize("name", [".a", "._a.txt", "__MACOSX", "a.txt~", "#a.txt#", "~$a.csv", ".ipynb_checkpoints"])
def test_what_programs_leave_is_told_by_its_name(name):
    assert is_leftover(name)


@pytest.mark.parametrize("name", ["a.txt", "__init__.py", "#1.txt", "~a.txt", "a..txt", "\u5b66.txt"])
def test_what_people_name_is_not(name):
    assert not is_leftover(name)


def test_the_weights_of_a_folder_are_not_what_macos_puts_beside_them(tmp_path):
    for name in ("b.safetensors", "a.safetensors", "._a.safetensors"):
        (tmp_path / name).touch()
    assert [file.name for file in visible_files(tmp_path, "*.safetensors")] == ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("\n", [""]),
        ("a", ["a"]),
        ("a\r\n\nb\r", ["a", "", "b"]),
        ("a\u2028b\x0cc\x85d\x1ce\x0bf\n", ["a\u2028b\x0cc\x85d\x1ce\x0bf"]),
        ("a\rb\n", ["a\rb"]),
    ],
)
def test_a_line_feed_ends_a_line_and_nothing_else_does(text, lines):
    assert lines_of(text) == lines

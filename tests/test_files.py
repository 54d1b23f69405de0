"""Which files of a folder a person put there, and what is said of one that cannot be written."""

from pathlib import Path

import pytest

from lmexp.files import is_leftover, lines_of, visible_files, write_atomically, write_new


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


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nobody can make files")
def test_a_folder_that_takes_no_files_is_named_and_not_a_file_that_nobody_knows():
    for write in (write_atomically, write_new):
        with pytest.raises(OSError) as raised:
            write(Path("/proc/self/mine.yaml"), "text")
        assert raised.value.filename == "/proc/self"


def test_a_target_that_cannot_be_replaced_is_named(tmp_path):
    (tmp_path / "mine.yaml").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        write_atomically(tmp_path / "mine.yaml", "text")
    assert str(raised.value).endswith(f"'{tmp_path / 'mine.yaml'}'") and "->" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]

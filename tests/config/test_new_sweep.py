"""A new sweep is a copy that composes as it is, with comments, and overwrites nothing."""

from pathlib import Path

import pytest

from lmexp.config.compose import Composer
from lmexp.config.new_sweep import new_sweep
from lmexp.config.paths import first_comment, search_roots, shipped_root, sweep_files
from lmexp.errors import UserError

SHIPPED = sweep_files([shipped_root()])


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("source", ["demo", "translation", "search", "tinyshakespeare", "papers/markov"])
def test_a_copy_has_the_cells_and_the_comments_of_its_source(source: str):
    written = new_sweep("mine", source)
    assert written == Path("sweeps/mine.yaml")
    roots = search_roots()
    ours = Composer(roots, sweep_files(roots)["mine"])
    assert ours.sweep_spec() == Composer(roots, SHIPPED[source]).sweep_spec()
    assert first_comment(written) == first_comment(SHIPPED[source])
    text = written.read_text()
    assert "lmexp plan mine" in text and "sweep.question" not in text.splitlines()[0]
    comments = [line for line in SHIPPED["tinyshakespeare"].read_text().splitlines() if "#" in line]
    assert source != "tinyshakespeare" or all(line in text for line in comments)


def test_every_shipped_sweep_can_be_copied():
    for number, source in enumerate(SHIPPED):
        assert "paper:" not in new_sweep(f"copy{number}", source).read_text().splitlines()


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("demo", "demo", "there is a sweep 'demo' already"),
        ("mine", "dmeo", "Did you mean 'demo'.*lmexp list sweeps"),
        ("../mine", "demo", "no name for a sweep"),
        ("", "demo", "no name for a sweep"),
    ],
)
def test_what_cannot_be_written_is_one_message(name: str, source: str, message: str):
    with pytest.raises(UserError, match=message):
        new_sweep(name, source)
    assert not list(Path().rglob("*.yaml"))


def test_a_source_that_is_not_utf_8_is_one_message():
    Path("sweeps").mkdir()
    Path("sweeps/bad.yaml").write_bytes(b"# bad\nmodel: \xff")
    with pytest.raises(UserError, match=r"sweeps/bad.yaml: not UTF-8 at byte 13"):
        new_sweep("mine", "bad")
    assert not Path("sweeps/mine.yaml").exists()


def test_a_file_that_is_there_stays_as_it_is():
    written = new_sweep("mine", "demo")
    written.write_text("# my own\n")
    with pytest.raises(UserError, match="choose another name"):
        new_sweep("mine", "demo")
    assert written.read_text() == "# my own\n" and [file.name for file in Path("sweeps").iterdir()] == ["mine.yaml"]

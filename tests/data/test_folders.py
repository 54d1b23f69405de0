"""The folder of a store: made once, whole or not at all, and only from the data that its name stands for."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmexp.config.data import OutsideData
from lmexp.config.tokenizers import ByteTokenizerConfig
from lmexp.config.trust import trusting
from lmexp.data.folders import made_once
from lmexp.data.sources import with_fingerprints
from lmexp.errors import UserError

BYTE = (ByteTokenizerConfig(kind="byte"),)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OutsideData]:
    """A source whose texts stand in a file beside it."""
    (tmp_path / "told.txt").write_text("a text")
    (tmp_path / "teller.py").write_text(
        f"from pathlib import Path\ndef tell(): return [Path('{tmp_path}/told.txt').read_text()]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("teller", None)  # of the test before
    with trusting(["teller"]):
        yield OutsideData(target="teller.tell")


def test_a_folder_is_written_once_and_what_a_killed_process_left_is_removed(data: OutsideData, tmp_path: Path):
    written: list[Path] = []

    def write(config: object, tokenizers: object, folder: Path) -> None:
        written.append(folder)
        (folder / "manifest.json").write_text("{}")

    first = made_once(data, BYTE, 1, tmp_path / "stores", write)
    left = first.with_name(f".{first.name}.killed.tmp")
    left.mkdir()
    assert made_once(data, BYTE, 1, tmp_path / "stores", write) == first and len(written) == 1
    assert made_once(data, BYTE, 2, tmp_path / "stores", write) != first and len(written) == 2
    (first / "manifest.json").unlink()
    first.rmdir()
    assert made_once(data, BYTE, 1, tmp_path / "stores", write) == first and not left.exists()


def test_a_folder_that_cannot_be_filled_is_not_there(data: OutsideData, tmp_path: Path):
    def fail(config: object, tokenizers: object, folder: Path) -> None:
        (folder / "half").touch()
        raise UserError("the text ended")

    with pytest.raises(UserError, match="the text ended"):
        made_once(data, BYTE, 1, tmp_path / "stores", fail)
    assert [path for path in (tmp_path / "stores").iterdir() if path.is_dir()] == []


def test_data_that_has_changed_since_it_was_named_is_refused_with_its_source(data: OutsideData, tmp_path: Path):
    named = with_fingerprints(data)
    (tmp_path / "told.txt").write_text("another text")
    with pytest.raises(UserError, match=r"the data has changed since.*teller\.tell must yield the same each time"):
        made_once(named, BYTE, 1, tmp_path / "stores", lambda *given: None)

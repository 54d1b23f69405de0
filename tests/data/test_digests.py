"""A large file is hashed once, and again whenever it may have changed."""

import os
from pathlib import Path

import pytest

from lmexp.data import digests
from lmexp.data.digests import FILE, kept_in
from lmexp.files import digest_of


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read, if none is too small or too new to be kept."""
    read: list[Path] = []
    monkeypatch.setattr(digests, "MIN_KEPT", 0)
    monkeypatch.setattr(digests, "MIN_AGE_NS", -(10**12))
    monkeypatch.setattr(digests, "digest_of", lambda file: read.append(file) or digest_of(file))
    return read


def test_a_file_is_read_once_and_again_after_a_change(tmp_path, read):
    file, link = tmp_path / "a.txt", tmp_path / "b.txt"
    file.write_text("one")
    link.symlink_to(file)
    first = kept_in(tmp_path / "stores")(file)
    assert first == kept_in(tmp_path / "stores")(link) == digest_of(file) and read == [file]
    before = file.stat()
    file.write_text("two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert kept_in(tmp_path / "stores")(file) == digest_of(file) != first and read == [file, file]


def test_a_file_that_was_just_changed_and_one_that_is_small_are_not_kept(tmp_path, read, monkeypatch):
    file = tmp_path / "a.txt"
    file.write_text("one")
    monkeypatch.setattr(digests, "MIN_AGE_NS", 10**12)
    assert kept_in(tmp_path)(file) == kept_in(tmp_path)(file) and len(read) == 2
    monkeypatch.setattr(digests, "MIN_AGE_NS", -(10**12))
    monkeypatch.setattr(digests, "MIN_KEPT", 4)
    assert kept_in(tmp_path)(file) == kept_in(tmp_path)(file) and len(read) == 4
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("damage", ["", "[]", '{"NAME": 1}', '{"NAME": {"version": null, "sha256": "zz"}}'])
def test_a_damaged_memory_is_forgotten(damage, tmp_path, read):
    file = tmp_path / "a.txt"
    file.write_text("one")
    (tmp_path / FILE).write_text(damage.replace("NAME", str(file)))
    assert kept_in(tmp_path)(file) == kept_in(tmp_path)(file) == digest_of(file) and read == [file]

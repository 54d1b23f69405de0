"""Files that a user names for output, and the permissions of all that is written."""

import os
import stat
from pathlib import Path

import pytest

from lmexp.files import write_atomically, write_output
from lmexp.study.report import MAX_NAME, _joined


def test_an_output_goes_through_links_and_into_devices_and_replaces_neither(tmp_path: Path):
    (tmp_path / "link.csv").symlink_to("folder/real.csv")
    (tmp_path / "null").symlink_to(os.devnull)
    for name, content in (("link.csv", b"1"), ("null", b"2"), ("new/plain.csv", b"3")):
        write_output(tmp_path / name, content)
    write_output(Path(os.devnull), b"4")
    assert (tmp_path / "folder" / "real.csv").read_bytes() == b"1" and (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "null").is_symlink() and (tmp_path / "new" / "plain.csv").read_bytes() == b"3"
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    with pytest.raises(OSError, match="directory"):
        write_output(tmp_path / "folder", b"5")


def test_a_file_of_lmexps_own_replaces_a_link_that_somebody_put_there(tmp_path: Path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "state.json").symlink_to("precious")
    write_atomically(tmp_path / "state.json", "new")
    assert (tmp_path / "precious").read_text() == "kept" and (tmp_path / "state.json").read_text() == "new"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_that_the_user_gives_new_files(mask: int, mode: int, tmp_path: Path):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "x", "y")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


def test_the_folder_of_a_report_on_many_studies_has_a_name_that_fits():
    many = [f"{'long' * 15}-{number}" for number in range(12)]
    assert _joined(["a", "b"]) == "a+b" and len(_joined(many)) <= MAX_NAME
    assert _joined(many) != _joined([*many[:-1], "other"])

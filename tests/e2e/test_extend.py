"""The page on extensions, run as it stands: its blocks are the files of one folder, its commands run there."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import Lmexp

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extend.md"
pytestmark = [pytest.mark.slow(70), pytest.mark.timeout(600)]


def test_every_extension_of_the_page_works_with_all_others(tmp_path: Path, lmexp: Lmexp):
    page = PAGE.read_text()
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 18 and len(re.findall(r"^```(?:python|yaml)$", page, re.MULTILINE)) == len(blocks)
    for name, content in blocks:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    for line in re.findall(r"^\$ lmexp (.*)$", page, re.MULTILINE):
        ended = lmexp(*shlex.split(line), timeout=300)
        assert ended.returncode == 0, (line, ended.stderr)
    (run,) = (tmp_path / "outputs" / "train").glob("*/record.json")
    notes = (run.parent / "notes.txt").read_text()
    assert "train/loss" in notes and "'model': 'average'" in notes
    (row,) = json.loads((run.parent / "record.json").read_text())["rows"]
    assert row["family"] == "average" and row["flops_source"] == "counted" and row["task"] == "smooth"
    assert 0 <= row["score/smooth/right_in_first"] <= 1

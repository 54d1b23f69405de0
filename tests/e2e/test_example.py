"""The study that people copy runs as its README says, from a copy."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lmexp import load
from tests.conftest import Lmexp

STUDY = Path(__file__).parents[2] / "examples" / "my_study"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_study_with_code_of_its_own_runs_from_a_copy(tmp_path: Path, lmexp: Lmexp):
    shutil.copytree(STUDY, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for line in re.findall(r"^\$ (.*)$", (STUDY / "README.md").read_text(), re.MULTILINE):
        program, *words = shlex.split(line)
        if program == "lmexp":
            ended = lmexp(*words, timeout=300)
        else:
            command = [sys.executable, *words, "-p", "no:cacheprovider", "-q"]
            ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, (line, ended.stdout, ended.stderr)
    rows = load(tmp_path / "outputs" / "widths")
    assert list(rows["family"]) == ["average", "average"] and rows["score/causal_lm/letters_right"].between(0, 1).all()

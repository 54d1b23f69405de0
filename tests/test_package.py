"""What surrounds the code: version, licence, citation, linters."""

import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

import lmexp

ROOT = Path(__file__).parents[1]


def test_one_version_stands_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    heading = next(line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## "))
    assert citation["version"] == lmexp.__version__
    assert heading == f"## {lmexp.__version__} - {citation['date-released']}"


def test_the_hooks_before_a_commit_are_the_linters_of_make():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (local,) = config["repos"]
    linted = [line.strip() for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("\t$(BIN)/ruff")]
    commands = {" ".join(hook["entry"].removeprefix(".venv/bin/").split()[:2]) for hook in local["hooks"]}
    assert local["repo"] == "local" and all(hook["language"] == "system" for hook in local["hooks"])  # no network
    assert commands == {" ".join(line.removeprefix("$(BIN)/").split()[:2]) for line in linted} | {"mypy"}


def test_the_licence_is_the_one_that_the_package_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["license"] == citation["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_python_m_lmexp_is_the_command():
    ended = subprocess.run([sys.executable, "-m", "lmexp", "new"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and "{name}" in ended.stderr

"""A record says which code, packages and machine made it."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest

import lmexp
from lmexp.runs.origin import origin_columns, pinned, utc


def test_times_are_utc():
    assert utc(0) == "1970-01-01T00:00:00+00:00"
    assert datetime.fromisoformat(utc(1e9)) == datetime.fromtimestamp(1e9, UTC)


def test_packages_are_named_with_their_versions():
    packages = origin_columns(0.0)["packages"].split()
    assert f"torch=={version('torch')}" in packages and f"python=={platform.python_version()}" in packages
    assert pinned("no-such-package-here") == "no-such-package-here==?"


def checkout(root: Path) -> Path:
    """Make a git checkout with the package's folder in it, and return the package's file."""
    file = root / "lmexp" / "__init__.py"
    file.parent.mkdir()
    file.touch()
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", root, *words], check=True)
    return file


def test_the_commit_is_that_of_the_checkout_and_a_change_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = checkout(tmp_path)
    monkeypatch.setattr(lmexp, "__file__", str(file))
    head = subprocess.run(["git", "-C", tmp_path, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    clean = origin_columns(0.0)
    assert (clean["git_sha"], clean["git_dirty"]) == (head.stdout.strip(), False)
    file.write_text("changed = True\n")
    assert origin_columns(0.0)["git_dirty"] is True


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lmexp, "__file__", str(tmp_path / "lmexp" / "__init__.py"))
    assert (origin_columns(0.0)["git_sha"], origin_columns(0.0)["git_dirty"]) == (None, None)

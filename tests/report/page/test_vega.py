"""Vega is built once by each user; a kept file that is damaged, or that others may write, is built anew."""

import hashlib
from importlib.metadata import version
from pathlib import Path

import pytest
import vl_convert

from lmexp.report.page import vega as module

BUNDLE = "const a = 1; // </script>"


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is built from now on; the folder of caches is empty."""
    made: list[str] = []

    def build(snippet: str) -> str:
        made.append(snippet)
        return BUNDLE

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(vl_convert, "javascript_bundle", build)
    monkeypatch.setattr(module, "vega", module.vega.__wrapped__)  # as each process begins
    return made


def kept(tmp_path: Path) -> Path:
    return tmp_path / "caches/lmexp" / f"vega-{version('vl-convert-python')}.js"


def test_the_script_is_built_once_and_then_read(built: list[str], tmp_path: Path):
    first = module.vega()
    assert first == r"const a = 1; // <\/script>"
    assert module.vega() == first and len(built) == 1
    assert kept(tmp_path).read_text() == f"{hashlib.sha256(BUNDLE.encode()).hexdigest()}\n{BUNDLE}"
    assert kept(tmp_path).stat().st_mode & 0o777 == 0o600 and kept(tmp_path).parent.stat().st_mode & 0o777 == 0o700


def test_another_version_of_vl_convert_has_a_file_of_its_own(built: list[str], monkeypatch: pytest.MonkeyPatch):
    module.vega()
    monkeypatch.setattr(module, "version", lambda package: "99.0")
    module.vega()
    assert len(built) == 2


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _link(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


@pytest.mark.parametrize(
    "change",
    [
        _cut,
        _link,
        lambda file: file.write_bytes(b"\xff"),
        lambda file: file.write_text(""),
        lambda file: file.chmod(0o622),
        lambda file: file.parent.chmod(0o770),
    ],
)
def test_what_is_damaged_or_open_to_others_is_not_put_into_a_page(built: list[str], tmp_path: Path, change):
    first = module.vega()
    change(kept(tmp_path))
    assert module.vega() == first and len(built) == 2


def test_what_belongs_to_somebody_else_is_not_put_into_a_page(built: list[str], monkeypatch: pytest.MonkeyPatch):
    module.vega()
    own = module.os.geteuid()
    monkeypatch.setattr(module.os, "geteuid", lambda: own + 1)
    module.vega()
    assert len(built) == 2


def test_without_a_folder_for_caches_it_is_built_each_time(
    built: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "caches").write_text("a file")
    first = module.vega()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert module.vega() == first and len(built) == 2

"""Installed from a wheel, in a bare folder, configs and sweeps are there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_wheel_carries_configs_sweeps_and_the_page(tmp_path: Path, text: Path):
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], check=True)
    bare = tmp_path / "bare"
    bare.mkdir()

    def lmexp(*words: str) -> str:
        command = [sys.executable, "-c", "import lmexp.cli, sys; assert 'site' in lmexp.cli.__file__; lmexp.cli.main()"]
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
        ended = subprocess.run([*command, *words], cwd=bare, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert "demo" in lmexp("list", "sweeps") and "gpt_nano" in lmexp("list", "models")
    site = tmp_path / "site"
    assert list((site / "lmexp" / "sweeps" / "wandb").glob("*.yaml"))
    assert (site / "lmexp" / "py.typed").exists()  # type checkers read lmexp's types only then
    (licence,) = site.glob("lmexp-*.dist-info/licenses/LICENSE")
    assert licence.read_text() == (ROOT / "LICENSE").read_text()
    words = ["model=gpt_nano", "model.context=32", "tokenizer=byte", "batch.tokens=256", "budget.tokens=2560"]
    lmexp("train", *words, "data=text", f"data.path={text}", "data.document=paragraph")
    assert (bare / "outputs" / "train" / "report.html").stat().st_size > 100_000

"""`lmexp sweep --seeds auto` as a user runs it."""

import json
from pathlib import Path

import pytest

from tests.conftest import Lmexp

SWEEP = """# A learning rate that is much too low, and two that are close
sweep:
  grid:
    optim.lr: [1e-5, 1e-2, 1.1e-2]
"""


@pytest.mark.slow(60)
def test_seeds_go_to_the_arms_that_may_be_the_best_and_a_second_command_trains_nothing(
    lmexp: Lmexp, small: list[str], tmp_path: Path
):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "rates.yaml").write_text(SWEEP)
    command = ["sweep", "rates", *small, "--output-dir", str(tmp_path / "out"), "--seeds", "auto", "--cap", "4"]
    first = lmexp(*command, "--difference", "1e-9")
    assert first.returncode == 0, first.stderr
    manifest = json.loads((tmp_path / "out" / "rates" / "sweep.json").read_text())
    seeds = {
        rate: [c["values"]["seed"] for c in manifest["cells"] if c["values"]["optim.lr"] == rate]
        for rate in (1e-5, 1e-2, 1.1e-2)
    }
    assert seeds == {1e-5: [0, 1, 2], 1e-2: [0, 1, 2, 3], 1.1e-2: [0, 1, 2, 3]}

    records = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("record.json")}
    again = lmexp(*command, "--difference", "1e-9")
    assert again.returncode == 0, again.stderr
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("record.json")} == records
    other = lmexp(*command, "--difference", "0.5")
    assert other.returncode == 2
    assert "looked at with --difference 1e-09 --cap 4" in " ".join(other.stderr.split())

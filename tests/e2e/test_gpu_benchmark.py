"""The benchmark for GPU machines runs through on a CPU, where it measures nothing of interest."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_benchmark_for_gpus_runs_dry(tmp_path: Path):
    file = tmp_path / "gpu.json"
    command = [sys.executable, "benchmarks/gpu.py", "--dry", "--seconds", "1700", "--json", str(file)]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONSAFEPATH": ""}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    steps = json.loads(file.read_text())["steps"]
    names = re.findall(r'^    Step\("(\w+)"', (ROOT / "benchmarks" / "gpu.py").read_text(), re.MULTILINE)
    assert sorted(step["step"] for step in steps) == sorted(names) and all(step["rows"] for step in steps)

"""The benchmark for GPU machines runs through on a CPU, where it measures nothing of interest.

Some steps are run by the script, as on a GPU machine: each is a process of its own, and so is each command it calls.
All others are forked from the tests' server, as are their commands, which saves minutes of imports.
"""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.command import run_command, start_process

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
BY_THE_SCRIPT = ["device", "sharded", "sharing"]
"""One command; runs in the step's own process and a command; a sweep of two runs that starts after those."""
STEPS = re.findall(r'^    Step\("(\w+)"', SCRIPT.read_text(), re.MULTILINE)


@pytest.mark.slow(80)
@pytest.mark.timeout(600)
def test_the_benchmark_for_gpus_runs_dry(tmp_path: Path):
    file = tmp_path / "gpu.json"
    command = [sys.executable, str(SCRIPT), *BY_THE_SCRIPT, "--dry", "--seconds", "550", "--json", str(file)]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONSAFEPATH": ""}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    steps = json.loads(file.read_text())["steps"]
    assert sorted(step["step"] for step in steps) == sorted(BY_THE_SCRIPT) and all(step["rows"] for step in steps)


@pytest.mark.slow
@pytest.mark.parametrize("step", [step for step in STEPS if step not in BY_THE_SCRIPT])
def test_every_other_step_of_it_runs_dry(step: str, tmp_path: Path):
    process = start_process(run_step, step, tmp_path)
    process.join(280)
    log = (tmp_path / "log.txt").read_text()
    assert process.exitcode == 0, log
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows and all(row["ok"] is not False for row in rows), (rows, log)


def run_step(name: str, folder: Path) -> None:
    """Become the process of a step."""
    for number in (1, 2):
        os.dup2(os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    sys.path.insert(0, str(SCRIPT.parent))
    import gpu  # type: ignore[import-not-found]
    from gpu_steps.bench import Bench  # type: ignore[import-not-found]

    one_at_a_time = threading.Lock()

    def run_forked(bench: Bench, *words: str) -> "subprocess.CompletedProcess[str]":
        with one_at_a_time:
            return run_command(bench.folder, *words, timeout=270)

    Bench.run_command = run_forked
    sys.exit(gpu._run_here(name, folder, dry=True))

"""`lmexp sweep --seeds auto` as a user runs it."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lmexp.messages import Say
from lmexp.resolve.planned import Sweep
from lmexp.runs.coordinators import ask_to_stop, has_coordinator
from lmexp.runs.manifest import LookRule
from lmexp.study.run import SweepResult, run_resolved
from lmexp.study.seeds import resolve_with_looks, run_with_looks
from tests.command import start_process
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


RULE = LookRule(quality="loss", difference=1e-9, cap=4)


def run_and_look(
    words: list[str], outputs: Path, say: Say, run: Callable[[Sweep], SweepResult] = run_resolved
) -> SweepResult:
    resolved = resolve_with_looks(None, [*words, "optim.lr=1e-5,1e-2,1.1e-2"], RULE, outputs, folder="rates")
    return run_with_looks(resolved, run, say)


def _die_at_the_first_look(words: list[str], outputs: Path) -> None:
    run_and_look(words, outputs, lambda line: os.kill(os.getpid(), signal.SIGKILL))


@pytest.mark.slow(60)
def test_a_sweep_that_was_killed_between_looks_goes_on_to_the_same_decision(small: list[str], tmp_path: Path):
    whole, resumed = list[str](), list[str]()
    run_and_look(small, tmp_path / "whole", whole.append)
    killed = start_process(_die_at_the_first_look, small, tmp_path / "killed")
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "killed").rglob("record.json")}
    run_and_look(small, tmp_path / "killed", resumed.append)
    assert len(whole) == 2 and resumed == whole
    records = sorted(file.parent.name for file in (tmp_path / "whole").rglob("record.json"))
    assert sorted(file.parent.name for file in (tmp_path / "killed").rglob("record.json")) == records
    assert len(before) == 9 and {file: file.stat().st_mtime_ns for file in before} == before, "none is trained twice"


@pytest.mark.slow(30)
def test_between_two_batches_the_sweep_has_its_coordinator_and_can_be_cancelled(small: list[str], tmp_path: Path):
    folder, seen = tmp_path / "outputs" / "rates", list[bool]()

    def look(line: str) -> None:
        seen.append(has_coordinator(folder))
        ask_to_stop(folder)

    with pytest.raises(KeyboardInterrupt):
        run_and_look(small, tmp_path / "outputs", look)
    assert seen == [True] and not has_coordinator(folder)

"""Killed at random moments, again and again: the study is finished, nothing is done twice, and no number changes.

Real commands and real SIGKILLs: of a coordinator alone, of a run alone, of everything at once (as when the power
goes), with one coordinator at work or two.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil
import pytest

from lmexp.runs.directory import RunDir, runs_in
from tests.conftest import Lmexp
from tests.train.test_worker import TIMINGS

MEASURED = {*TIMINGS, "exclusive", "mfu", "mfu_causal", "hfu", "peak_flops", "peak_source", "git_sha", "git_dirty",
            "trained_by"}  # fmt: skip
"""What depends on the time that steps take, on who else was there, and on who edits lmexp meanwhile."""
SWEEP = ["sweep", "chaos.yaml"]
FILE = """
sweep:
  grid:
    seed: [1, 2, 3, 4]
    optim.lr: {rates}
budget: {{tokens: {tokens}}}
checkpoint: {{every: 0.04}}
evaluation: {{every: 0.25}}
launcher: {{slots: 2, threads: 1}}
"""
SMALL, LARGE = FILE.format(rates=[1e-3], tokens=64000), FILE.format(rates=[1e-3, 3e-3], tokens=128000)


class Study:
    """A sweep's command in a folder, that can be started, killed and asked what it left."""

    def __init__(self, folder: Path, words: list[str], file: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "chaos.yaml").write_text("# @package _global_\n" + file)
        self.folder, self.words, self.file = folder, words, file

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "lmexp.cli", *SWEEP, *self.words]
        environment = {**os.environ, "LMEXP_OUTPUTS": str(self.folder / "outputs"), "PYTHONSAFEPATH": "1"}
        with (self.folder / "said.txt").open("ab") as said:
            return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=said, stderr=said)

    @property
    def runs(self) -> list[RunDir]:
        return runs_in(self.folder / "outputs" / "chaos")

    def results(self) -> dict[str, tuple[dict[str, object], list[dict[str, object]]]]:
        """Return by run what does not depend on time: the record, and the curve."""
        found = {}
        for run in self.runs:
            (row,) = run.read_record()
            curve = [{k: v for k, v in point.items() if k not in ("seconds", "tokens_per_second")}
                     for point in run.read_curve()]  # fmt: skip
            found[run.name] = ({key: value for key, value in row.items() if key not in MEASURED}, curve)
        return found

    def finished(self) -> dict[str, bytes]:
        return {run.name: (run.path / "record.json").read_bytes() for run in self.runs if run.read_record()}

    def workers(self) -> list[psutil.Process]:
        found = []
        for run in self.runs:
            state = run.read_state()
            if state.state == "running" and state.pid and run.is_alive(state):
                with suppress(psutil.Error):
                    found.append(psutil.Process(state.pid))
        return found


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def torment(study: Study, kills: int, dice: random.Random) -> None:
    """Run the study to its end, killing so many processes on the way, or as many as it takes that long for."""
    done: dict[str, bytes] = {}
    while True:
        coordinators = [study.start() for _ in range(dice.choice([1, 1, 2]))]
        until = time.monotonic() + dice.uniform(2, 12)
        while kills and time.monotonic() < until and any(one.poll() is None for one in coordinators):
            time.sleep(dice.uniform(0.05, 0.8))
            if (workers := study.workers()) and dice.random() < 0.6:
                kill([dice.choice(workers)])
                kills -= 1
        if kills:
            trees = [process for one in coordinators if one.poll() is None
                     for process in psutil.Process(one.pid).children(recursive=True)]  # fmt: skip
            power_gone = dice.random() < 0.5
            for one in coordinators:
                kills -= one.poll() is None
                with suppress(ProcessLookupError):
                    one.send_signal(signal.SIGKILL)
            if power_gone:
                kill(trees + study.workers())
            kills = max(kills, 0)
        codes = [one.wait(timeout=250) for one in coordinators]
        now = study.finished()
        for name, record in done.items():
            assert now.get(name) == record, f"{name} was finished, and was done again"
        done = now
        if not kills and 0 in codes:
            return


@pytest.fixture(scope="module")
def undisturbed(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Study]:
    """Return the study of a file that nobody has disturbed; each is run once."""

    @cache
    def run(file: str) -> Study:
        words = [word for word in small if not word.startswith("budget")]
        study = Study(tmp_path_factory.mktemp("undisturbed"), words, file)
        assert study.start().wait(timeout=280) == 0, (study.folder / "said.txt").read_text()
        return study

    return run


SLOW, LONG = ([pytest.mark.slow(120), pytest.mark.timeout(600)], [pytest.mark.long, pytest.mark.timeout(1500)])
TIERS = [pytest.param(SMALL, 8, marks=SLOW, id="8"), pytest.param(LARGE, 60, marks=LONG, id="60")]


@pytest.mark.parametrize("file, kills", TIERS)
def test_killed_at_random_moments_a_study_comes_to_the_same_end(
    undisturbed: Callable[[str], Study], file: str, kills: int, tmp_path: Path
):
    seed = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))
    print(f"CHAOS_SEED={seed}")
    calm = undisturbed(file)
    study = Study(tmp_path / "tormented", calm.words, file)
    torment(study, kills, random.Random(seed))
    assert study.results() == calm.results()
    assert all(run.read_state().state == "done" for run in study.runs)
    assert not study.workers()


@pytest.mark.slow
def test_a_study_whose_files_were_torn_starts_over_what_it_must(
    undisturbed: Callable[[str], Study], tmp_path: Path, lmexp: Lmexp
):
    """As after a power cut on a disk that does not keep its word."""
    calm = undisturbed(SMALL)
    study = Study(tmp_path / "torn", calm.words, SMALL)
    first = study.start()
    while not any(run.last_saved() for run in study.runs):
        time.sleep(0.1)
        assert first.poll() is None, (study.folder / "said.txt").read_text()
    trees = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    kill(trees + study.workers())
    first.wait()
    (saved, *_) = [run for run in study.runs if run.last_saved()]
    checkpoint = saved.checkpoints / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-2000])
    with (saved.path / "metrics.jsonl").open("ab") as curve:
        curve.write(b'{"step": 1, "tok')
    *_, emptied, unknown = [run for run in study.runs if run.path != saved.path]
    (emptied.path / "state.json").write_bytes(b"")
    (unknown.path / "state.json").write_text(json.dumps({"state": "asleep"}))
    assert study.start().wait(timeout=280) == 0, (study.folder / "said.txt").read_text()
    assert study.results() == calm.results()
    assert "set aside" in saved.log.read_text()

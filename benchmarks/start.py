"""What starting runs costs: to the first step of a command, for each further run, and over hundreds of them.

1. `lmexp sweep`, as a person types it, on runs of 8 steps: seconds to the first step of the first run, and from the
   end of a run to the end of the next, less what that one spent in training steps, or in all (`wall_seconds`). The
   same for a run that is a process of its own, `python -m lmexp.worker`, without the server that runs are forked from.
2. Runs of one step through the queue: resident memory and open files of coordinator and server on the way.

python benchmarks/start.py [runs of part 2]
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from multiprocessing import forkserver
from pathlib import Path
from statistics import median

import psutil

from lmexp.launch.queue import run_sweep
from lmexp.resolve.planned import PlannedRun
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir, runs_in
from lmexp.runs.state import State

SWEPT, FRESH, MANY = 12, 4, 500
STEP = 256
"""Tokens of a step."""
SWEEP = """\
# @package _global_
defaults:
  - override /model: gpt_nano
  - override /data: text
  - override /tokenizer: byte
  - _self_
sweep: {{seeds: {seeds}}}
model: {{context: 32}}
data: {{path: {text}, document: line}}
batch: {{tokens: {step}}}
budget: {{tokens: {tokens}}}
trainer: {{log_every: 1}}
evaluation: {{every: 1}}
checkpoint: {{every: 1}}
launcher: {{slots: 1, threads: 1}}
"""


def write_sweep(folder: Path, seeds: int, steps: int) -> Path:
    """Write a sweep of so many runs of so many steps; return its file."""
    text = folder / "text.txt"
    text.write_text("\n".join(f"line {i} of a text that nobody will read" for i in range(500)))
    file = folder / f"{seeds}x{steps}.yaml"
    file.write_text(SWEEP.format(seeds=seeds, text=text, step=STEP, tokens=steps * STEP))
    return file


def seconds_to_first_step(file: Path, outputs: Path) -> float:
    """Run a sweep with the real command, to its end; return the seconds until the first point of a curve."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "lmexp.cli", "sweep", str(file), "--output-dir", str(outputs)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and not any(outputs.glob("[!.]*/*/metrics.jsonl")):
        time.sleep(0.005)
    first = time.perf_counter() - began
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(said.decode())
    return first


def own_seconds(run: RunDir) -> tuple[float, float]:
    """Return what a run counts itself: in training steps, and in all."""
    [record] = run.read_record()
    return record["train_seconds"], record["wall_seconds"]


def show(what: str, seconds: Sequence[tuple[float, RunDir]]) -> None:
    """Print the medians of what runs took beyond their own count."""
    trained, counted = zip(*(own_seconds(run) for _, run in seconds), strict=True)
    beyond_steps = [taken - own for (taken, _), own in zip(seconds, trained, strict=True)]
    beyond_all = [taken - own for (taken, _), own in zip(seconds, counted, strict=True)]
    print(
        f"{what}: {median(beyond_steps):.2f} s beyond its training steps ({min(beyond_steps):.2f} to "
        f"{max(beyond_steps):.2f}), {median(beyond_all):.2f} s beyond all that it counts itself",
        flush=True,
    )


def starts(folder: Path) -> None:
    """Print what the command and its runs take to start."""
    first = seconds_to_first_step(write_sweep(folder, 1, 8), folder / "prepared")  # the text is tokenised in it, too
    again = seconds_to_first_step(write_sweep(folder, SWEPT, 8), folder / "swept")
    print(f"seconds from `lmexp sweep` to the first step: {again:.1f}, and {first:.1f} the time before", flush=True)
    [sweep] = (folder / "swept").glob("[!.]*/")
    ended = sorted((run.read_state().finished or 0.0, run.path) for run in runs_in(sweep))
    show("a further run", [(end - before, RunDir(path)) for (before, _), (end, path) in pairwise(ended)])

    outputs, fresh = folder / "fresh", []
    for planned in resolve_sweep(str(write_sweep(folder, FRESH, 8)), [], outputs).runs:
        run = RunDir.create(planned.run.path, planned.config)
        began = time.perf_counter()
        command = [sys.executable, "-m", "lmexp.worker", str(run.path)]
        subprocess.run(command, check=True, capture_output=True)
        fresh.append((time.perf_counter() - began, run))
    show("a run as a fresh process", fresh)


class Watch:
    """Prints memory and open files at the beginning, on the way and at the end."""

    def __init__(self, runs: int) -> None:
        self.at = {max(1, runs // 10), runs // 2, runs}
        self.ended_runs = 0

    def started(self, planned: PlannedRun) -> None:
        """A run was started."""

    def ended(self, planned: PlannedRun, state: State) -> None:
        """Print, when it is time."""
        self.ended_runs += 1
        if state.state != "done":
            raise SystemExit(f"{planned.run.name} {state.state}: {state.reason}")
        if self.ended_runs in self.at:
            server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # nothing public tells
            held = f"coordinator {_held(os.getpid())}, server {_held(server)}"
            print(f"after {self.ended_runs:3} runs: {held}", flush=True)

    def again(self, planned: PlannedRun, why: str) -> None:
        """A run will be started once more."""

    def waiting(self, running: object) -> None:
        """Nothing happened just now."""


def _held(pid: int) -> str:
    process = psutil.Process(pid)
    children = len(process.children())
    return f"{process.memory_info().rss / 1e6:.1f} MB, {process.num_fds()} files, {children} children"


def many(folder: Path, runs: int) -> None:
    """Train runs of one step, and print what is held on the way."""
    sweep = resolve_sweep(str(write_sweep(folder, runs, 1)), [], folder / "many")
    began = time.perf_counter()
    run_sweep(sweep, Watch(runs))
    print(f"{runs} runs of one step: {(time.perf_counter() - began) / runs:.2f} s a run")


def main() -> None:
    """Time the starts, then run many."""
    with tempfile.TemporaryDirectory() as folder:
        starts(Path(folder))
        many(Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else MANY)


if __name__ == "__main__":
    main()

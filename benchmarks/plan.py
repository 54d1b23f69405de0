"""How long planning takes, and how well `plan --measure` predicts training seconds.

1. `lmexp plan` on a sweep of 1,000 cells (4 models, 5 depths, 2 precisions, 5 learning rates, 5 seeds): seconds of the
   whole command, and of the planning alone in a process that has already imported lmexp.
2. A sweep of 8 different runs, which differ in model, depth, precision, batch and micro-batch, planned, then trained:
   predicted and actual seconds, their ratio and the worst. It takes some minutes.

python benchmarks/plan.py [--cells-only]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from lmexp.launch.probe import known_probes, measure
from lmexp.launch.queue import run_sweep
from lmexp.planning.plan import CostedRun, plan
from lmexp.resolve.planned import PlannedRun
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.state import State
from lmexp.study.plan import plan_sweep

REPEATS = 5
THOUSAND = """
sweep:
  question: What does planning cost?
  grid:
    model: [gpt_nano, gpt_tiny, llama_nano, moe_nano]
    model.n_layers: [1, 2, 3, 4, 5]
    precision: [fp32, bf16]
    optim.lr: [1e-3, 2e-3, 3e-3, 4e-3, 5e-3]
  seeds: 5
budget: {tokens: 1_000_000}
"""
COMMON = ["tokenizer=byte", "evaluation.every=1", "checkpoint.every=1"]
RUNS = [
    ["model=gpt_nano", "batch.tokens=2048", "budget.tokens=400_000"],
    ["model=gpt_nano", "precision=bf16", "batch.tokens=4096", "budget.tokens=600_000"],
    ["model=gpt_nano", "model.n_layers=4", "optim=sgd", "budget.tokens=400_000"],
    ["model=gpt_nano", "model.d_model=128", "batch.micro=4", "budget.tokens=300_000"],
    ["model=gpt_tiny", "budget.tokens=200_000"],
    ["model=gpt_tiny", "precision=bf16", "budget.tokens=300_000"],
    ["model=gpt_tiny", "precision=bf16_true", "model.context=64", "budget.tokens=300_000"],
    ["model=gpt_mini", "precision=bf16", "budget.tokens=60_000"],
]


class Silent:
    """Watches and says nothing."""

    def started(self, planned: PlannedRun) -> None:
        """A run was started."""

    def ended(self, planned: PlannedRun, state: State) -> None:
        """A run ended."""

    def waiting(self, running: object) -> None:
        """Nothing happened just now."""


def time_planning() -> None:
    """Plan 1,000 cells, several times; the text is tokenised before."""
    with tempfile.TemporaryDirectory() as folder:
        sweep, outputs = Path(folder) / "thousand.yaml", Path(folder) / "outputs"
        sweep.write_text(THOUSAND)
        plan_sweep(str(sweep), ["tokenizer=byte", "optim.lr=1e-3", "seed=0"], outputs)
        command = [sys.executable, "-m", "lmexp.cli", "plan", str(sweep), "tokenizer=byte"]
        command += ["--output-dir", str(outputs), "--json"]
        whole, inside = [], []
        for _ in range(REPEATS):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            whole.append(time.perf_counter() - start)
            start = time.perf_counter()
            rows = len(plan_sweep(str(sweep), ["tokenizer=byte"], outputs).rows)
            inside.append(time.perf_counter() - start)
    for what, seconds in (("`lmexp plan`", whole), ("in a process that has its imports", inside)):
        print(f"{rows:,} cells, {what}: {median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})", flush=True)


def compare_seconds() -> None:
    """Plan 8 runs, then train them, and print both."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder)
        sweeps = [resolve_sweep(None, [*COMMON, *words], outputs, name="plan") for words in RUNS]
        runs = [planned for sweep in sweeps for planned in sweep.runs]
        measure(runs, outputs)
        probes = known_probes(runs, outputs)
        rows = plan(
            CostedRun(p.values, p.config, p.horizon, p.device, probe) for p, probe in zip(runs, probes, strict=True)
        )
        ratios = []
        for sweep, row, words in zip(sweeps, rows, RUNS, strict=True):
            run_sweep(sweep, Silent())
            (record,) = sweep.runs[0].run.read_record()
            ratios.append(row["train_seconds"] / record["train_seconds"])
            print(f"{' '.join(words):75} planned {row['train_seconds']:6.1f} s   took {record['train_seconds']:6.1f} s"
                  f"   ratio {ratios[-1]:.2f}", flush=True)  # fmt: skip
    print(f"worst: {max(ratios, key=lambda ratio: abs(ratio - 1)):.2f}")


if __name__ == "__main__":
    time_planning()
    if "--cells-only" not in sys.argv[1:]:
        compare_seconds()

"""How well `plan --measure` predicts training seconds: a sweep of 8 different runs, planned, then trained.

The runs differ in model, depth, precision, batch and micro-batch. Prints predicted and actual seconds, their
ratio and the worst: python benchmarks/plan.py
"""

import tempfile
from pathlib import Path

from lmexp.launch.probe import known_probes, measure
from lmexp.launch.queue import run_sweep
from lmexp.planning.plan import CostedRun, plan
from lmexp.resolve.planned import PlannedRun
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.state import State

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


def main() -> None:
    """Plan all, then train all."""
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
    main()

"""How well the plan knows the memory of a run: predicted against recorded, on a grid of models and precisions.

Each cell is a run of four steps in a process of its own, as the queue starts it; what its record shows is
held against the estimate from its config: python benchmarks/memory.py [words that a cell's line must hold]
"""

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lmexp.config.checks import world_size
from lmexp.cost.memory import MemoryEstimate, estimate_memory
from lmexp.launch.processes import start, warm_up
from lmexp.launch.slots import Place
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir

STEPS = 4  # memory is measured over the first three
PRECISIONS = ("fp32", "bf16", "bf16_true")
MODELS = {
    "model=gpt_nano": 1024,
    "model=gpt_nano model.dropout=0.1": 2048,
    "model=gpt_nano optim=sgd": 4096,
    "model=gpt_tiny": 4096,
    "model=gpt_tiny batch.micro=2": 4096,
    "model=gpt_tiny model.context=1024": 4096,
    "model=gpt_tiny model.context=1024 model.dropout=0.1 batch.micro=1": 2048,
    "model=gpt_tiny model.vocab_size=16384": 2048,
    "model=gpt_tiny model.vocab_size=50257": 256,
    "model=gpt_tiny model.vocab_size=16384 model.tie_embeddings=false model.bias=false": 1024,
    "model=gpt_mini": 4096,
    "model=gpt_mini batch.micro=1": 1024,
    "model=gpt_mini model.d_model=512 model.n_layers=4": 1024,
    "model=gpt_mini optim=sgd": 1024,
    "model=gpt_mini model.d_model=512 batch.micro=1 trainer.devices=2 trainer.strategy=fsdp": 1024,
    "model=gpt_mini model.d_model=512 trainer.devices=2": 1024,
    "model=gpt_small": 1024,
    "model=gpt_small optim=sgd batch.micro=1": 1024,
}
"""Overrides, and the tokens of a step."""


@dataclass(frozen=True)
class Cell:
    """What was expected of a run, and what it took, in bytes."""

    words: str
    estimate: MemoryEstimate
    measured: float
    reserved: float

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.estimate.peak / self.measured


def measure(model: str, precision: str, folder: Path) -> Cell:
    """Train a model for a few steps in `folder`; its batch is that of MODELS."""
    text = folder / "text.txt"
    if not text.exists():
        text.write_text("\n".join(f"line {i} of a text that nobody will read, {i * i % 9973}" for i in range(4000)))
    tokens = MODELS[model]
    words = [
        *model.split(), f"precision={precision}", f"batch.tokens={tokens}", f"budget.tokens={STEPS * tokens}",
        "tokenizer=byte", "data=text", f"data.path={text}", "data.document=line", "evaluation.every=1",
        "checkpoint.every=1", "trainer.accelerator=cpu",
    ]  # fmt: skip
    [planned] = resolve_sweep(None, words, folder / "outputs").runs
    run = RunDir.create(planned.run.path, planned.config)
    processes = world_size(planned.config)
    handle = start(run, processes, Place(devices=(), threads=2 // processes))
    while handle.exit_code() is None:
        time.sleep(0.02)
    record = run.read_record()[0]
    return Cell(
        words=f"{model} precision={precision}",
        estimate=estimate_memory(planned.config, "cpu"),
        measured=record["peak_memory_gb"] * 1e9,
        reserved=record["reserved_memory_gb"] * 1e9,
    )


def main() -> None:
    """Print a line for each cell, then the worst."""
    wanted = sys.argv[1:]
    cells = []
    warm_up()
    print("predicted  measured  ratio  reserved  highest phase     (MB)")
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            for precision in PRECISIONS:
                if not all(word in f"{model} precision={precision}".split() for word in wanted):
                    continue
                cell = measure(model, precision, Path(folder))
                cells.append(cell)
                phases = cell.estimate.phases
                print(
                    f"{cell.estimate.peak / 1e6:9.1f} {cell.measured / 1e6:9.1f} {cell.ratio:6.3f} "
                    f"{cell.reserved / 1e6:9.1f}  {max(phases, key=lambda name: phases[name]):14s} {cell.words}",
                    flush=True,
                )
    worst = max(cells, key=lambda cell: abs(cell.ratio - 1))
    print(f"median ratio {statistics.median(cell.ratio for cell in cells):.3f} over {len(cells)} runs")
    print(f"worst {worst.ratio:.3f}: {worst.words}")


if __name__ == "__main__":
    main()

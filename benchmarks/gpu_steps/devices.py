"""Where things run: strategies at world size 1, judging on the run's own device, two runs on one device."""

import csv
from typing import Any

from gpu_steps.bench import Bench


def sharded(bench: Bench) -> None:
    """Compare DDP and sharded weights, of one process each, with neither."""
    size = ["model=gpt_nano", "batch.tokens=1024", f"budget.tokens={4 if bench.dry else 30}_000"]
    words = bench.words(*size)
    alone, _, _ = bench.train_here(*words)
    assert alone is not None
    [ddp] = bench.train("ddp", *words, "trainer.strategy=ddp")
    bench.near("ddp: loss", ddp["loss"], alone["loss"], 1e-3)
    for precision in ["fp32"] if bench.dry else ["fp32", "bf16"]:
        record, state, _ = bench.train_here(*words, f"precision={precision}", "seed=0", strategy="fsdp")
        name = f"fsdp {precision}"
        bench.check(f"{name}: state", state.state, state.state == "done", "done")
        if record is not None:
            bench.near(f"{name}: loss", record["loss"], alone["loss"], 1e-3 if precision == "fp32" else 2e-2)


def judge(bench: Bench) -> None:
    """See that the task's own scores are computed where the run trained."""
    from lmexp.tasks.classify import Classify
    from lmexp.tasks.seq2seq import Seq2Seq

    table = bench.folder / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(200 if bench.dry else 2000):
            writer.writerow([f"a {'good' if i % 3 else 'bad'} thing, number {i}", "yes" if i % 3 else "no"])
    budget = f"budget.tokens={16 if bench.dry else 256}_000"
    plain = [word for word in bench.words() if not word.startswith("data")]
    cases: dict[str, tuple[type, list[str]]] = {
        "seq2seq": (
            Seq2Seq,
            ["task=seq2seq", "model=encdec_nano", "data=numbers", "task.scored=64"],
        ),
        "classify": (Classify, ["task=classify", "model=bert_nano", "data=labels", f"data.path={table}"]),
    }
    for name, (task, words) in cases.items():
        seen: list[str] = []
        _note_device(task, seen)
        record, state, _ = bench.train_here(*plain, *words, "batch.tokens=4096", budget)
        bench.check(f"{name}: state", state.state, state.state == "done", "done")
        bench.check(f"{name}: judged on", ", ".join(sorted(set(seen))), set(seen) == {bench.kind}, bench.kind)
        for metric, value in (record or {}).items():
            if metric.startswith("score/"):
                bench.show(f"{name}: {metric}", value)


def _note_device(task: type, seen: list[str]) -> None:
    """Have a class of tasks note the devices it judges on."""
    original = task.judge  # type: ignore[attr-defined]

    def noting(self: Any, *arguments: Any) -> Any:
        seen.append(self.device.type)
        seen.extend(weight.device.type for weight in self.model.parameters())
        return original(self, *arguments)

    task.judge = noting  # type: ignore[attr-defined]


def sharing(bench: Bench) -> None:
    """Train two runs on one device at a time: each says that it was not alone, and both fit."""
    size = ["model=gpt_nano", "batch.tokens=8192", f"budget.tokens={64 if bench.dry else 4000}_000", "batch.micro=auto"]
    half = ["launcher.devices_per_run=0.5", "launcher.exclusive=false", "seed=0,1"]
    if bench.dry:
        half.append("launcher.slots=2")
    rows = bench.train("sharing", *bench.words(*size, *half))
    for row in rows:
        bench.check(f"seed {row['seed']}: exclusive", str(row["exclusive"]), row["exclusive"] is False, "False")
        bench.show(f"seed {row['seed']}: micro_batch", row["micro_batch"])

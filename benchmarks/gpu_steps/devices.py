"""Where things run: strategies at world size 1, judging on the run's own device, what else runs there."""

import csv
import os
import subprocess
import sys
from typing import Any

from gpu_steps.bench import Bench

SHARE = 0.02
"""The share of a device that each of the runs in `sharing` gets."""


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
    """Train two runs on one device at a time: each says that it was not alone, and stays in its share of the memory.

    The share is small, so that a whole step does not fit into it and `batch.micro=auto` has to choose.
    """
    from lmexp.cost.device import detect

    tokens = 16_384 if bench.dry else 262_144
    size = ["model=gpt_nano", f"batch.tokens={tokens}", f"budget.tokens={(4 if bench.dry else 30) * tokens}"]
    words = [*size, "batch.micro=auto", f"launcher.devices_per_run={SHARE}", "launcher.exclusive=false", "seed=0,1"]
    if bench.dry:
        words.append("launcher.slots=2")
    room = detect(bench.kind).memory_gb * SHARE
    for row in bench.train("sharing", *bench.words(*words)):
        name = f"seed {row['seed']}"
        bench.check(f"{name}: exclusive", str(row["exclusive"]), row["exclusive"] is False, "False")
        bench.check(f"{name}: device_share", row["device_share"], row["device_share"] == SHARE, str(SHARE))
        reserved = row["reserved_memory_gb"]
        bench.check(f"{name}: reserved memory, GB", reserved, bench.dry or reserved <= room, f"at most {room:.2f}")
        bench.show(f"{name}: micro_batch", row["micro_batch"], f"of {tokens // row['context']}")
    _context(bench)


def neighbours(bench: Bench) -> None:
    """Train a run alone, and one beside another program: only the first was exclusive."""
    words = bench.words("model=gpt_nano", "batch.tokens=1024", f"budget.tokens={4 if bench.dry else 100}_000")
    record, _, _ = bench.train_here(*words)
    exclusive = None if record is None else record["exclusive"]
    bench.check("alone: exclusive", str(exclusive), exclusive is True, "True")
    if bench.dry:
        return
    from lmexp.cost.nvml import Gpu

    listed = Gpu(0).processes()
    bench.show("processes that NVML lists", len(listed), "this one alone")
    bench.show("this process is among them", str(os.getpid() in listed))
    holds = "import torch; torch.ones(9, device='cuda').sum().item(); print(1, flush=True); input()"
    stranger = subprocess.Popen([sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        bench.show("processes that NVML lists then", len(Gpu(0).processes()), "two")
        # This run is a separate process, and the other program is not its child.
        [row] = bench.train("beside", *words, "seed=1")
    finally:
        stranger.kill()
        stranger.wait()
    bench.check("beside another program: exclusive", str(row["exclusive"]), row["exclusive"] is False, "False")


def _context(bench: Bench) -> None:
    """Show what the driver keeps for a process that multiplies, next to what torch has reserved."""
    import torch

    from lmexp.train.micro_batch import CONTEXT_BYTES

    if bench.dry:
        return
    before, _ = torch.cuda.mem_get_info()
    matrix = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    torch.nn.functional.scaled_dot_product_attention(*[(matrix @ matrix).view(4, 16, 4096, 64)] * 3).sum().backward()
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    outside, expected = (total - free - torch.cuda.memory_reserved()) / 1e9, CONTEXT_BYTES / 1e9
    bench.check("memory outside of torch, GB", outside, outside <= expected, f"{expected:g} at most")
    bench.show("of that, before the first kernel, GB", (total - before) / 1e9)

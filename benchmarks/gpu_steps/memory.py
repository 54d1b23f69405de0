"""Memory: what happens when there is too little, and whether the plan knows what a run takes."""

from pathlib import Path

from gpu_steps.bench import Bench

FRACTION = 0.01
"""The share of the GPU's memory that the process may have in `out_of_memory`."""
MODELS = {
    "gpt2": ["model=gpt2", "model.vocab_size=50304", "batch.tokens=16384"],
    "gpt2 of dropout": ["model=gpt2", "model.dropout=0.1", "batch.tokens=16384"],
    "llama": ["model=llama_mini", "model.context=1024", "model.vocab_size=32768", "batch.tokens=32768"],
    "moe": ["model=moe_tiny", "model.context=512", "batch.tokens=32768"],
    "lstm": ["model=lstm_tiny", "batch.tokens=32768"],
    "bert": ["model=bert_small", "task=masked_lm", "batch.tokens=65536"],
}


def out_of_memory(bench: Bench) -> None:
    """Let `batch.micro=auto` try sizes that do not fit; then a fixed one that does not."""
    import torch

    from lmexp.train import micro_batch

    sequences = 16 if bench.dry else 1024
    size = [
        "model=gpt_nano",
        "model.context=128",
        f"batch.tokens={128 * sequences}",
        f"budget.tokens={1280 * sequences}",
    ]
    words = bench.words(*size, f"budget.tokens={1280 * sequences}")
    original = micro_batch.free_bytes
    if not bench.dry:
        torch.cuda.set_per_process_memory_fraction(FRACTION)
        # The estimate knows of no limit, so that training meets the real one.
        micro_batch.free_bytes = lambda device, share: device.memory_gb * 1e9
    for compiled in ["false"] if bench.dry else ["false", "true"]:
        record, state, log = bench.train_here(*words, "batch.micro=auto", f"trainer.compile={compiled}")
        name = f"auto, compile={compiled}"
        bench.check(f"{name}: state", state.state, state.state == "done", "done")
        if record is None:
            continue
        missed = log.count("does not fit")
        bench.check(f"{name}: sizes that did not fit", missed, bench.dry or missed > 0, "more than 0")
        bench.show(f"{name}: micro_batch", record["micro_batch"], f"of {sequences}")
        fixed, _, _ = bench.train_here(*words, f"batch.micro={record['micro_batch']}")
        bench.near(f"{name}: loss", record["loss"], fixed["loss"] if fixed else float("nan"), 1e-3)
    if not bench.dry:
        micro_batch.free_bytes = original
        _, state, _ = bench.train_here(*words, f"batch.micro={sequences}", "seed=1")
        bench.check("a fixed micro-batch: state", state.state, state.state == "oom", "oom")


def memory_plan(bench: Bench) -> None:
    """Hold the estimate from a config against what torch's allocator gave out."""
    from lmexp.cost.memory import estimate_memory
    from lmexp.runs.directory import RunDir

    precisions = "fp32,bf16" if bench.dry else "fp32,bf16,bf16_true"
    calls = {}
    for name, words in MODELS.items():
        tokens = int(words[-1].partition("=")[2])
        calls[name.replace(" ", "_")] = bench.words(*words, f"budget.tokens={6 * tokens}", f"precision={precisions}")
    if bench.dry:
        calls = {"gpt": bench.words("model=gpt_nano", "batch.tokens=1024", "budget.tokens=6144", "precision=fp32,bf16")}
    for name, rows in bench.train_together(calls).items():
        for row in rows:
            run = RunDir(next(Path(bench.folder / name).glob(f"*/*{row['run_id']}")))
            estimate = estimate_memory(run.read_config(), bench.kind)
            ratio = estimate.peak / (row["peak_memory_gb"] * 1e9)
            top = max(estimate.phases, key=lambda phase: estimate.phases[phase])
            wanted = f"0.93 to 1.07 of {row['peak_memory_gb']:.3f} GB, highest at {top}"
            ok = bench.dry or 0.93 <= ratio <= 1.07
            bench.check(f"{name} {row['precision']}: planned / measured", ratio, ok, wanted)

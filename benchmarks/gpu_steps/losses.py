"""Losses: on the GPU as on the CPU, for each precision, each family, compiled and not."""

from gpu_steps.bench import Bench

TOLERANCE = {"fp32": 1e-3, "tf32": 5e-3, "bf16": 2e-2, "bf16_true": 3e-2, "fp16": 0.3, "fp8": 3e-2}
"""Nats between the losses of the same short run on two devices; rounding is amplified by every step. The scaler of
fp16 skips several of the first steps, which so few steps do not make up for; `resume` holds a longer run to less."""
MULTIPLIED_IN = {
    "fp32": "float32",
    "tf32": "tf32",
    "bf16": "bfloat16",
    "bf16_true": "bfloat16",
    "fp16": "float16",
    "fp8": "float8_e4m3fn",
}
CAUSAL = ("gpt_nano", "llama_nano", "moe_nano", "lstm_nano")


def precisions(bench: Bench) -> None:
    """Compare each precision with the CPU's own, or with fp32 where a CPU has none."""
    small = ["model=gpt_nano", "batch.tokens=512", "budget.tokens=4096"]
    usual = ["model=gpt_tiny", "batch.tokens=4096", "budget.tokens=163840"]
    size = small if bench.dry else usual
    here = ["fp32", "bf16", "bf16_true"] if bench.dry else list(TOLERANCE)
    calls = {
        "cpu": bench.words(*size, "precision=fp32,bf16,bf16_true", on="cpu"),
        "gpu": bench.words(*size, f"precision={','.join(here)}"),
    }
    if not bench.dry:
        calls["cpu8"] = bench.words(*size, "precision=fp8", "precision.emulate=true", on="cpu")
    done = bench.train_together(calls)
    reference = {row["precision"]: row["loss"] for row in [*done["cpu"], *done.get("cpu8", [])]}
    for row in done["gpu"]:
        name = row["precision"]
        bench.near(f"{name}: loss", row["loss"], reference.get(name, reference["fp32"]), TOLERANCE[name])
        kind = row["dtype_compute"]
        bench.check(f"{name}: multiplied in", kind, kind == MULTIPLIED_IN[name], MULTIPLIED_IN[name])
        skipped, is_scaled = row["skipped_steps"], name == "fp16"
        wanted = f"1 to {row['steps'] - 1}" if is_scaled else "None"
        bench.check(f"{name}: skipped steps", skipped, (0 < (skipped or 0) < row["steps"]) == is_scaled, wanted)


def families(bench: Bench) -> None:
    """Compare every family's loss and first gradient with the CPU's, in fp32, without dropout's own dice."""
    size = ["batch.tokens=1024", f"budget.tokens={4 if bench.dry else 30}_000"]
    kinds = {
        "causal": [f"model={','.join(CAUSAL)}"],
        "masked": ["model=bert_nano", "task=masked_lm", "model.dropout=0.0"],
        "pairs": ["model=encdec_nano", "model.dropout=0.0", "task=seq2seq", "data=numbers", "data.count=1000"],
    }

    def words(kind: str, on: str) -> list[str]:
        common = bench.words(*size, on=on)
        if kind == "pairs":
            common = [word for word in common if not word.startswith("data")]
        return [*common, *kinds[kind]]

    places = ["cpu"] if bench.dry else ["cpu", "gpu"]
    calls: dict[str, list[str]] = {}
    for place in places:
        on = "cpu" if place == "cpu" else bench.kind
        calls |= {f"{kind}_{place}": words(kind, on) for kind in kinds}
    done = bench.train_together(calls)
    for kind in kinds:
        for row in done[f"{kind}_{places[-1]}"]:
            other = next(each for each in done[f"{kind}_cpu"] if each["model"] == row["model"])
            bench.near(f"{row['model']}: loss", row["loss"], other["loss"], 2e-3)
            mine, theirs = bench.curve(f"{kind}_{places[-1]}", row)[0], bench.curve(f"{kind}_cpu", other)[0]
            norm = theirs["grad_norm"]
            bench.near(f"{row['model']}: norm of the first gradient", mine["grad_norm"], norm, 1e-3 * norm)


def compile(bench: Bench) -> None:
    """Compare losses with torch.compile, which is the default on a GPU, and without."""
    size = ["batch.tokens=1024", f"budget.tokens={3 if bench.dry else 30}_000"]
    models = "gpt_nano" if bench.dry else ",".join(CAUSAL)
    calls = {"causal": [f"model={models}", "precision=bf16"]}
    if not bench.dry:
        calls["masked"] = ["model=bert_nano", "task=masked_lm", "precision=bf16"]
        calls["precisions"] = ["model=gpt_nano", "precision=fp32,fp16,bf16_true"]
    done = bench.train_together(
        {name: bench.words(*size, *words, "trainer.compile=false,true") for name, words in calls.items()}
    )
    if not bench.dry:
        [default] = bench.train("default", *bench.words(*size, "trainer.compile=auto"))
        seconds = default["compile_seconds"]
        bench.check("by default: compile_seconds", seconds, seconds is not None, "more than 0")
    rows = [row for each in done.values() for row in each]
    compiled = [row for row in rows if row["compile_seconds"] is not None]
    bench.check("runs compiled", len(compiled), len(compiled) == len(rows) / 2, str(len(rows) // 2))
    for row in compiled:
        shape = ("model", "precision")
        eager = [each for each in rows if each["compile_seconds"] is None]
        same = next(each for each in eager if all(each[key] == row[key] for key in shape))
        name = f"{row['model']} {row['precision']}"
        bench.near(f"{name}: loss", row["loss"], same["loss"], TOLERANCE[row["precision"]])
        bench.check(f"{name}: compile_seconds", row["compile_seconds"], row["compile_seconds"] > 0, "more than 0")
        kind = row["dtype_compute"]
        wanted = MULTIPLIED_IN[row["precision"]]
        bench.check(f"{name}: multiplied in, compiled", kind, kind == wanted, wanted)

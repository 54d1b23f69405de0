"""Using a finished run: eval, score, generate and bench, on the device that is there."""

from concurrent.futures import ThreadPoolExecutor

from gpu_steps.bench import Bench


def use(bench: Bench) -> None:
    """Train one run, and use it in every way."""
    size = ["model=gpt_nano", "batch.tokens=1024", f"budget.tokens={8 if bench.dry else 60}_000"]
    [row] = bench.train("use", *bench.words(*size))
    name = row["run_id"]
    precisions = ["fp32"] if bench.dry else ["fp32", "tf32", "bf16", "fp16", "int8"]

    def loss(precision: str) -> float:
        loss: float = bench.lmexp("eval", name, "--precision", precision, outputs="use")["scores"]["loss"]
        return loss

    with ThreadPoolExecutor(len(precisions)) as pool:
        for precision, found in zip(precisions, pool.map(loss, precisions), strict=True):
            tolerance = 1e-4 if precision == "fp32" else 2e-2
            bench.near(f"eval --precision {precision}: loss", found, row["loss"], tolerance)
    words = bench.lmexp("generate", name, "line 1", "--tokens", "20", "--temperature", "0", outputs="use")["text"]
    bench.check("generate: characters", len(words), len(words) > 0, "more than 0")
    [sentence] = bench.lmexp("score", name, "line 7 of a text", outputs="use")["sentences"]
    bench.check("score: log-probability", sentence["log_probability"], sentence["log_probability"] < 0, "below 0")
    measured = bench.lmexp("bench", name, "--precision", "fp32", "--batch", "1", "--prompt", "16", outputs="use")
    for each in measured["rows"]:
        bench.show(f"bench {each['precision']}: decode tokens/s", each["decode_tokens_per_second"])

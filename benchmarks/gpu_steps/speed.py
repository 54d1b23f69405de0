"""Speed: lmexp's own training, a bare loop over the same model beside it, and decoding."""

import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from gpu_steps.bench import Bench, Record

STEPS = {"gpt2": 40, "llama_1b": 25}
GPT2 = ["model=gpt2", "model.vocab_size=50304", "batch.tokens=32768"]
LLAMA = ["model=llama_1b", "model.context=2048", "model.vocab_size=32768", "batch.tokens=16384"]
TINY = ["model=gpt_nano", "batch.tokens=512"]
PEAK_GOAL = {"gpt2": 0.50, "llama_1b": 0.55}


def gpt2(bench: Bench) -> None:
    """Train GPT-2 small in bf16, eager and compiled."""
    _train(bench, "gpt2", GPT2)


def llama_1b(bench: Bench) -> None:
    """Train a llama of 1B parameters in bf16, eager and compiled."""
    _train(bench, "llama_1b", LLAMA)


def gpt2_bare(bench: Bench) -> None:
    """Train the same GPT-2 in the shortest loop."""
    _bare(bench, GPT2)


def llama_1b_bare(bench: Bench) -> None:
    """Train the same llama in the shortest loop."""
    _bare(bench, LLAMA)


def decode(bench: Bench) -> None:
    """Continue prompts in bf16, one and sixteen at a time; first check that replayed steps give the same logits."""
    _replay(bench, is_compiled=False)
    _decode(bench, "1,16")


def decode_compiled(bench: Bench) -> None:
    """The same for one prompt, by compiled steps, which are recorded and replayed too."""
    _replay(bench, is_compiled=True)
    _decode(bench, "1", "--compile")


def _decode(bench: Bench, batches: str, *more: str) -> None:
    usual = {"gpt2": GPT2[1:2], "llama_1b": LLAMA[1:3]}
    tiny: dict[str, list[str]] = {"gpt_nano": []}
    for model, words in (tiny if bench.dry else usual).items():
        prompt, new = ("16", "8") if bench.dry else ("128", "64")
        options = ["--precision", "bf16", "--batch", batches, "--prompt", prompt, "--new", new, *more]
        place = f"trainer.accelerator={bench.kind}"
        measured = bench.lmexp("bench", f"model={model}", *words, "tokenizer=byte", place, *options)
        for row in measured["rows"]:
            name = f"{model}, batch {row['batch']}"
            bench.show(f"{name}: decode tokens/s", row["decode_tokens_per_second"])
            bench.show(f"{name}: share of the memory bandwidth", row["bandwidth_use"], "goal 0.65 at batch 1")
            bench.show(f"{name}: time to first token, ms", row["time_to_first_token_ms"])
            bench.show(f"{name}: compile_seconds", row["compile_seconds"])


def _replay(bench: Bench, is_compiled: bool) -> None:
    """Compare the logits of replayed steps with those of the model's own."""
    import torch

    from lmexp.models.build import build_model
    from lmexp.models.replay import FixedStep, GraphedStep, compile_step, pass_of
    from lmexp.resolve.sweep import resolve_sweep

    for name in ["llama_nano"] if is_compiled else ["gpt_nano", "llama_nano"]:
        words = bench.words(f"model={name}", "model.vocab_size=257")
        [planned] = resolve_sweep(None, words, bench.folder / "replay").runs
        model: Any = build_model(planned.config.model, 0).to(bench.kind).eval()
        tokens = torch.randint(257, (2, 24), device=bench.kind)
        forward = compile_step(model) if is_compiled else pass_of(model)
        own, fixed, furthest = model.new_cache(2, 24), model.new_cache(2, 24), 0.0
        with torch.inference_mode():
            for cache in (own, fixed):
                model(tokens[:, :8], cache)
            step = (FixedStep if bench.dry else GraphedStep)(fixed, forward)
            for place in range(8, 24):
                expected = model(tokens[:, place : place + 1], own, last_only=True)
                furthest = max(furthest, (step(tokens[:, place : place + 1]) - expected).abs().max().item())
        bench.check(f"{name}: largest error of a replayed logit", furthest, furthest < 1e-4, "less than 1e-4")


def _train(bench: Bench, name: str, words: list[str]) -> None:
    words = TINY if bench.dry else words
    steps = 8 if bench.dry else STEPS[name]
    budget = f"budget.tokens={steps * _tokens(words)}"
    both = "false" if bench.dry else "false,true"
    for row in bench.train(name, *bench.words(*words, budget, "precision=bf16", f"trainer.compile={both}")):
        how = "eager" if row["compile_seconds"] is None else "compiled"
        bench.show(f"{how}: tokens/s", row["tokens_per_second"])
        bench.show(
            f"{how}: MFU", row["mfu"], f"goal {PEAK_GOAL[name]}, of {(row['peak_flops'] or 0) / 1e12:.0f} TFLOP/s"
        )
        bench.show(f"{how}: MFU, causal attention", row["mfu_causal"])
        bench.show(f"{how}: step, ms, p50 and p95", f"{row['step_ms_p50']:.1f} {row['step_ms_p95']:.1f}")
        bench.show(f"{how}: peak memory, GB", row["peak_memory_gb"])
        bench.show(f"{how}: planned / peak memory", _planned_bytes(bench, name, row) / (row["peak_memory_gb"] * 1e9))
        bench.show(f"{how}: share of time waiting for data", row["data_wait_fraction"])
        bench.check(f"{how}: energy_source", row["energy_source"], bench.dry or row["energy_source"] == "nvml", "nvml")
        bench.show(f"{how}: energy, J a million tokens", _joules(row))
        bench.show(f"{how}: compile_seconds", row["compile_seconds"])
        bench.show(f"{how}: loss", row["loss"])
        bench.show(f"{how}: wall_seconds", row["wall_seconds"])


def _planned_bytes(bench: Bench, name: str, row: Record) -> int:
    """Return the estimate from the config of a run, which is that of eager training."""
    from lmexp.cost.memory import estimate_memory
    from lmexp.runs.directory import RunDir

    run = RunDir(next((bench.folder / name).glob(f"*/*{row['run_id']}")))
    return estimate_memory(run.read_config(), bench.kind).peak


def _joules(row: Record) -> float | None:
    kwh = row["kwh_per_million_tokens"]
    return None if kwh is None else kwh * 3.6e6


def _tokens(words: list[str]) -> int:
    return int(words[-1].partition("=")[2])


def _bare(bench: Bench, words: list[str]) -> None:
    """Time a loop without Lightning, meters or callbacks, eager and compiled."""
    import torch

    from lmexp.cost.device import detect
    from lmexp.cost.flops import count_run
    from lmexp.cost.hardware import hardware_of, peak_of
    from lmexp.models.build import build_model
    from lmexp.resolve.sweep import resolve_sweep

    words = TINY if bench.dry else words
    [planned] = resolve_sweep(None, bench.words(*words, "precision=bf16"), bench.folder / "bare").runs
    config = planned.config
    device = detect(bench.kind)
    peak = peak_of(hardware_of(config.hardware, device), "bf16")
    torch.set_float32_matmul_precision("highest")
    place = torch.device(bench.kind)
    with place:
        model: Any = build_model(config.model, config.seed)
    for how in ["eager"] if bench.dry else ["eager", "compiled"]:
        if how == "compiled":  # layer by layer, which takes seconds; the loss stays eager
            for layer in model.layers():
                layer.compile()
        times = list(_steps(model, config, place, 6 if bench.dry else 20))
        speed = config.batch.tokens / median(times[len(times) // 3 :])
        bench.show(f"{how}: tokens/s", speed)
        flops = speed * count_run(config).flops_per_token
        bench.show(f"{how}: MFU", flops / peak[0] if peak else None)
        bench.show(f"{how}: first step, s", times[0])


def _steps(model: Any, config: Any, place: Any, steps: int) -> Iterator[float]:
    """Train and yield each step's seconds; batches are random tokens on the device already."""
    import torch
    from torch.nn import functional as F

    context = config.model.context
    shape = (config.batch.tokens // context, context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = torch.randint(256, shape, device=place)
    for _ in range(steps):
        started = time.perf_counter()
        with torch.autocast(place.type, torch.bfloat16):
            logits = model(tokens)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if place.type == "cuda":
            torch.cuda.synchronize()
        yield time.perf_counter() - started

"""A study on disk, as the launcher and eight finished runs leave it: real run directories, invented numbers.

The losses follow a small scaling law, so that the frontier and the effects of the axes are known in advance:
bf16 costs 0.01 nats and takes half the seconds; two more layers give 0.2 nats for twice the FLOPs.
"""

import itertools
import math
from pathlib import Path
from typing import Any

from lmexp.config.schema import RunConfig
from lmexp.files import hash_text, write_json
from lmexp.runs.directory import RunDir
from lmexp.runs.record import complete, identity_columns

MODELS = {"gpt_nano": 64, "gpt_tiny": 128}
LAYERS = (2, 4)
PRECISIONS = ("fp32", "bf16")
QUESTION = "Does bf16 cost quality, and what does it buy, as the model grows?"


def config(model: str, n_layers: int, precision: str, seed: int = 0, sweep: str = "demo", slug: str = "") -> RunConfig:
    """Return the resolved config of one invented run."""
    slug = slug or f"{model}-l{n_layers}-{precision}-s{seed}"
    low = "bf16" if precision == "bf16" else "fp32"
    return RunConfig.model_validate(
        {
            "seed": seed,
            "model": {
                "_target_": "lmexp.models.gpt.GPT",
                "name": model,
                "n_layers": n_layers,
                "d_model": MODELS[model],
                "n_heads": 4,
                "context": 128,
                "vocab_size": 512,
            },
            "data": {"source": "stdlib"},
            "tokenizer": {"kind": "bpe", "vocab_size": 512},
            "task": {"_target_": "lmexp.tasks.causal_lm.CausalLM"},
            "optim": {"_target_": "torch.optim.AdamW", "lr": 1e-3},
            "schedule": {"name": "cosine"},
            "budget": {"tokens": 1_000_000},
            "batch": {"tokens": 8192},
            "precision": {
                "name": precision,
                "weights": "fp32",
                "gradients": "fp32",
                "optimizer": "fp32",
                "compute": low,
                "lightning": "bf16-mixed" if low == "bf16" else "32-true",
            },
            "trainer": {},
            "logger": {"name": "none"},
            "run": {
                "id": hash_text(f"{sweep} {model} {n_layers} {precision} {seed}", 12),
                "sweep": sweep,
                "slug": slug,
            },
        }
    )


def final_loss(model: str, n_layers: int, precision: str, seed: int = 0) -> float:
    """The invented law."""
    return (
        {"gpt_nano": 3.1, "gpt_tiny": 2.7}[model]
        - 0.1 * (n_layers - 2)
        + (0.01 if precision == "bf16" else 0)
        + 0.002 * seed
    )


def record_of(run_config: RunConfig, loss: float) -> dict[str, Any]:
    """Return the record's row of an invented run."""
    model, tokens = run_config.model, 1_000_000
    n_params = 12 * model.n_layers * model.d_model**2 + 512 * model.d_model
    flops = 6.0 * n_params * tokens
    seconds = flops / (2e11 if run_config.precision.name == "fp32" else 4e11)
    return complete(
        {
            **identity_columns(run_config),
            "n_params": n_params,
            "n_params_matmul": n_params,
            "loss": loss,
            "perplexity": math.exp(loss),
            "bits_per_byte": loss / math.log(2) / 2.3,
            "accuracy": 0.55 - loss / 10,
            "score/hellaswag/acc": 0.6 - loss / 20,
            "tokens": tokens,
            "flops_per_token": 6.0 * n_params,
            "train_flops": flops,
            "steps": 122,
            "tokens_per_second": tokens / seconds,
            "step_ms_p50": 1000 * seconds / 122,
            "train_seconds": seconds,
            "wall_seconds": seconds + 1.5,
            "peak_memory_gb": 0.1 + n_params * 16 / 1e9,
            "weights_gb": n_params * 4 / 1e9,
            "dtype_weights": "float32",
            "exclusive": True,
            "world_size": 1,
            "device_name": "cpu",
            "started": "2025-01-01T00:00:00Z",
            "finished": "2025-01-01T00:00:10Z",
            "schema_version": 1,
        }
    )


def write_curve(run: RunDir, loss: float, flops: float, seconds: float, points: int = 122, upto: float = 1.0) -> None:
    """Write a curve that falls to `loss`: a training point a step, a validation point each quarter."""
    for step in range(1, int(points * upto) + 1):
        share = step / points
        here = loss + 2.5 * math.exp(-6 * share) - 2.5 * math.exp(-6)
        at = {
            "step": step,
            "tokens": round(1e6 * share),
            "flops": flops * share,
            "seconds": seconds * share,
        }
        wiggle = 0.04 * math.sin(step * 12.9898)
        run.append_point({**at, "train_loss": here + wiggle, "lr": 1e-3, "tokens_per_second": 1e5})
        if step % max(points // 8, 1) == 0 or step == points:
            run.append_point({**at, "loss": here, "perplexity": math.exp(here), "bits_per_byte": here / 1.6})


def write_run(path: Path, run_config: RunConfig, loss: float, points: int = 122) -> RunDir:
    """Write a finished run."""
    run = RunDir.create(path, run_config)
    row = record_of(run_config, loss)
    write_curve(run, loss, row["train_flops"], row["train_seconds"], points)
    run.write_record([row])
    run.update_state(state="done", attempts=1)
    return run


def write_study(outputs: Path, name: str = "demo", slug: str | None = None, points: int = 122) -> Path:
    """Write a sweep of eight finished runs, one failed, one diverged, one skipped cell; return its folder.

    `slug` renames the best run, to see what becomes of a hostile name.
    """
    folder = outputs / name
    cells = []

    def add(model: str, layers: int, precision: str, seed: int = 0) -> tuple[Path, RunConfig]:
        best = (model, layers, precision) == ("gpt_tiny", 4, "fp32")
        made = config(model, layers, precision, seed, name, slug if slug and best else "")
        path = folder / f"{model}-l{layers}-{precision}-s{seed}"
        values = {"model": model, "model.n_layers": layers, "precision": precision, "seed": seed}
        assert made.run is not None
        cells.append({"run_id": made.run.id, "path": path.name, "values": values})
        return path, made

    for model, layers, precision in itertools.product(MODELS, LAYERS, PRECISIONS):
        path, made = add(model, layers, precision)
        write_run(path, made, final_loss(model, layers, precision), points)
    path, made = add("gpt_nano", 2, "bf16", seed=1)
    RunDir.create(path, made).update_state(state="failed", reason="OSError: no space left on device")
    path, made = add("gpt_tiny", 4, "bf16", seed=1)
    run = RunDir.create(path, made)
    write_curve(run, 4.0, 1e12, 5.0, upto=0.3)
    run.update_state(state="diverged", reason="the loss was NaN at step 40")

    write_json(
        folder / "sweep.json",
        {
            "schema_version": 1,
            "name": name,
            "question": QUESTION,
            "axes": {
                "model": list(MODELS),
                "model.n_layers": list(LAYERS),
                "precision": list(PRECISIONS),
                "seed": [0, 1],
            },
            "cells": cells,
            "skipped": [{"values": {"model": "gpt_tiny", "precision": "fp16"}, "reason": "this device has no fp16"}],
        },
    )
    return folder

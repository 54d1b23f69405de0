"""A study on disk whose losses follow a law exactly: real run directories, invented numbers.

FLOPs are 6ND, and every run has the same MFU, so that what advice must say is known in closed form.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmexp.config.compose import Composer
from lmexp.config.paths import shipped_root
from lmexp.config.schema import RunConfig, RunInfo
from lmexp.cost.flops import count_run
from lmexp.files import hash_text, write_json
from lmexp.runs.directory import RunDir
from lmexp.runs.record import complete, identity_columns

E, A, B, ALPHA, BETA = 1.5, 120.0, 400.0, 0.30, 0.34
"""The law."""
WIDTHS = (32, 64, 96, 160, 256, 384)
TOKENS = (1e6, 4e6, 1.6e7, 6.4e7)
MFU, PEAK = 0.4, 2e11
"""tokens/s = MFU PEAK / (6 N), twice that in bf16."""
DOLLARS_PER_HOUR = 3.0
ARMS = (("gpt", "fp32"), ("gpt", "bf16"))


def law(params: float, tokens: float) -> float:
    """The loss."""
    return float(E + A * params**-ALPHA + B * tokens**-BETA)


def best(flops: float) -> tuple[float, float, float]:
    """N*, D*, L* of a budget, in closed form."""
    scale = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    params = scale * (flops / 6) ** (BETA / (ALPHA + BETA))
    return params, flops / 6 / params, law(params, flops / 6 / params)


def seconds_per_flop(precision: str) -> float:
    """What a FLOP takes."""
    return 1 / (MFU * PEAK * (2 if precision == "bf16" else 1))


def lawful_study(
    outputs: Path,
    name: str = "lawful",
    arms: Sequence[tuple[str, str]] = ARMS,
    widths: Sequence[int] = WIDTHS,
    tokens: Sequence[float] = TOKENS,
    worse: float = 0.005,
    noise: float = 0.002,
    state: str = "done",
    flops: Sequence[float] = (),
    **columns: Any,
) -> Path:
    """Write a study of every width at every number of tokens in each arm; the second arm's losses are `worse`.

    With `flops`, the budgets are these amounts of compute instead of numbers of tokens.
    """
    random = np.random.default_rng(0)
    folder = outputs / name
    cells = []
    kind = "budget.flops" if flops else "budget.tokens"
    for number, (family, precision) in enumerate(arms):
        words = [
            f"precision={precision}",
            f"model={family}",
            "model.n_layers=2",
            "model.context=64",
            "batch.tokens=512",
        ]
        words += ["model.n_heads=2", "tokenizer=byte", "model.vocab_size=257", "model.d_model=64"]
        base = Composer([shipped_root()], words=words).config({})
        for width in widths:
            for amount in flops or tokens:
                values = {"model": family, "precision": precision, "model.d_model": width, kind: int(amount)}
                model = base.model.model_copy(update={"d_model": width})
                info = RunInfo(id=hash_text(f"{name}{values}", 12), sweep=name, slug=f"{family}-{precision}-{width}")
                made = base.model_copy(update={"model": model, "run": info})
                params = count_run(made).n_params
                budget = amount / (6 * params) if flops else amount
                made = made.model_copy(update={"budget": base.budget.model_copy(update={"tokens": int(budget)})})
                path = folder / f"{family}-{precision}-{width}-{int(amount)}"
                run = RunDir.create(path, made)
                loss = (law(params, budget) + worse * number) * float(np.exp(noise * random.normal()))
                if state == "done":
                    run.write_record([_row(made, params, budget, loss) | columns])
                run.update_state(state=state, reason=None if state == "done" else "OSError: no space left on device")
                cells.append({"run_id": info.id, "path": path.name, "values": values})
    axes = {"model": [], "precision": [], "model.d_model": list(widths), kind: list(map(int, flops or tokens))}
    axes["model"] = list(dict.fromkeys(family for family, _ in arms))
    axes["precision"] = list(dict.fromkeys(precision for _, precision in arms))
    write_json(folder / "sweep.json", {"schema_version": 1, "name": name, "axes": axes, "cells": cells, "skipped": []})
    return folder


def _row(made: RunConfig, params: int, tokens: float, loss: float) -> dict[str, Any]:
    flops = 6.0 * params * tokens
    seconds = flops * seconds_per_flop(made.precision.name)
    return complete(
        {
            **identity_columns(made),
            "n_params": params,
            "n_params_matmul": params,
            "loss": loss,
            "perplexity": float(np.exp(loss)),
            "tokens": int(tokens),
            "epochs": tokens / 1e9,
            "flops_per_token": 6.0 * params,
            "train_flops": flops,
            "tokens_per_second": tokens / seconds,
            "mfu": MFU,
            "train_seconds": seconds,
            "wall_seconds": seconds,
            "peak_memory_gb": 16 * params / 1e9,
            "dollars": DOLLARS_PER_HOUR * seconds / 3600,
            "dollars_per_hour": DOLLARS_PER_HOUR,
            "exclusive": True,
            "world_size": 1,
            "device_name": "NVIDIA A10",
            "data_fingerprint": "d",
            "tokenizer_fingerprint": "t",
            "finished": "2026-01-01T00:00:00Z",
            "schema_version": 1,
        }
    )

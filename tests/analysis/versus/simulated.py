"""Studies whose losses follow a law, with a known speedup of the second arm and known noise."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmexp.analysis.table import Study, _frame
from lmexp.analysis.versus.arms import arms_by_words
from lmexp.analysis.versus.versus import Versus, versus

E, A, ALPHA = 1.8, 60.0, 0.12
"""The law of loss against FLOPs."""


def law(flops: float) -> float:
    """The loss of the baseline."""
    return float(E + A * flops**-ALPHA)


def flops_at(loss: float) -> float:
    """The FLOPs of the baseline, in closed form."""
    return float(((loss - E) / A) ** (-1 / ALPHA))


def row(arm: str, flops: float, seed: int, loss: float, **columns: Any) -> dict[str, Any]:
    """A finished run with 1e9 FLOPs and a microsecond a token."""
    return {
        "optim": arm,
        "train_flops": float(flops),
        "tokens": float(flops) / 1e9,
        "train_seconds": float(flops) / 1e15,
        "seed": seed,
        "loss": float(loss),
        "perplexity": float(np.exp(loss)),
        "task": "causal_lm",
        "state": "done",
        "slug": f"{arm}-{seed}",
        "device_name": "a",
    } | columns


def study_of(rows: Sequence[dict[str, Any]], axes: Sequence[str]) -> Study:
    """A study of one sweep; rows without a run_id are runs."""
    named = [{"run_id": str(at), "unit": one.get("run_id", str(at))} | one for at, one in enumerate(rows)]
    values = {axis: list(dict.fromkeys(one.get(axis) for one in named)) for axis in axes}
    members = {"s": frozenset(str(one["run_id"]) for one in named)}
    return Study(("s",), (), values, _frame(named, values), (), 0, members, {})


def budgets_study(
    speedup: float,
    budgets: Sequence[float],
    seeds: int = 1,
    noise: float = 0.0,
    shared_noise: float = 0.0,
    arm_budgets: Sequence[float] | None = None,
    random: np.random.Generator | None = None,
) -> Study:
    """Two optimizers at several budgets; noise is relative, and `shared_noise` is the same in both runs of a pair."""
    random = random or np.random.default_rng(0)
    shared = {(flops, seed): shared_noise * random.normal() for flops in budgets for seed in range(seeds)}
    rows = [
        row(
            arm,
            flops,
            seed,
            law(flops * factor) * float(np.exp(noise * random.normal() + shared.get((flops, seed), 0.0))),
            **{"budget.flops": float(flops)},
        )
        for arm, factor, of_arm in (("adamw", 1.0, budgets), ("muon", speedup, arm_budgets or budgets))
        for flops in of_arm
        for seed in range(seeds)
    ]
    return study_of(rows, ("optim", "budget.flops", "seed"))


def milestones_study(
    speedup: float,
    seeds: int = 1,
    noise: float = 0.0,
    shared_noise: float = 0.0,
    random: np.random.Generator | None = None,
) -> Study:
    """Two optimizers at two widths, each run with nine milestones; 70 % of a run's noise is that of its trunk."""
    random = random or np.random.default_rng(0)
    rows = []
    for width in (32, 64):
        for seed in range(seeds):
            of_pair = shared_noise * random.normal()
            for arm, factor in (("adamw", 1.0), ("muon", speedup)):
                of_trunk = of_pair + np.sqrt(0.7) * noise * random.normal()
                for share in np.geomspace(0.2, 1, 9):
                    flops = float(share * width * 1e15)
                    lost = of_trunk + np.sqrt(0.3) * noise * random.normal()
                    named = {"run_id": f"{arm}-{width}-{seed}", "model.d_model": width}
                    rows.append(row(arm, flops, seed, law(flops * factor) * float(np.exp(lost)), **named))
    return study_of(rows, ("optim", "model.d_model", "seed"))


def compared(study: Study, arms: Sequence[str] = ("optim=adamw,muon",), **options: Any) -> Versus:
    """The comparison of a study's two optimizers."""
    return versus(study, arms_by_words(study, arms), **options)

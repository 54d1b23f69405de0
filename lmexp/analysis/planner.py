"""What a sweep will take, said before anything runs: from configs alone."""

from collections.abc import Iterable

from lmexp.config.compose import Values
from lmexp.config.schema import RunConfig
from lmexp.cost.flops import count_model
from lmexp.cost.horizon import Horizon
from lmexp.cost.memory import estimate_memory
from lmexp.runs.record import Row

PLAN_COLUMNS = {
    "n_params": "params",
    "flops_per_token": "FLOPs\n/token",
    "tokens": "tokens",
    "steps": "steps",
    "train_flops": "FLOPs",
    "weights_gb": "weights",
    "optimizer_gb": "optim",
}
"""The columns of a plan that a terminal shows, with their headings. Activations are not in the memory."""


def plan(runs: Iterable[tuple[Values, RunConfig, Horizon]]) -> list[Row]:
    """Return a row for each run: its swept values, then what it takes; GB are 1e9 bytes."""
    rows = []
    for values, config, length in runs:
        count, memory = count_model(config.model), estimate_memory(config)
        figures: Row = {
            "n_params": count.n_params,
            "flops_per_token": count.flops_per_token,
            "tokens": length.tokens,
            "steps": length.steps,
            "train_flops": length.flops,
            "weights_gb": memory.weights / 1e9,
            "gradients_gb": memory.gradients / 1e9,
            "optimizer_gb": memory.optimizer / 1e9,
        }
        name = {"model": config.model.name, "precision": config.precision.name} if not values else {}
        rows.append(name | dict(values) | figures)
    return rows

"""What a sweep will take, said before anything runs: from configs alone."""

from collections.abc import Iterable

from lmexp.config.compose import Values
from lmexp.config.schema import RunConfig
from lmexp.cost.flops import count_model
from lmexp.cost.horizon import Horizon
from lmexp.cost.memory import estimate_memory
from lmexp.runs.record import Row

PLAN_COLUMNS = {
    "n_params": "parameters",
    "flops_per_token": "FLOPs per token",
    "tokens": "tokens",
    "steps": "steps",
    "train_flops": "training FLOPs",
    "weights_gb": "weights GB",
    "gradients_gb": "gradients GB",
    "optimizer_gb": "optimizer GB",
}
"""The columns of a plan with their headings; GB are 1e9 bytes. Activations are not in them."""


def plan(runs: Iterable[tuple[Values, RunConfig, Horizon]]) -> list[Row]:
    """Return a row for each run: its swept values, then PLAN_COLUMNS."""
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

"""Checkpoints of earlier versions, in which llama, moe, bert and encdec had a weight each for queries, keys and values.

A run that was stopped by such a version goes on: its weights and the state of its optimizer are stacked as the models
have them now. The weights alone, as in final/, are stacked when a model loads them; see models/stacked.py.
"""

from typing import Any

import torch

from lmexp.models.stacked import part_names, stack_parts
from lmexp.tasks.base import Task


def stack_checkpoint(content: dict[str, Any], task: Task) -> None:
    """Stack the weights and the optimizer's state of an old checkpoint in place; leave any other as it is.

    Raises ValueError if the state of the optimizer is not known, or of sharded models, which Lightning reads itself.
    """
    weights = content.get("state_dict", {})  # of a sharded model, Lightning gives callbacks no weights
    names = {name: list(parts) for name, parts in part_names(task).items()}
    names = {name: parts for name, parts in names.items() if all(part in weights for part in parts)}
    if not names:
        return
    if task.config.trainer.strategy == "fsdp":
        raise ValueError("it is of an earlier version of lmexp, from which a sharded model cannot go on")
    stack_parts(weights, names)
    if best := content["callbacks"].get("Evaluation"):
        stack_parts(best["best"]["weights"], names)
    _stack_optimizer(content["optimizer_states"][0], task, names)


def _stack_optimizer(kept: dict[str, Any], task: Task, names: dict[str, list[str]]) -> None:
    """Stack the state of parts, and number all states anew: they are numbered in the order of the groups' weights."""
    if task.config.optim.moments is None:
        raise ValueError("it is of an earlier version of lmexp, and its optimizer's state is not known")
    name_of = {id(weight): name for name, weight in task.named_parameters()}
    old, states, next_old, next_new = kept["state"], {}, 0, 0
    for group, target in zip(kept["param_groups"], task.configure_optimizers().param_groups, strict=True):
        first = next_new
        for weight in target["params"]:
            count = len(names.get(name_of[id(weight)], "1"))
            parts = [old[place] for place in range(next_old, next_old + count) if place in old]
            if parts:
                states[next_new] = parts[0] if count == 1 else _stacked(parts)
            next_old, next_new = next_old + count, next_new + 1
        group["params"] = list(range(first, next_new))
    kept["state"] = states


def _stacked(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the state of a stacked weight; numbers, such as a count of steps, are the same for all parts."""
    return {
        key: torch.cat([part[key] for part in parts]) if torch.is_tensor(value) and value.ndim else value
        for key, value in parts[0].items()
    }

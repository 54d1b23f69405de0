"""torch.compile in training: what of a model is compiled. config/checks.py says for which runs `auto` chooses it.

Each layer is compiled by itself, so that layers of one shape share one graph: GPT-2 small was ready after 3 seconds
instead of 18, at the same speed (docs/gpu.md). The loss of a piece of tokens is compiled too. Graphs are for the one
shape that a run trains with; batches of other shapes, such as the last one of a split, run without them.
"""

import shutil
from importlib.util import find_spec

import torch

from lmexp.config.checks import has_one_shape, may_be_compiled, micro_batch
from lmexp.config.schema import RunConfig
from lmexp.tasks.base import Task
from lmexp.tasks.cross_entropy import piece_of


def compiles(config: RunConfig, device_kind: str) -> bool:
    """Whether a run on a device of this kind is compiled here: `auto` also needs Triton and a C compiler."""
    has_tools = find_spec("triton") is not None and any(shutil.which(name) for name in ("cc", "gcc", "clang"))
    return may_be_compiled(config, device_kind) and (config.trainer.compile is True or has_tools)


def compile_task(task: Task) -> None:
    """Compile a task's layers and its loss, in place."""
    one_shape = has_one_shape(task.config)
    dynamic = False if one_shape else None  # None: the second shape that is seen gets a graph for all others
    for layer in task.model.layers():
        layer.compile(dynamic=dynamic)
    task.piece = torch.compile(piece_of, dynamic=dynamic)
    task.compiled_for = micro_batch(task.config) if one_shape else None

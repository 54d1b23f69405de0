"""torch.compile in training: which runs use it, and what of a model is compiled.

Each layer is compiled by itself, so that layers of one shape share one graph: GPT-2 small was ready after 3 seconds
instead of 18, at the same speed (docs/gpu.md). The loss of a piece of tokens is compiled too. Graphs are for the one
shape that a run trains with; batches of other shapes, such as the last one of a split, run without them.
"""

import shutil
from importlib.util import find_spec

import torch

from lmexp.config.checks import micro_batch
from lmexp.config.models.base import CountedSection
from lmexp.config.schema import RunConfig
from lmexp.tasks.base import Task
from lmexp.tasks.cross_entropy import piece_of


def compiles(config: RunConfig, device_kind: str) -> bool:
    """Whether a run on a device of this kind (`cpu`, `cuda`, `mps`) is compiled.

    `auto` compiles the families of lmexp on CUDA devices, for tasks whose batches all have the same shape; there it
    saved a fifth of the time or more (docs/gpu.md). On a CPU compiling takes longer than it saves in most runs.
    """
    if config.trainer.compile != "auto":
        return config.trainer.compile
    is_ours = not isinstance(config.model, CountedSection)
    can = find_spec("triton") is not None and any(shutil.which(name) for name in ("cc", "gcc", "clang"))
    return device_kind == "cuda" and is_ours and has_one_shape(config) and can


def has_one_shape(config: RunConfig) -> bool:
    """Whether all batches of a run are windows of the same length."""
    return config.task.label_head() is None and config.model.reads != "source_to_target"


def compile_task(task: Task) -> None:
    """Compile a task's layers and its loss, in place."""
    one_shape = has_one_shape(task.config)
    dynamic = False if one_shape else None  # None: the second shape that is seen gets a graph for all others
    for layer in task.model.layers():
        layer.compile(dynamic=dynamic)
    task.piece = torch.compile(piece_of, dynamic=dynamic)
    task.compiled_for = micro_batch(task.config) if one_shape else None

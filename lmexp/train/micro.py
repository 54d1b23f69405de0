"""The micro-batch that fits: `batch.micro=auto`.

The global batch is what was asked for, so a smaller micro-batch means more of them, not another result. The
search begins with the largest divisor whose estimate fits the free memory and, should the device not have it
after all, goes on with the next smaller one. Several devices take the estimate's word: one that ran out of
memory would leave the others waiting for it.
"""

import gc
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from lmexp.config.checks import device_batch, world_size
from lmexp.config.schema import RunConfig
from lmexp.cost.device import Device, detect
from lmexp.cost.memory import estimate_memory

SPARE = {"cpu": 0.3, "cuda": 0.1, "mps": 0.3}
"""Share of the free memory that is left free: what an estimate may be wrong by, and on a CPU what malloc keeps."""
CGROUP = Path("/sys/fs/cgroup")


def fit_micro_batch(config: RunConfig, train: Callable[[RunConfig], None]) -> None:
    """Train with the largest micro-batch that fits; with the one that was asked for, if one was.

    Raises what `train` raises; out of memory only when the smallest did not fit either.
    """
    sizes = sizes_to_try(config)
    for i, micro in enumerate(sizes):
        try:
            return train(with_micro(config, micro))
        except Exception as error:
            if i == len(sizes) - 1 or not is_out_of_memory(error):
                raise
            print(f"a micro-batch of {micro} sequences does not fit; trying {sizes[i + 1]}", flush=True)
        gc.collect()  # what failed is held by its traceback until here
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def with_micro(config: RunConfig, micro: int | None) -> RunConfig:
    """Return a config with this micro-batch, None meaning all that a device has of a step."""
    return config.model_copy(update={"batch": config.batch.model_copy(update={"micro": micro})})


def sizes_to_try(config: RunConfig) -> list[int | None]:
    """Return micro-batches in sequences, the one to begin with first: more than one only for `auto`."""
    if config.batch.micro != "auto":
        return [config.batch.micro]
    each = device_batch(config)
    divisors = [size for size in range(each, 0, -1) if each % size == 0]
    device = detect(config.trainer.accelerator)
    room = (1 - SPARE[device.kind]) * free_bytes(device) / (1 if device.kind != "cpu" else world_size(config))
    fitting = [size for size in divisors if estimate_memory(config, device.kind, size).peak <= room] or [1]
    return list(fitting if world_size(config) == 1 else fitting[:1])


def free_bytes(device: Device) -> float:
    """Return the bytes that a process can still take on a device, limits of its container included."""
    if device.kind == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    free = float(psutil.virtual_memory().available)
    try:  # cgroup v2, as in containers and under Slurm
        limit, used = (CGROUP / "memory.max").read_text().strip(), (CGROUP / "memory.current").read_text()
    except OSError:
        return free
    return free if limit == "max" else min(free, float(limit) - float(used))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or on the host."""
    said = ("not enough memory", "allocate memory", "out of memory", "ALLOC_FAILED")
    is_said = isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    return is_said or isinstance(error, MemoryError | torch.OutOfMemoryError)

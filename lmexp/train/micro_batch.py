"""The micro-batch that fits: `batch.micro=auto`.

The global batch is what was asked for, so a smaller micro-batch means more of them, not another result. The
search begins with the largest divisor whose estimate fits the free memory and, should the device not have it
after all, goes on with the next smaller one; a GPU says so, while Linux ends a process that takes too much of the
machine's own. Several devices take the estimate's word: one that ran out would leave the others waiting for it.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import psutil
import torch

from lmexp.config.checks import world_size
from lmexp.config.schema import RunConfig
from lmexp.cost.device import Device, detect, is_out_of_memory
from lmexp.cost.memory import fitting_micro_batches

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
    """Return micro-batches in sequences, the one to begin with first: more than one only for `auto` on one device.

    Several processes must come to one answer, so they go by the memory that the device has, not by what is free.
    """
    if config.batch.micro != "auto":
        return [config.batch.micro]
    device, processes = detect(config.trainer.accelerator), world_size(config)
    if processes > 1:
        share = processes if device.kind == "cpu" else 1
        return list(fitting_micro_batches(config, device.kind, device.memory_gb * 1e9 / share)[:1])
    return list(fitting_micro_batches(config, device.kind, free_bytes(device)))


def free_bytes(device: Device) -> float:
    """Return the bytes that this process can still take on its device, limits of its container included."""
    if device.kind == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    free = float(psutil.virtual_memory().available)
    return min([free, *(limit - used for limit, used in _container_limits())])


def _container_limits() -> Iterator[tuple[float, float]]:
    """Yield limit and use, in bytes, of each control group (v2) that this process is in; cached files do not count."""
    try:
        group = PurePosixPath(Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip())
    except OSError:
        return
    for folder in (CGROUP / str(part).lstrip("/") for part in (group, *group.parents)):
        with suppress(OSError, ValueError, StopIteration):
            limit = float((folder / "memory.max").read_text())  # ValueError: `max`, no limit
            lines = (folder / "memory.stat").read_text().splitlines()
            cached = next(float(line.split()[1]) for line in lines if line.startswith("inactive_file "))
            yield limit, float((folder / "memory.current").read_text()) - cached

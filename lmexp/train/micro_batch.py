"""The micro-batch that fits into memory: `batch.micro=auto`.

The global batch size is given, so a smaller micro-batch means more of them for each step and changes no result. The
search starts with the largest divisor whose estimated memory fits into what is free. If a GPU then runs out of memory,
the next smaller divisor is tried; on a CPU, Linux kills a process that takes too much instead. Several devices rely on
the estimate, because a process that runs out of memory would leave the others waiting for it.
"""

import gc
from collections.abc import Callable

import psutil
import torch

from lmexp.config.checks import device_share, world_size
from lmexp.config.schema import RunConfig
from lmexp.cost.cgroups import memory_limits
from lmexp.cost.device import Device, detect, is_out_of_memory
from lmexp.cost.memory import fitting_micro_batches
from lmexp.train.compiling import compiles

CONTEXT_BYTES = 1e9
"""What the driver keeps of a GPU's memory for a process: its context and its kernels, 0.80 GB on an H200. torch does
not count it."""


def fit_micro_batch(config: RunConfig, train: Callable[[RunConfig], None]) -> None:
    """Call `train` with the configured micro-batch, or with the largest that fits if it is `auto`.

    Raises what `train` raises; an error for lack of memory only if the smallest micro-batch did not fit either.
    """
    sizes = sizes_to_try(config)
    for i, micro in enumerate(sizes):
        try:
            return train(with_micro(config, micro))
        except Exception as error:
            if i == len(sizes) - 1 or not is_out_of_memory(error):
                raise
            print(f"a micro-batch of {micro} sequences does not fit; trying {sizes[i + 1]}", flush=True)
        forget_training(config)  # until here the traceback of the error keeps the tensors alive


def forget_training(config: RunConfig) -> None:
    """Free the memory of a training that is over, and its compiled graphs, before this process starts another one."""
    gc.collect()
    if compiles(config, detect(config.trainer.accelerator).kind):
        torch.compiler.reset()  # otherwise another size gets a slower graph, for batches of any size
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def with_micro(config: RunConfig, micro: int | None) -> RunConfig:
    """Return the config with this micro-batch, in sequences; None means the whole share that a device has of a step."""
    return config.model_copy(update={"batch": config.batch.model_copy(update={"micro": micro})})


def sizes_to_try(config: RunConfig) -> list[int | None]:
    """Return the micro-batches to try, in sequences, in order; more than one only for `auto` on one device.

    Several processes must choose the same, so they go by the total memory of the device instead of its free memory.
    """
    if config.batch.micro != "auto":
        return [config.batch.micro]
    device, processes = detect(config.trainer.accelerator), world_size(config)
    share = device_share(config, device.kind)
    if processes > 1:
        per_device = processes if device.kind == "cpu" else 1
        return list(fitting_micro_batches(config, device.kind, device.memory_gb * 1e9 * share / per_device)[:1])
    return list(fitting_micro_batches(config, device.kind, free_bytes(device, share)))


def free_bytes(device: Device, share: float = 1.0) -> float:
    """Return the bytes that this process can still allocate on its device, within the limits of its container.

    Runs that share a device may start at the same time, when all of its memory is free, so each counts on its `share`.
    """
    if device.kind == "cuda":
        free = float(torch.cuda.mem_get_info()[0])
        return free if share == 1 else min(free, bytes_of_share(device, share) - torch.cuda.memory_reserved())
    limits = list(memory_limits())
    whole = min([device.memory_gb * 1e9, *(limit for limit, _ in limits)])
    free = min([float(psutil.virtual_memory().available), *(limit - used for limit, used in limits)])
    return free if share == 1 else min(free, share * whole)


def limit_memory(device: Device, share: float) -> None:
    """Limit torch to this run's part of a GPU that runs share; allocating more is an out-of-memory error here."""
    if device.kind == "cuda" and share < 1:
        torch.cuda.set_per_process_memory_fraction(bytes_of_share(device, share) / (device.memory_gb * 1e9))


def bytes_of_share(device: Device, share: float) -> float:
    """Return the bytes that torch may allocate in a share of a GPU, next to what the driver keeps for the process."""
    return max(share * device.memory_gb * 1e9 - CONTEXT_BYTES, 0.0)

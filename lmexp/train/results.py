"""From what a run measured to the columns of its record."""

from contextlib import suppress
from pathlib import Path

import torch

from lmexp.config.checks import micro_batch
from lmexp.config.models.count import ModelCount
from lmexp.config.schema import HardwareConfig, RunConfig
from lmexp.cost.device import Device, devices_used
from lmexp.cost.energy import JOULES_PER_KWH
from lmexp.cost.flops import count_run
from lmexp.cost.hardware import peak_of
from lmexp.cost.memory_step import BYTES
from lmexp.cost.peaks import measured_peak
from lmexp.runs.record import Row
from lmexp.tasks.base import Quality
from lmexp.train.callbacks import Spent
from lmexp.train.progress import Progress


def quality_columns(quality: Quality) -> Row:
    """Return how good the model is; a perplexity beyond numbers is null."""
    finite = None if quality.perplexity == float("inf") else quality.perplexity
    return {
        "loss": quality.loss,
        "perplexity": finite,
        "bits_per_byte": quality.bits_per_byte,
        "accuracy": quality.accuracy,
    }


def work_columns(config: RunConfig, count: ModelCount, progress: Progress, epoch_tokens: int) -> Row:
    """Return the model's size and the work that its training was, in passes of `epoch_tokens` too."""
    return {
        "n_params": count.n_params,
        "n_params_active": count.n_params_active,
        "n_params_embedding": count.n_params_embedding,
        "n_params_matmul": count.n_params_matmul,
        "weights_gb": count.n_params * BYTES[config.precision.weights] / 1e9,
        "flops_per_token": count.flops_per_token,
        **count.conventions(),
        **{f"flops/{part}": flops for part, flops in count.parts.items()},
        "train_flops": float(progress.tokens) * count.flops_per_token,
        "tokens": progress.tokens,
        "epochs": progress.tokens / epoch_tokens,
        "steps": progress.steps,
        "micro_batch": micro_batch(config),
    }


def price_columns(spent: Spent, hardware: HardwareConfig, devices: int, tokens: int) -> Row:
    """Return time, energy and money, for the run and for a million of its tokens."""
    kwh = None if spent.joules is None else spent.joules / JOULES_PER_KWH
    price = hardware.dollars_per_hour
    dollars = None if price is None else price * devices * spent.wall_seconds / 3600
    millions = tokens / 1e6
    return {
        "wall_seconds": spent.wall_seconds,
        "energy_kwh": kwh,
        "energy_source": None if kwh is None else spent.source,
        "kwh_per_million_tokens": None if kwh is None else kwh / millions,
        "dollars": dollars,
        "dollars_per_million_tokens": None if dollars is None else dollars / millions,
        "dollars_per_hour": price,
    }


def utilisation_columns(
    config: RunConfig,
    hardware: HardwareConfig,
    device: Device,
    outputs: Path,
    tokens_per_second: float | None,
    processes: int,
    may_measure: bool,
) -> Row:
    """Return MFU and the peak it is held against: the datasheet's, else the one measured here, else null.

    MFU is training FLOP/s over the peak FLOP/s of all devices (Chowdhery et al. 2022, appendix B), the FLOPs by
    the record's convention. `may_measure` says that nothing else runs here, so a missing peak can be measured:
    on a CPU, that of the threads which each of its processes has. Emulated fp8 has no peak.
    """
    compute = config.precision.compute
    if config.precision.emulate:
        return {}
    known, devices = peak_of(hardware, compute), devices_used(device.kind, processes)
    if known is None:
        with suppress(RuntimeError, OSError):  # a full GPU, a full disk: no peak, and a record all the same
            measured = measured_peak(outputs, device, compute, torch.get_num_threads(), may_measure)
            known, devices = None if measured is None else (measured, "measured"), processes
    if known is None:
        return {}
    peak, source = known
    achieved = None if tokens_per_second is None else tokens_per_second * count_run(config).flops_per_token
    return {
        "peak_flops": peak,
        "peak_source": source,
        "mfu": None if achieved is None else achieved / (peak * devices),
    }


def compile_seconds(config: RunConfig) -> float | None:
    """Return the seconds that torch.compile took in this process, None where nothing was compiled."""
    if not config.trainer.compile:
        return None
    from torch._dynamo.utils import calculate_time_spent  # torch has no public name for it

    return float(calculate_time_spent()["total_wall_time"])

"""The record of a run, computed from what its training measured."""

import time
from contextlib import suppress

import torch

from lmexp.config.checks import device_share, micro_batch
from lmexp.config.models.count import ModelCount
from lmexp.config.schema import HardwareConfig, RunConfig
from lmexp.cost.accounting import ACCOUNTANT
from lmexp.cost.device import devices_used
from lmexp.cost.energy import JOULES_PER_KWH
from lmexp.cost.hardware import peak_of
from lmexp.cost.memory_step import BYTES
from lmexp.cost.peaks import measured_peak
from lmexp.data.examples import ExampleStore
from lmexp.data.loss_floor import loss_floor
from lmexp.data.store import Store
from lmexp.runs.columns import LOSS_BY_QUARTER, MEMBERSHIP, ON_TEST, PRIVACY
from lmexp.runs.origin import THEN, utc
from lmexp.runs.record import Row, complete, identity_columns, kaplan_columns
from lmexp.tasks.base import Quality
from lmexp.tasks.baselines import baseline_columns
from lmexp.train.progress import Progress
from lmexp.train.spending import Spent
from lmexp.train.training import FitResult, Training


def record_row(training: Training, progress: Progress, result: FitResult, origin: Row) -> Row:
    """Return the complete record of a finished run; `origin` are the columns that say where it is from."""
    config, store, world = training.config, training.store, training.trainer.world_size
    share = device_share(config, training.device.kind)
    devices = devices_used(training.device.kind, world) * share
    is_alone = result.is_alone and training.exclusive is not None and training.exclusive.alone
    row = complete(
        identity_columns(config)
        | quality_columns(result.quality)
        | {f"score/{config.task.name}/{metric}": value for metric, value in result.scores.scores.items()}
        | {f"score/{config.task.name}{ON_TEST}/{metric}": value for metric, value in result.test.scores.items()}
        | {f"score/{PRIVACY}/{metric}": value for metric, value in result.privacy.scores.items()}
        | {f"score/{MEMBERSHIP}/{metric}": value for metric, value in result.membership.scores.items()}
        | work_columns(config, training.count, progress, training.feed.epoch_tokens)
        | training.meter.summary()
        | training.memory.summary()
        | result.dtypes
        | {
            "skipped_steps": result.skipped_steps,
            "device_share": share,
            "exclusive": is_alone,
            "cpu_wait_fraction": training.cpu_wait.fraction() if training.device.kind == "cpu" else None,
            "threads": torch.get_num_threads(),
            "compile_seconds": compile_seconds() if training.compiles else None,
            "world_size": world,
            "device_name": training.device.name,
            "data_fingerprint": store.fingerprint,
            "validation_fingerprint": store.validation_fingerprint,
            "validation_seen": store.validation_seen,
            "test_fingerprint": store.test_fingerprint,
            "test_seen": store.test_seen,
            "canary_tokens": store.canary_tokens if isinstance(store, Store) else None,
            "loss_floor": loss_floor(config, store),
            "validation_words": training.feed.text_words,
            "best_tokens": result.best_tokens,
            **{f"pii/{kind}": found for kind, found in (store.pii or {}).items()},
            "texts_cut": training.feed.cut,
            "targets_cut": training.feed.targets_cut,
            **(baseline_columns(store) if isinstance(store, ExampleStore) and store.holds == "labels" else {}),
            "tokenizer_fingerprint": store.tokenizer_fingerprint,
            "text_lost": store.splits["validation"].text_lost,
            "unknown_tokens": store.splits["validation"].unknown_tokens,
            "finished": utc(time.time()),
        }
        | privacy_columns(training, progress)
        | price_columns(result.spent, training.hardware, devices, progress.tokens)
        | origin
        | {"trained_by": THEN.join(progress.trained_by)}
    )
    row |= kaplan_columns(row) | utilisation_columns(training, row["tokens_per_second"], may_measure=is_alone)
    if (row["mfu"] or 0) > 1:
        print(f"MFU is {row['mfu']:.2f}, which is above the peak ({row['peak_source']}): that peak is too low")
    return row


def privacy_columns(training: Training, progress: Progress) -> Row:
    """Return the columns of privacy: what the steps that were taken have spent, whatever the config allowed."""
    private, accounting = training.task.private, training.accounting
    if private is None or accounting is None:
        return {}
    return {
        "epsilon": accounting.spent(private.noise_multiplier, progress.steps),
        "delta": accounting.delta,
        "noise_multiplier": private.noise_multiplier,
        "gradient_clip": private.clip,
        "privacy_accountant": ACCOUNTANT,
        "privacy_samples": accounting.samples,
        "sampled_tokens": private.sampled * training.config.model.context,
    }


def quality_columns(quality: Quality) -> Row:
    """Return the columns of quality; a perplexity that is too large for a float is null."""
    return {
        "loss": quality.loss,
        "perplexity": _finite(quality.perplexity),
        "word_perplexity": _finite(quality.word_perplexity),
        "bits_per_byte": quality.bits_per_byte,
        "accuracy": quality.accuracy,
        **dict(zip(LOSS_BY_QUARTER, quality.quarters, strict=False)),
    }


def _finite(value: float | None) -> float | None:
    return None if value == float("inf") else value


def size_columns(count: ModelCount, weights: str) -> Row:
    """Return the columns of size; `weights` is the type that they are stored in, one of cost.memory.BYTES."""
    return {
        "n_params": count.n_params,
        "n_params_active": count.n_params_active,
        "n_params_embedding": count.n_params_embedding,
        "n_params_matmul": count.n_params_matmul,
        "weights_gb": count.n_params * BYTES[weights] / 1e9,
        "flops_per_token": count.flops_per_token,
    }


def work_columns(config: RunConfig, count: ModelCount, progress: Progress, epoch_tokens: int) -> Row:
    """Return the columns of size and work; `epoch_tokens` is the length of one pass over the training split."""
    return {
        **size_columns(count, config.precision.weights),
        **count.conventions(),
        "flops_per_token_hardware": executed(config, count),
        **{f"flops/{part}": flops for part, flops in count.parts.items()},
        "flops_source": config.model.flops_source,
        "train_flops": float(progress.tokens) * count.flops_per_token,
        "spent_flops": float(progress.spent_tokens) * count.flops_per_token,
        "tokens": progress.tokens,
        "epochs": progress.tokens / epoch_tokens,
        "steps": progress.steps,
        "micro_batch": micro_batch(config),
    }


def executed(config: RunConfig, count: ModelCount) -> float:
    """Return the FLOPs per token that a run executes."""
    return count.executed(config.trainer.activation_checkpointing == "full", config.privacy.is_on)


def price_columns(spent: Spent, hardware: HardwareConfig, devices: float, tokens: int) -> Row:
    """Return the columns of time, energy and money: of the whole run, and for each million of its tokens.

    `devices` is how many devices the run pays for, or the share of one.
    """
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


def utilisation_columns(training: Training, tokens_per_second: float | None, may_measure: bool) -> Row:
    """Return the MFU and the peak that it is relative to: that of the datasheet, else a measured one, else none.

    MFU is training FLOP/s over the peak FLOP/s of all devices (Chowdhery et al. 2022, appendix B); the FLOPs follow
    the convention of the record, and in `mfu_causal` the one that counts only what a causal mask leaves. `hfu` counts
    what is executed, so also what activation checkpointing and fused attention compute again. `may_measure`
    says that no other run is on the device, so that a missing peak can be measured now. On a CPU a measured peak is
    that of one process's threads. Emulated fp8 has no peak.
    """
    precision, device, processes = training.config.precision, training.device, training.trainer.world_size
    if precision.emulate:
        return {}
    known, devices = peak_of(training.hardware, precision.compute), devices_used(device.kind, processes)
    if known is None:
        with suppress(RuntimeError, OSError):  # a full GPU or a full disk: the record then has no peak
            threads = torch.get_num_threads()
            measured = measured_peak(training.outputs, device, precision.compute, threads, may_measure)
            known, devices = None if measured is None else (measured, "measured"), processes
    if known is None:
        return {}
    peak, source = known
    if tokens_per_second is None:
        return {"peak_flops": peak, "peak_source": source}
    share_of_one_flop = tokens_per_second / (peak * devices)  # for each FLOP that a token takes
    return {
        "peak_flops": peak,
        "peak_source": source,
        "mfu": share_of_one_flop * training.count.flops_per_token,
        "mfu_causal": share_of_one_flop * training.count.conventions()["flops_per_token_causal"],
        "hfu": share_of_one_flop * executed(training.config, training.count),
    }


def compile_seconds() -> float:
    """Return the seconds that torch.compile took in this process."""
    from torch._dynamo.utils import calculate_time_spent  # torch has no public function for it

    return float(calculate_time_spent()["total_wall_time"])

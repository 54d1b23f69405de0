"""The record: the flat row, or rows, that a finished run leaves.

The names are a contract, the same in tables, CSV, Parquet and W&B. A value that was not measured is
null: never 0, never a guess; where a value is an estimate or could come from several places, the column
beside it (`*_source`) says so.
"""

from collections.abc import Mapping
from typing import Any

from lmexp.config.schema import RunConfig

Row = dict[str, Any]

COLUMNS: dict[str, str] = {
    # who
    "run_id": "hash of what determines the result",
    "sweep": "the sweep that ran it",
    "slug": "the swept values in words",
    "model": "name of the model config",
    "family": "model family",
    "task": "what is predicted",
    "precision": "precision preset",
    "seed": "seed of weights and of the order of data",
    "unit": "what is resampled: the trunk that milestones share, else the run",
    # size
    "n_params": "parameters",
    "n_params_active": "parameters that one token uses",
    "n_params_embedding": "parameters of embeddings (a tied head counts here)",
    "n_params_matmul": "parameters that multiply each token, output head included",
    "n_layers": "layers",
    "d_model": "width",
    "n_heads": "attention heads",
    "context": "longest sequence, tokens",
    "vocab_size": "rows of the embedding",
    # quality
    "loss": "validation, nats per target: per token, per label or tag",
    "perplexity": "exp(loss); null for labels and tags",
    "bits_per_byte": "validation, bits per UTF-8 byte of the text",
    "accuracy": "share of validation targets predicted exactly",
    # work
    "tokens": "trained on",
    "epochs": "passes over the training split",
    "flops_per_token": "training FLOPs per token",
    "flops_per_token_6n": "by another convention: 6 for every parameter that a token uses",
    "flops_per_token_kaplan": "by another convention: 6 for every parameter but embeddings and head",
    "flops_per_token_causal": "by another convention: half of attention's scores",
    "flops_per_token_hardware": "by another convention: as fused attention executes it",
    "flops_per_token_recompute": "by another convention: that, with every layer's forward pass done twice",
    "train_flops": "training FLOPs",
    "steps": "optimizer steps",
    "batch_tokens": "tokens per optimizer step, all devices",
    "micro_batch": "sequences per forward pass and device",
    # speed
    "tokens_per_second": "training throughput, median of windows, warm-up dropped",
    "step_ms_p50": "median milliseconds per optimizer step",
    "step_ms_p95": "95th percentile of milliseconds per optimizer step",
    "mfu": "model FLOPs utilisation: achieved over the peak of all devices",
    "peak_flops": "dense FLOP/s one device can do in what the run multiplies in",
    "peak_source": "the datasheet, or `measured`: the best of square matmuls",
    "data_wait_fraction": "share of training time spent waiting for data",
    "compile_seconds": "in torch.compile; null when nothing was compiled",
    "train_seconds": "in training steps, warm-up included; validation and checkpoints excluded",
    "wall_seconds": "from the worker's start to the end of training; of earlier attempts to their last checkpoint",
    # space
    "peak_memory_gb": "GB (1e9 bytes) needed at once: allocated on a GPU; growth of the process on a CPU",
    "reserved_memory_gb": "GB (1e9 bytes) held: by a GPU's allocator; growth of the process in all on a CPU",
    "weights_gb": "GB (1e9 bytes) of weights",
    # price
    "energy_kwh": "energy of all devices over the wall seconds",
    "energy_source": "nvml or rapl: the device's counter; estimated: rated power times time",
    "kwh_per_million_tokens": "energy for a million training tokens",
    "dollars": "price of all devices over the wall seconds",
    "dollars_per_million_tokens": "price of a million training tokens",
    "dollars_per_hour": "price of one device that was assumed",
    # honesty
    "dtype_weights": "found on the live parameters",
    "dtype_compute": "found on the operands of the matmuls of a forward pass",
    "dtype_grads": "found on the live gradients",
    "dtype_optimizer": "found on the live optimizer state",
    "exclusive": "whether nothing else of lmexp ran on the device",
    "devices": "devices per node",
    "world_size": "processes",
    "device_name": "what it ran on",
    # origin
    "git_sha": "commit of lmexp, when run from a checkout",
    "git_dirty": "whether that checkout had uncommitted changes",
    "packages": "versions that matter, as name==version",
    "data_fingerprint": "hash of the tokens trained and validated on",
    "tokenizer_fingerprint": "hash of the tokenizer",
    "host": "machine",
    "started": "UTC",
    "finished": "UTC",
    "schema_version": "of the record",
}
"""Every column of a record, in order, with its meaning and unit. Two kinds join, as open as tasks and models are:
scores as `score/<task>/<metric>`, and the named parts of flops_per_token as `flops/<part>`."""
OPEN = ("score/", "flops/")
WORDS = {
    "run_id", "sweep", "slug", "model", "family", "task", "precision", "unit", "peak_source", "energy_source",
    "dtype_weights", "dtype_compute", "dtype_grads", "dtype_optimizer", "exclusive", "device_name", "git_sha",
    "git_dirty", "packages", "data_fingerprint", "tokenizer_fingerprint", "host", "started", "finished",
}  # fmt: skip
"""Columns that hold no numbers."""
CURVE_QUALITIES = ("loss", "perplexity", "bits_per_byte", "accuracy")
"""What every evaluation on the way writes into the curve."""


def complete(values: Mapping[str, Any]) -> Row:
    """Return a full row in the order of COLUMNS: what is missing is null, parts and scores come last.

    Raises KeyError for a name that the contract does not have.
    """
    extra = [name for name in values if name not in COLUMNS]
    unknown = [name for name in extra if not name.startswith(OPEN)]
    if unknown:
        raise KeyError(f"not columns of a record: {unknown}")
    return {name: values.get(name) for name in [*COLUMNS, *sorted(extra)]}


def is_number(value: Any) -> bool:
    """Whether a value read from a file is a number that a table can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def is_row(row: Any) -> bool:
    """Whether what was read from a file is a row: plain values under names, its run among them."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("run_id"), str)
        and all(v is None or isinstance(v, str | bool) or is_number(v) for v in row.values())
    )


def identity_columns(config: RunConfig) -> Row:
    """Return the columns that a config alone determines; a run that failed has these and no others."""
    assert config.run is not None, "a run's config names its run"
    model = config.model
    return {
        "run_id": config.run.id,
        "sweep": config.run.sweep,
        "slug": config.run.slug,
        "model": model.name,
        "family": model.family,
        "task": config.task.name,
        "precision": config.precision.name,
        "seed": config.seed,
        "unit": config.run.id,
        "n_layers": model.n_layers,
        "d_model": model.d_model,
        "n_heads": model.n_heads,
        "context": model.context,
        "vocab_size": model.vocab_size,
        "batch_tokens": config.batch.tokens,
        "dollars_per_hour": config.hardware.dollars_per_hour,
        "devices": config.trainer.devices,
    }

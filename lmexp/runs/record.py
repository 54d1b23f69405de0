"""The record: the flat row that a finished run leaves, or several rows if it has milestones.

runs/columns.py describes the columns. A value that was not measured is null: never 0 and never a guess. If a value is
an estimate, or could come from several places, the column beside it (`*_source`) says so.
"""

from collections.abc import Mapping
from typing import Any

from lmexp.config.models.count import whole
from lmexp.config.schema import RunConfig
from lmexp.runs.columns import COLUMNS, FAMILIES

Row = dict[str, Any]


def complete(values: Mapping[str, Any]) -> Row:
    """Return a full row in the order of COLUMNS, with null for missing values, then parts of the FLOPs and scores.

    Raises KeyError for a name that runs/columns.py does not describe.
    """
    extra = [name for name in values if name not in COLUMNS]
    unknown = [name for name in extra if not name.startswith(tuple(FAMILIES))]
    if unknown:
        raise KeyError(f"not columns of a record: {unknown}")
    return {name: values.get(name) for name in [*COLUMNS, *sorted(extra)]}


def kaplan_columns(row: Mapping[str, Any]) -> Row:
    """Return size and work in the counts of Kaplan et al. 2020, from a row's other columns; null where these are.

    Rows of records that were written before these columns existed get them when they are read.
    """
    a_token, tokens = row.get("flops_per_token_kaplan"), row.get("tokens")
    return {
        "n_params_kaplan": None if a_token is None else whole(a_token / 6),
        "train_flops_kaplan": None if a_token is None or tokens is None else float(a_token) * tokens,
    }


def is_number(value: Any) -> bool:
    """Whether a value read from a file is a number that a table can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def is_row(row: Any) -> bool:
    """Whether a value read from a file is a row: a mapping to plain values that names its run."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("run_id"), str)
        and all(v is None or isinstance(v, str | bool) or is_number(v) for v in row.values())
    )


def identity_columns(config: RunConfig) -> Row:
    """Return the columns that the config alone determines; a run without a record has only these."""
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
        "code_versions": " ".join(f"{target}@{code.sha256[:12]}" for target, code in config.code.items()) or None,
        "seed": config.seed,
        "unit": config.run.id,
        "n_layers": model.n_layers,
        "d_model": model.d_model,
        "n_heads": model.n_heads,
        "context": model.context,
        "vocab_size": model.vocab_size,
        "batch_tokens": config.batch.tokens,
        "peak_lr": config.optim.peak_lr,
        "lr_rule": config.optim.lr_rule,
        "dollars_per_hour": config.hardware.dollars_per_hour,
        "devices": config.trainer.devices,
    }

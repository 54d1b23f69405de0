"""Columns of a table that change the law, and that the usual laws lack: if one varies, a warning names a remedy.

Repeated data, families, active parameters, vocabularies, learning rates and data sets all move the loss at the same
size and tokens. A law fitted through all of them counts the difference as noise, or as an effect of size.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Floats, as_numbers
from lmexp.units import printable

MAX_EPOCHS = 4.0
"""Up to this many passes, a repeated token is worth about as much as a new one (Muennighoff et al. 2023, section 6)."""
EPOCHS = ("epochs", "n_epochs", "num_epochs", "passes")
UNIQUE = ("unique_tokens", "n_unique_tokens", "dataset_tokens")
ACTIVE = ("n_params_active", "active_params", "params_active", "active_parameters", "n_active")
OPTIMIZERS = ("optimizer", "optim")
VOCABULARY = ("vocab_size", "vocabulary", "n_vocab", "tokenizer", "tokenizer_fingerprint")
OTHERS = (
    *("family", "architecture", "arch", "model_type", "model_family", "kind", "moe", "n_experts"),
    *("dataset", "data_set", "data", "trained_on", "training_set", "corpus", "mixture", "selection"),
    *("lr", "learning_rate", "max_lr", "schedule", "lr_schedule", "warmup", "weight_decay"),
    *("batch_size", "batch_tokens", "context", "seq_len", "sequence_length", "dropout"),
)
"""Usual names of such columns, in upper or lower case."""


def varying(
    frame: pd.DataFrame, headings: Mapping[str, str], used: Mapping[str, str], sizes: Mapping[str, Floats]
) -> tuple[str, ...]:
    """Return a warning for each column that varies and changes the law, with the filter or the column that handles it.

    `headings` holds the columns by their folded names, `used` the columns that the points were read from, and `sizes`
    the points.
    """
    said = [*_repeated(frame, headings, used, sizes), *_active(frame, headings, used, sizes)]
    for name in _present(headings, VOCABULARY):
        if name not in used.values() and frame[name].nunique() > 1:
            said.append(
                f"{_spread(frame, name)}: losses per token do not compare between vocabularies. Fit a loss per byte "
                f"(--loss), or one vocabulary: {_filter(frame, name)}."
            )
    for name in _present(headings, OPTIMIZERS):
        if frame[name].nunique() > 1:
            said.append(
                f"{_spread(frame, name)}: only --law optimizers includes it; in other laws it counts as noise or as an "
                f"effect of size. One value alone: {_filter(frame, name)}."
            )
    others = [name for name in _present(headings, OTHERS) if name not in used.values() and frame[name].nunique() > 1]
    if others:
        shown = "; ".join(_spread(frame, name) for name in others)
        said.append(
            f"{shown}: no law here includes it, so what it changes counts as noise or as an effect of size. One value "
            f"alone: {_filter(frame, others[0])}."
        )
    return tuple(said)


def _repeated(
    frame: pd.DataFrame, headings: Mapping[str, str], used: Mapping[str, str], sizes: Mapping[str, Floats]
) -> list[str]:
    """Return a warning if some rows have more passes over their data than repeated tokens are worth."""
    for name in _present(headings, EPOCHS):
        return _passes(_numbers(frame, name), f"{_quoted(name)} <= {MAX_EPOCHS:g}")
    for name in _present(headings, UNIQUE):
        tokens = _as_written(frame, used, sizes, "tokens")
        expression = f"{_quoted(used['tokens'])} / {_quoted(name)} <= {MAX_EPOCHS:g}" if "tokens" in used else None
        with np.errstate(divide="ignore", invalid="ignore"):
            return _passes(tokens / _numbers(frame, name), expression)
    return []


def _passes(passes: Floats, expression: str | None) -> list[str]:
    known = passes[np.isfinite(passes)]
    if not len(known) or known.max() <= MAX_EPOCHS:
        return []
    remedy = f': --where "{expression}"' if expression else ""
    return [
        f"Rows have up to {known.max():.3g} passes over their data, and repeated tokens are worth less than new ones, "
        f"which --law repeated alone includes. The first {MAX_EPOCHS:g} passes are nearly as good{remedy}."
    ]


def _active(
    frame: pd.DataFrame, headings: Mapping[str, str], used: Mapping[str, str], sizes: Mapping[str, Floats]
) -> list[str]:
    """Return a warning if only some of the parameters that the law was given work on a token."""
    for name in _present(headings, ACTIVE):
        share = _numbers(frame, name) / _as_written(frame, used, sizes, "params")
        if name != used.get("params") and (share < 0.99).any():
            return [
                f"In {int((share < 0.99).sum())} of {len(share)} rows only a part of the parameters works on a token "
                f"({_quoted(name)}), so neither their cost nor their loss is that of dense models of this size. "
                f"--params {_quoted(name)} fits by the active ones."
            ]
    return []


def _numbers(frame: pd.DataFrame, name: str) -> Floats:
    """Return a column as numbers (n,); what is no number becomes NaN."""
    return as_numbers(frame[name]).to_numpy(dtype=np.float64, na_value=np.nan)


def _as_written(frame: pd.DataFrame, used: Mapping[str, str], sizes: Mapping[str, Floats], quantity: str) -> Floats:
    """Return a quantity (n,) in the table's own unit, which its other columns have too; derived ones as they are."""
    return _numbers(frame, used[quantity]) if quantity in used else sizes[quantity]


def _present(headings: Mapping[str, str], names: tuple[str, ...]) -> list[str]:
    return [headings[name] for name in names if name in headings]


def _spread(frame: pd.DataFrame, name: str) -> str:
    """Return a column with its values: `family is dense or moe`, `lr has 12 values`."""
    values = frame[name].dropna().unique()
    if len(values) > 3:
        return f"{_quoted(name)} has {len(values)} values"
    return f"{_quoted(name)} is {' or '.join(printable(str(value)) for value in values)}"


def _filter(frame: pd.DataFrame, name: str) -> str:
    """Return the --where that keeps the most frequent value of a column."""
    value = frame[name].value_counts().index[0]
    text = str(value) if isinstance(value, int | float | bool | np.number | np.bool_) else f"'{printable(str(value))}'"
    return f'--where "{_quoted(name)} == {text}"'


def _quoted(name: str) -> str:
    """Return a column's name as --where takes it."""
    return name if name.replace("_", "a").replace(".", "a").isalnum() else f"`{printable(name)}`"

"""lmexp in a notebook: `load`, `frontier` and `fit`, on pandas DataFrames.

    import lmexp
    df = lmexp.load("outputs/demo")
    df[lmexp.frontier(df, cost="train_flops")]
    lmexp.fit(df)

`frontier` and `fit` take any DataFrame with the columns that they are told of: one from a csv of your own as well.
Wrong input raises lmexp.errors.UserError, a sentence. Nothing here imports torch.
"""

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lmexp.analysis.columns import column, meaning
from lmexp.analysis.frontier import Names
from lmexp.analysis.frontier import frontier as _frontier
from lmexp.analysis.table import load_study
from lmexp.errors import UserError

if TYPE_CHECKING:
    from lmexp.analysis.scaling.fit import Fit

Folder = str | PathLike[str]


def load(*folders: Folder, where: str | None = None) -> pd.DataFrame:
    """Return the rows of one or several sweeps as a DataFrame: `lmexp.load("outputs/demo", where="n_layers >= 4")`.

    A row is a finished run, or one of its milestones, or a run that has no result (its `state` says why). Columns are
    of pandas' nullable types: what was not measured is `<NA>`, never 0. Every column, its unit and its meaning:

    - who: `run_id sweep slug model family task precision seed`, and `unit`, the trunk that milestones share: rows of
      one unit are not independent
    - size: `n_params n_params_active n_params_embedding n_params_matmul` (numbers), `n_layers d_model n_heads`,
      `context` (tokens), `vocab_size`
    - quality: `loss` (nats per token, or per label; validation), `perplexity` (exp of it), `bits_per_byte` (bits per
      UTF-8 byte of the text, so that tokenizers compare), `accuracy` (share of targets, 0 to 1), and scores as
      `score/<task>/<metric>` (as the metric is defined: BLEU and chrF 0 to 100, F1 and accuracy 0 to 1)
    - work: `tokens` (trained on), `epochs`, `flops_per_token` and `train_flops` (FLOPs), `flops_per_token_6n`,
      `_kaplan`, `_causal`, `_hardware`, `_recompute` (the same by other conventions), `flops/<part>` (FLOPs per token
      of one part of the model), `steps`, `batch_tokens` (tokens per optimizer step), `micro_batch` (sequences)
    - speed: `tokens_per_second`, `step_ms_p50 step_ms_p95` (milliseconds), `mfu` (share of the peak, 0 to 1),
      `peak_flops` (FLOP/s of a device) and `peak_source`, `data_wait_fraction` (0 to 1),
      `compile_seconds train_seconds wall_seconds` (seconds)
    - space: `peak_memory_gb reserved_memory_gb weights_gb` (1e9 bytes)
    - price: `energy_kwh` (kWh) and `energy_source`, `kwh_per_million_tokens`, `dollars`, `dollars_per_million_tokens`,
      `dollars_per_hour` (of one device)
    - honesty: `dtype_weights dtype_compute dtype_grads dtype_optimizer`, `exclusive` (False: other runs were on the
      device, so speeds are lower than alone), `devices world_size device_name`
    - origin: `git_sha git_dirty packages data_fingerprint tokenizer_fingerprint host started finished schema_version`
    - then `state`, `reason`, and the swept axes that are not columns already, under their names in the sweep
      (`model.n_layers`, `optim.lr`)

    `df.attrs` holds `name`, `question`, `axes` (the values of each swept axis), `units` and `meanings` (by column).
    `where` is an expression as of `lmexp report --where`. Raises UserError for a folder that holds no runs.
    """
    if not folders:
        raise UserError('load takes the folder of a sweep, as in lmexp.load("outputs/demo")')
    study = load_study([Path(folder) for folder in folders])
    study = study if where is None else study.where(where)
    table = study.table.reset_index(drop=True)
    table.attrs = {
        "name": study.name,
        "question": study.question,
        "axes": study.axes,
        "units": {str(name): column(str(name)).unit for name in table if column(str(name)).unit},
        "meanings": {str(name): meaning(str(name)) for name in table if meaning(str(name))},
    }
    return table


def frontier(
    df: pd.DataFrame,
    quality: Names = "loss",
    cost: Names = "train_seconds",
    maximize: Iterable[str] = (),
    minimize: Iterable[str] = (),
) -> pd.Series:
    """Return for each row whether no other beats it on all of the columns `quality` and `cost`; index it: `df[...]`.

    Each column has its own good direction: less of a loss, of seconds and of what is not known, more of accuracy, F1,
    BLEU, scores and tokens per second; `maximize` and `minimize` name columns to be taken otherwise. Rows with a null
    or infinite number are not on it, nor, where there is a `state`, rows that are not done; where there is a `task`,
    each has a frontier of its own. Raises UserError for a column that is missing or holds no numbers.
    """
    turned = dict.fromkeys(maximize, True) | dict.fromkeys(minimize, False)
    names = [quality] if isinstance(quality, str) else list(quality)
    names += [cost] if isinstance(cost, str) else list(cost)
    strange = [name for name in turned if name not in names]
    if strange:
        raise UserError(f"{', '.join(strange)} is neither a quality nor a cost here: those are {', '.join(names)}")
    return _frontier(df, quality, cost, turned=turned)


def fit(data: "pd.DataFrame | Folder", columns: Mapping[str, str] | None = None, **options: Any) -> "Fit":
    """Fit scaling laws to a DataFrame, a csv of points, or the folder of a sweep, and return the fit.

    It takes the columns params (or n_params), loss, and tokens or flops; `columns` maps these to names of your own, as
    in `columns={"params": "size"}`. `options` go to lmexp.analysis.scaling.fit.fit: `laws`, `delta`, `bootstraps`,
    `seed`. Parameters and tokens are numbers, FLOPs are FLOPs, the loss is in nats per token.
    Raises UserError for points that no law can be fitted to.
    """
    from lmexp.analysis.scaling.fit import fit as fit_points
    from lmexp.analysis.scaling.readers import points_of_csv, points_of_frame, points_of_study

    if isinstance(data, pd.DataFrame):
        return fit_points(points_of_frame(data, columns), **options)
    path = Path(data)
    if path.is_dir():
        return fit_points(points_of_study(load_study([path]), columns), **options)
    return fit_points(points_of_csv(path, columns), **options)

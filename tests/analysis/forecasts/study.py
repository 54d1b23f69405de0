"""A sweep of runs that follow a known law, as run directories, and further runs of any size."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from lmexp.analysis.forecasts.make import FitOptions
from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, chinchilla
from lmexp.config.schema import RunConfig
from lmexp.runs.directory import RunDir
from lmexp.runs.origin import utc
from lmexp.runs.record import Row
from tests.report.synthetic import config, record_of

THETA = PUBLISHED_LAWS["epoch"].theta
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
OPTIONS = FitOptions(bootstraps=100)


def true_loss(params: float, tokens: float) -> float:
    """Return the law's loss."""
    return float(chinchilla.loss(THETA, params, tokens))


def new_config(seed: int, sweep: str = "ladder", precision: str = "fp32") -> RunConfig:
    """Return a config of its own for each seed."""
    return config("gpt_nano", 2, precision, seed, sweep)


def row_of(of: RunConfig, params: float, tokens: float, loss: float, started: float) -> Row:
    """Return the record's row of a run of a size."""
    sizes = {"n_params": int(params), "tokens": int(tokens), "train_flops": 6.0 * int(params) * int(tokens)}
    times = {"started": utc(started), "finished": utc(started + 10), "perplexity": None, "bits_per_byte": None}
    prints = {"validation_fingerprint": "text", "tokenizer_fingerprint": "bytes"}
    return record_of(of, loss) | sizes | times | prints


def add_run(
    outputs: Path,
    params: float,
    tokens: float,
    loss: float,
    started: float = LONG_AGO,
    seed: int = 0,
    sweep: str = "ladder",
    precision: str = "fp32",
) -> RunDir:
    """Write a finished run."""
    of = new_config(seed, sweep, precision)
    run = RunDir.create(outputs / sweep / f"run-{seed}-{precision}", of)
    run.write_record([row_of(of, params, tokens, loss, started)])
    run.update_state(state="done", attempts=1)
    return run


def write_ladder(outputs: Path, noise: float = 0.002) -> Path:
    """Write a sweep of 15 runs of five sizes, up to 2.4e19 FLOPs, and return its folder."""
    draws = np.random.default_rng(0)
    seed = 0
    for params in np.geomspace(1e7, 2e8, 5):
        for ratio in (10, 30, 100):
            tokens = params * ratio
            loss = true_loss(params, tokens) * np.exp(noise * draws.standard_normal())
            add_run(outputs, params, tokens, loss, seed=seed)
            seed += 1
    return outputs / "ladder"

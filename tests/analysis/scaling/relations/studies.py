"""Simulated studies whose truth is known, for the tests of relations."""

import numpy as np
import pandas as pd

from lmexp.config.step_law import step_law_rate

SIGMOID = {"a": -0.5, "k": 4.0, "L0": 3.0, "b": 0.75}
SIZES = np.geomspace(1e7, 1e9, 5)
RATIOS = (5, 10, 20, 40)


def loss_of(params: float, tokens: float) -> float:
    return 1.8 + 400 / params**0.34 + 400 / tokens**0.28


def score_of(loss: float, truth: dict[str, float] = SIGMOID) -> float:
    return truth["a"] / (1 + np.exp(-truth["k"] * (loss - truth["L0"]))) + truth["b"]


def scored_runs(noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Return 20 runs with a loss, a score and the loss on another text; `noise` 1 is 0.4 % of the loss, 0.008 of the
    score."""
    draw = np.random.default_rng(seed)
    rows = []
    for params in SIZES:
        for ratio in RATIOS:
            loss = loss_of(params, ratio * params) * np.exp(0.004 * noise * draw.standard_normal())
            score = score_of(loss) + 0.008 * noise * draw.standard_normal()
            other = (1.2 * (loss - 1.5) ** 0.8 + 1.0) * np.exp(0.003 * noise * draw.standard_normal())
            rows.append((params, params * ratio, loss, score, other))
    return pd.DataFrame(rows, columns=["params", "tokens", "loss", "accuracy", "other_loss"])


def rate_grid(
    noise: float = 0.0,
    seed: int = 0,
    seeds: int = 2,
    own: float = 0.0,
    sizes: tuple[float, ...] = (1e7, 5e7, 2e8, 1e9),
    ratios: tuple[float, ...] = (10.0, 40.0),
) -> pd.DataFrame:
    """Return runs at six rates, a factor of two apart, for each size and ratio; the best rate is that of Step Law.

    `noise` is the standard deviation of a run's loss in nats, and `own` that of each group's ln of the best rate.
    """
    draw = np.random.default_rng(seed)
    rows = []
    for params in sizes:
        for ratio in ratios:
            tokens = params * ratio
            best = step_law_rate(params, tokens)
            moved = best * np.exp(own * draw.standard_normal())
            for rate in best * 2.0 ** np.arange(-2.4, 3.1):
                for repeat in range(seeds):
                    loss = loss_of(params, tokens) + 0.05 * np.log(rate / moved) ** 2 + noise * draw.standard_normal()
                    rows.append((params, tokens, rate, repeat, loss))
    return pd.DataFrame(rows, columns=["params", "tokens", "lr", "seed", "loss"])

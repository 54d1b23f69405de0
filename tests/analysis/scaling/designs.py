"""Runs that follow a law, for the tests of fits."""

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, Law, chinchilla
from lmexp.analysis.scaling.points import Points


def grid(
    law: Law = chinchilla,
    theta: Floats = PUBLISHED_LAWS["epoch"].theta,
    sizes: int = 6,
    ratios: int = 4,
    noise: float = 0.0,
    seed: int = 0,
) -> Points:
    """Return runs of 10M to 3B parameters at 5 to 80 tokens a parameter, `noise` being the deviation of ln L."""
    params, ratio = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 3e9, sizes), np.geomspace(5, 80, ratios)))
    tokens = params * ratio
    error = noise * np.random.default_rng(seed).standard_normal(len(params))
    loss = law.loss(theta, *({"params": params, "tokens": tokens}[name] for name in law.inputs)) * np.exp(error)
    return Points(params, tokens, 6 * params * tokens, loss, np.arange(len(params)).astype(str))

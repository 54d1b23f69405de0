"""What a design cannot tell, said before its numbers are believed.

A law in N and D is known only as well as the runs vary both. All at one D/N, the two terms cannot be told apart (the D*
of such a fit was off by +5500 %): that is refused. Few sizes, little compute between the smallest and the largest run,
few ratios a size, or an optimum outside of what was run make a fit that is to be read with care: that is a warning.
"""

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.points import Points
from lmexp.units import si

MIN_SIZES = 3
"""A power of N with a floor has three numbers."""
FEW_SIZES = 5
FEW_DECADES = 1.5
FEW_RATIOS = 3
MIN_SPREAD = 1.25
"""Of D/N beyond what follows from N: within this factor all runs count as being on one line."""
SAME_SIZE = 0.02
"""Sizes whose logarithms differ by less are one size."""
FAR = 10.0
"""A budget this many times the largest run's is far beyond the data."""


def size_of(params: Floats) -> np.ndarray:
    """Return which size each run has (n,), 0 for the smallest; one spans at most SAME_SIZE from its least."""
    order = np.argsort(params, kind="stable")
    logs = np.log(params[order])
    sizes = np.empty(len(params), dtype=np.int64)
    first, size = 0, 0
    while first < len(logs):
        end = int(np.searchsorted(logs, logs[first] + SAME_SIZE, side="right"))
        sizes[order[first:end]] = size
        first, size = end, size + 1
    return sizes


def refusals(points: Points) -> tuple[str, ...]:
    """Return why no law in both N and D can be fitted to these points, if so."""
    found = []
    sizes = int(size_of(points.params).max()) + 1
    if sizes < MIN_SIZES:
        found.append(f"{_count(sizes, 'size')} of model: a law in N and D needs {MIN_SIZES}, better {FEW_SIZES}.")
    elif _off_line(points) < np.log(MIN_SPREAD):
        found.append(
            "All runs lie at one D/N, or on one line of it: what parameters and tokens do cannot be told apart. "
            "Run sizes at several ratios."
        )
    return tuple(found)


def warnings(points: Points) -> tuple[str, ...]:
    """Return what weakens a fit to these points, in sentences."""
    found = []
    sizes = size_of(points.params)
    n_sizes = int(sizes.max()) + 1
    if n_sizes < FEW_SIZES:
        found.append(f"Only {_count(n_sizes, 'size')} of model: {FEW_SIZES} or more make exponents worth something.")
    decades = float(np.log10(points.flops.max() / points.flops.min()))
    if decades < FEW_DECADES:
        found.append(f"Compute spans {decades:.1f} decades: under {FEW_DECADES} an exponent is hardly known.")
    ratio = np.round(np.log(points.tokens / points.params) / SAME_SIZE)
    few = sum(len(np.unique(ratio[sizes == size])) < FEW_RATIOS for size in range(n_sizes))
    if 2 * few > n_sizes and 2 * n_sizes <= len(points):  # scattered runs have a size each, and need no ratios
        found.append(f"{few} of {n_sizes} sizes have fewer than {FEW_RATIOS} ratios of tokens to parameters.")
    factor = points.flops / (points.params * points.tokens)
    low, high = float(factor.min()), float(factor.max())
    if high > 1.25 * low:
        found.append(
            f"FLOPs are {low:.3g} to {high:.3g} N D: attention and the head weigh more in small models, or conventions "
            f"are mixed. Optima take {flops_per_token(points):.3g} N D, that of the largest runs."
        )
    if len(points) > points.n_units:
        found.append(
            f"{len(points)} points come from {points.n_units} independent units, and these are what is resampled."
        )
    return tuple(found)


def flops_per_token(points: Points) -> float:
    """Return FLOPs for each parameter and token: the median of the tenth of the runs with the most compute.

    That tenth is nearest to the budgets that are asked about.
    """
    largest = np.argsort(points.flops)[-max(len(points) // 10, 1) :]
    return float(np.median(points.flops[largest] / (points.params[largest] * points.tokens[largest])))


def edge(points: Points, params: float) -> str:
    """Return a warning where the best size at the largest compute that was run lies at the edge of the sizes run."""
    low, high = float(points.params.min()), float(points.params.max())
    if low < params < high:
        return ""
    side, end = ("below the smallest", low) if params <= low else ("above the largest", high)
    return f"The best size at the largest compute run, {si(params)}, lies {side} size run, {si(end)}: it is a guess."


def _off_line(points: Points) -> float:
    """Return how far (in logs, between the 5th and the 95th percentile) D strays from a power of N."""
    n, d = np.log(points.params), np.log(points.tokens)
    line = np.polyfit(n - n.mean(), d, 1)
    low, high = np.percentile(d - np.polyval(line, n - n.mean()), [5, 95])
    return float(high - low)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

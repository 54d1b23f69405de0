"""Checks of a design: whether its runs can identify a law at all, and what weakens the fit.

A law in N and D is known only as well as the runs vary both. If all runs have one D/N, its two terms cannot be
separated (the D* of such a fit was off by +5500 %), so such a design is refused. Few sizes, a small range of compute,
few ratios of tokens to parameters per size, or an optimum outside the sizes run give a warning.
"""

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.laws import Price
from lmexp.analysis.scaling.points import Points
from lmexp.errors import UserError
from lmexp.units import counted, printable, si

MIN_SIZES = 3
"""A power of N with a floor has three unknowns."""
FEW_SIZES = 5
FEW_DECADES = 1.5
FEW_RATIOS = 3
FLOOR = "floor"
"""Stands for the known floor of a text as the irreducible loss."""
MIN_SPREAD = 1.25
"""If D/N strays from a power of N by less than this factor, all runs count as lying on one line."""
SAME_SIZE = 0.02
"""Sizes whose logarithms differ by less than this count as one size."""
ONE_CONVENTION = 1.05
"""FLOPs per parameter and token within this factor of each other count as one convention, C = k N D."""
MIN_POWER = 0.5
"""A power of the size further from 1 is no price of a token: conventions are mixed, and C = k N D is taken."""
FAR = 10.0
"""A budget of more than this many times the largest run is far beyond the data."""
MAX_BEYOND = 100.0
"""Advice and comparisons of arms compute nothing at more than this many times the largest run."""


def size_of(params: Floats) -> np.ndarray:
    """Return the index of each run's size (n,), 0 for the smallest; a size spans at most SAME_SIZE in ln N."""
    order = np.argsort(params, kind="stable")
    logs = np.log(params[order])
    sizes = np.empty(len(params), dtype=np.int64)
    first, size = 0, 0
    while first < len(logs):
        end = int(np.searchsorted(logs, logs[first] + SAME_SIZE, side="right"))
        sizes[order[first:end]] = size
        first, size = end, size + 1
    return sizes


def irreducible_bounds(given: str | float | tuple[float, float], points: Points) -> tuple[float, float]:
    """Return the least and the greatest E of a fit, from `1.69`, `1.5:1.8`, `1.5:`, `:1.8` or `floor`, or numbers.

    `floor` is the loss that no model can beat, which a text of a known entropy rate has. Raises UserError for bounds
    that are none, and if the least E is not below every loss.
    """
    if isinstance(given, str) and given.strip() == FLOOR:
        if points.floor is None:
            raise UserError(
                "the floor of the text is not known: the points have no column loss_floor with one value in all rows"
            )
        low = high = points.floor
    else:
        low, high = _two_bounds(given)
    smallest = float(points.loss.min())
    if low >= smallest:
        raise UserError(
            f"an irreducible loss of {low:g} is not below every loss: the smallest is {smallest:g}, of "
            f"{points.name_of(int(points.loss.argmin()))}"
        )
    return low, high


def _two_bounds(given: str | float | tuple[float, float]) -> tuple[float, float]:
    """Return two numbers of 0 or more, the second not below the first. Raises UserError for anything else."""
    try:
        if isinstance(given, str):
            first, colon, last = given.partition(":")
            low = float(first) if first.strip() else 0.0
            high = (float(last) if last.strip() else np.inf) if colon else float(first)
        else:
            low, high = map(float, given if isinstance(given, tuple | list) else (given, given))
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not (0 <= low <= high and np.isfinite(low)) or (low, high) == (0.0, np.inf):
        raise UserError(
            f"'{printable(str(given))}' is no irreducible loss: give a number, such as 1.69, or bounds, such as 1.5:1.8"
        )
    return low, high


def refusals(points: Points) -> tuple[str, ...]:
    """Return the reasons why no law in both N and D can be fitted to these points; empty if one can."""
    if not points.has_sizes:
        return ("The points have no parameters and tokens, which a law in N and D needs.",)
    reasons = []
    sizes = int(size_of(points.params).max()) + 1
    if sizes < MIN_SIZES:
        reasons.append(f"{counted(sizes, 'size')} of model: a law in N and D needs {MIN_SIZES}, better {FEW_SIZES}.")
    elif _off_line(points) < np.log(MIN_SPREAD):
        reasons.append(
            "All runs lie at one D/N, or on one line of it: what parameters and tokens do cannot be told apart. "
            "Run sizes at several ratios."
        )
    return tuple(reasons)


def warnings(points: Points) -> tuple[str, ...]:
    """Return warnings about what weakens a fit to these points."""
    sentences = _about_sizes(points) if points.has_sizes else []
    decades = float(np.log10(points.flops.max() / points.flops.min()))
    if decades < FEW_DECADES:
        sentences.append(f"Compute spans {decades:.1f} decades: under {FEW_DECADES} an exponent is hardly known.")
    if len(points) > points.n_units:
        sentences.append(
            f"{len(points)} points come from {points.n_units} independent units, and these are what is resampled."
        )
    return tuple(sentences)


def _about_sizes(points: Points) -> list[str]:
    """Return warnings about the sizes and about the FLOPs of a parameter and token."""
    sentences = []
    sizes = size_of(points.params)
    n_sizes = int(sizes.max()) + 1
    if n_sizes < FEW_SIZES:
        sentences.append(
            f"Only {counted(n_sizes, 'size')} of model: {FEW_SIZES} or more make exponents worth something."
        )
    ratio = np.round(np.log(points.tokens / points.params) / SAME_SIZE)
    few = sum(len(np.unique(ratio[sizes == size])) < FEW_RATIOS for size in range(n_sizes))
    if 2 * few > n_sizes and 2 * n_sizes <= len(points):  # if every run has its own size, no ratios are needed
        sentences.append(
            f"{counted(few, 'size', 'has', of=n_sizes)} fewer than {FEW_RATIOS} ratios of tokens to parameters."
        )
    factor = points.flops / (points.params * points.tokens)
    low, high = float(factor.min()), float(factor.max())
    if high > 1.25 * low:
        sentences.append(
            f"FLOPs are {low:.3g} to {high:.3g} N D: attention and the head weigh more in small models, or conventions "
            f"are mixed. Optima take {price_of(points)}, {flops_per_token(points):.3g} N D at the largest runs."
        )
    return sentences


def flops_per_token(points: Points) -> float:
    """Return FLOPs per parameter and token: the median over the tenth of the runs with the most compute.

    These runs are the closest to the budgets in question.
    """
    largest = _largest(points)
    return float(np.median(points.flops[largest] / (points.params[largest] * points.tokens[largest])))


def price_of(points: Points) -> Price:
    """Return the FLOPs of a token as a power of the size: the one convention of all optima of these points.

    The power is the slope of ln(C/D) on ln N, and the level is that of the largest runs, which are the closest to the
    budgets in question. If C is about the same multiple of N D in all runs, the power is 1.
    """
    factor = points.flops / (points.params * points.tokens)
    level, logs = flops_per_token(points), np.log(points.params)
    if factor.max() <= ONE_CONVENTION * factor.min() or np.ptp(logs) < SAME_SIZE:
        return Price(level)
    power = 1 + float(np.polyfit(logs - logs.mean(), np.log(factor), 1)[0])
    if not MIN_POWER < power < 1 / MIN_POWER:
        return Price(level)
    return Price(level * float(np.exp(logs[_largest(points)].mean())) ** (1 - power), power)


def _largest(points: Points) -> np.ndarray:
    """Return the indices of the tenth of the runs with the most compute."""
    return np.argsort(points.flops)[-max(len(points) // 10, 1) :]


def edge(points: Points, params: float) -> str:
    """Return a warning if the best size at the largest compute lies outside the sizes that were run, else ''."""
    low, high = float(points.params.min()), float(points.params.max())
    if low < params < high:
        return ""
    side, end = ("below the smallest", low) if params <= low else ("above the largest", high)
    return f"The best size at the largest compute run, {si(params)}, lies {side} size run, {si(end)}: it is a guess."


def _off_line(points: Points) -> float:
    """Return how far D strays from a power of N, in logs, from the 5th to the 95th percentile."""
    n, d = np.log(points.params), np.log(points.tokens)
    line = np.polyfit(n - n.mean(), d, 1)
    low, high = np.percentile(d - np.polyval(line, n - n.mean()), [5, 95])
    return float(high - low)

"""Seeds and noise: how far chance alone moves a number, and how many seeds show a difference.

Means come with Student's t interval; the noise floor is the standard deviation pooled over cells that have several
seeds, with its chi-square interval; the number of seeds comes from the power of the t test, by the noncentral t
distribution (Cohen, Statistical Power Analysis, 1988, chapter 2). All of it takes seeds to be independent and their
scatter to be normal and equal among cells.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.quantiles import chi_square, student

LEVEL = 0.05
"""Two-sided: intervals are of 95 %."""
POWER = 0.8
"""The share of true differences that are to be found."""
MAX_SEEDS = 1_000_000


@dataclass(frozen=True)
class Spread:
    """A mean with its uncertainty; what takes two values is None where there is one."""

    n: int
    mean: float
    sd: float | None
    half: float | None
    """Half the width of the 95 % interval of the mean."""


@dataclass(frozen=True)
class Noise:
    """What seeds alone do: a standard deviation pooled over cells."""

    sd: float
    low: float
    high: float
    """The 95 % interval of `sd`."""
    cells: int
    """Cells with at least two seeds."""
    df: int
    """Degrees of freedom: seeds less cells."""


def spread(values: npt.ArrayLike) -> Spread:
    """Return the mean of independent values with its standard deviation and Student's t interval."""
    numbers = np.asarray(values, dtype=float)
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return Spread(len(numbers), mean, None, None)
    sd = float(numbers.std(ddof=1))
    return Spread(len(numbers), mean, sd, t_quantile(len(numbers) - 1) * sd / math.sqrt(len(numbers)))


def pooled(groups: Sequence[npt.ArrayLike], most_df: int | None = None) -> Noise | None:
    """Return the noise within groups of independent values; None where no group has two.

    `most_df` bounds the degrees of freedom where the groups are not independent of each other.
    """
    several = [found for group in groups if len(found := np.asarray(group, dtype=float)) > 1]
    if not several:
        return None
    df = sum(len(group) - 1 for group in several)
    sd = math.sqrt(sum(float(((group - group.mean()) ** 2).sum()) for group in several) / df)
    df = min(df, most_df or df)
    low, high = (sd * math.sqrt(df / chi_square(share, df)) for share in (1 - LEVEL / 2, LEVEL / 2))
    return Noise(sd, low, high, len(several), df)


def t_quantile(df: float) -> float:
    """Return what a t value must exceed to be significant, two-sided."""
    return float(student(df, 1 - LEVEL))


def unexplained(values: Floats) -> tuple[float, int] | None:
    """Return the standard deviation that rows and columns leave unexplained, with its degrees of freedom.

    `values` (arms, seeds) are NaN where there is no run. Each is taken as the sum of one number for its arm, one for
    its seed, and chance: a randomised block design (Fisher, The Design of Experiments, 1935, chapter 4), by least
    squares where some are missing. The variance of a difference of two arms with equal seeds is twice the square. None
    if nothing is left, as where no two arms share two seeds.
    """
    known = np.isfinite(values)
    used = known.sum(axis=1) > 1
    known, each = known[used].astype(float), np.where(known, values, 0.0)[used]
    if not len(each):
        return None
    seeds_of_arm = known.sum(axis=1, keepdims=True)
    centred = (each - each.sum(axis=1, keepdims=True) / seeds_of_arm) * known
    # The arms are eliminated; what is left are the normal equations of the seeds alone.
    normal = np.diag(known.sum(axis=0)) - known.T @ (known / seeds_of_arm)
    of_seed = np.linalg.pinv(normal) @ centred.sum(axis=0)
    df = int(known.sum()) - len(each) - int(np.linalg.matrix_rank(normal))
    if df < 1:
        return None
    fitted = (of_seed - (known @ of_seed)[:, None] / seeds_of_arm) * known
    return math.sqrt(float(((centred - fitted) ** 2).sum()) / df), df


def margin_of_two(noise: Noise) -> float:
    """Return by how much two runs of one setting differ, at most, in 95 % of cases."""
    return t_quantile(noise.df) * noise.sd * math.sqrt(2)


def p_value(difference: float, error: float, df: float) -> float:
    """Return the two-sided p of a difference with this standard error; without any scatter, 0 or 1."""
    return float(p_values(difference, error, df))


def p_values(differences: npt.ArrayLike, errors: npt.ArrayLike, df: npt.ArrayLike) -> Floats:
    """Return the two-sided p values of differences with these standard errors; without any scatter, 0 or 1."""
    from scipy.special import stdtr

    size, error = np.abs(np.asarray(differences, dtype=float)), np.asarray(errors, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stdtr(df, -size / error)  # Student's t; what scipy.stats.t.sf calls, faster
    return np.asarray(np.where(error > 0, p, np.where(size == 0, 1.0, 0.0)), dtype=float)


def holm(p_values: Sequence[float] | Floats) -> list[float]:
    """Return p values as Holm's step-down method adjusts them for how many there are.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(raised, 1.0)
    return [float(value) for value in adjusted]


def seeds_needed(difference: float, sd: float, paired: bool = False) -> int | None:
    """Return the fewest seeds of an arm that show a difference in POWER of all cases, tested two-sided at LEVEL.

    `sd` is that of one arm's seeds; of the paired differences when `paired`. At least 2; None for more than MAX_SEEDS.
    Raises ValueError for a difference of 0.
    """
    if difference == 0 or not math.isfinite(difference) or sd < 0:
        raise ValueError("a difference other than 0, and a standard deviation")
    effect = abs(difference) / sd if sd else math.inf
    low, high = 1, 2
    while power(effect, high, paired) < POWER:
        low, high = high, high * 2
        if high > MAX_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle, paired) >= POWER else (middle, high)
    return high


def power(effect: float, n: int, paired: bool = False) -> float:
    """Return the chance that a t test with n seeds an arm finds a difference of `effect` standard deviations."""
    from scipy.stats import nct

    df, scale = (n - 1, math.sqrt(n)) if paired else (2 * n - 2, math.sqrt(n / 2))
    shift, critical = effect * scale, t_quantile(df)
    if shift > 100:  # where scipy gives up, and certain long before
        return 1.0
    wrong_way = nct.cdf(-critical, df, shift) if shift < 6 else 0.0  # below 1e-9, where scipy gives NaN now and then
    return float(nct.sf(critical, df, shift) + wrong_way)


def smallest_difference(n: int, sd: float, paired: bool = False) -> float | None:
    """Return the smallest difference that n seeds an arm show in POWER of all cases; None for fewer than two."""
    if n < 2:
        return None
    low, high = 0.0, 1.0
    while power(high, n, paired) < POWER:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, n, paired) >= POWER else (middle, high)
    return high * sd

"""How often the intervals of approach 2 hold the truth if the budgets of a size are milestones of one run.

    python benchmarks/approach_2.py [studies, 300 by default]

Each simulated study has 8 sizes around the best one and 7 budgets over a decade, on Chinchilla's law with Hoffmann's
constants. The noise of ln L has a standard deviation of 0.2 %, and the rows of one run share 70 % of its variance. The
truth is what approach 2 finds on the same grid without noise, so that its bias does not count.
"""

import sys

import numpy as np

from lmexp.analysis.scaling.approaches import Approach, approach_2
from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, chinchilla
from lmexp.analysis.scaling.points import Points

SIZES, BUDGETS = 8, np.geomspace(1e19, 1e20, 7)
NOISE, SHARED = 0.002, 0.7
TRUTH = PUBLISHED_LAWS["hoffmann_rounded"].theta


def coverage(studies: int) -> tuple[int, int]:
    """Return in how many studies the interval of the exponent holds the truth, and in how many that of N* does."""
    best = chinchilla.optimum(TRUTH, float(np.sqrt(BUDGETS[0] * BUDGETS[-1]))).params
    params = np.repeat(best * np.geomspace(1 / 6, 6, SIZES), len(BUDGETS))
    flops, trunk = np.tile(BUDGETS, SIZES), np.repeat(np.arange(SIZES), len(BUDGETS))
    tokens = flops / (6 * params)
    loss = chinchilla.loss(TRUTH, params, tokens)
    exact = approach_2(Points(params, tokens, flops, loss, trunk.astype(str)))
    assert isinstance(exact, Approach)
    true_size = exact.params(exact.reference).value
    exponents = sizes = 0
    for seed in range(studies):
        draws = np.random.default_rng(seed)
        common, own = draws.standard_normal(SIZES)[trunk], draws.standard_normal(len(params))
        noisy = loss * np.exp(NOISE * (np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * own))
        fitted = approach_2(Points(params, tokens, flops, noisy, trunk.astype(str)))
        assert isinstance(fitted, Approach)
        size = fitted.params(exact.reference)
        exponents += bool(fitted.exponent.low < exact.line[0] < fitted.exponent.high)
        sizes += bool(size.low < true_size < size.high)
    return exponents, sizes


def main() -> None:
    """Print the coverage of both intervals."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    exponents, sizes = coverage(studies)
    shares = f"{exponents / studies:.0%}, and that of N* in {sizes / studies:.0%}"
    print(f"{studies} studies: the interval of the exponent holds the truth in {shares}")


if __name__ == "__main__":
    main()

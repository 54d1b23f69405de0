"""Quantiles and tails of distributions: the functions of scipy.special that scipy.stats calls.

scipy.stats itself takes half a second to import. A plan needs none of them, so scipy is imported at the first call.
"""

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats

LEVEL = 0.95
"""The confidence of intervals by default: 95 % of them contain the true value."""


def student(freedom: npt.ArrayLike, level: float = LEVEL) -> Floats:
    """Return half an interval in standard errors: Student's t with `freedom` degrees of freedom."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(freedom, (1 + level) / 2))


def chi_square(share: float, freedom: float) -> float:
    """Return the value below which a chi-square variable with `freedom` degrees of freedom lies with chance `share`."""
    from scipy.special import chdtri

    return float(chdtri(freedom, 1 - share))


def f_tail(ratio: float, between: float, within: float) -> float:
    """Return the p value of a ratio of variances with these degrees of freedom, by the F distribution."""
    from scipy.special import fdtrc

    return float(fdtrc(between, within, ratio))

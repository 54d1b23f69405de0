"""Whether laws and approaches agree about the best size; a small held-out error of the loss does not ensure that.

On public runs of equal compute, the law with the least error on held-out losses put the best size up to 2.5 times off,
outside its interval, while approaches 1 and 2 agreed with the authors. So its answer is compared with the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmexp.analysis.scaling.fit import Fit
from lmexp.analysis.scaling.law_fit import Estimate

RIVAL_ERROR = 1.5
"""A law whose held-out error is this many times the least, or more, does not describe the runs: it is no rival."""


@dataclass(frozen=True)
class Agreement:
    """Which laws and approaches give the same best size as the trusted law, and which do not."""

    flops: float
    agree: tuple[str, ...] = ()
    disagree: tuple[str, ...] = ()


def rivals(fitted: Fit, approaches: Sequence[str]) -> list[str]:
    """Return the names that the trusted law is held against: laws that predict nearly as well, and all approaches."""
    trusted = fitted.trusted_for_size
    limit = RIVAL_ERROR * trusted.holdout.mean_absolute_error if trusted and trusted.holdout else np.inf
    laws = [
        name
        for name, law in fitted.laws.items()
        if law is not trusted and law.law.has_optimum and law.holdout and law.holdout.mean_absolute_error <= limit
    ]
    return [*laws, *approaches]


def agreement(flops: float, trusted: Estimate, others: dict[str, Estimate]) -> Agreement:
    """Return which best sizes differ from the trusted one by more than the intervals of both allow.

    `others` holds estimates by name. Two sizes differ if the interval of the logarithm of their ratio, from the sum of
    both squared half-widths, does not hold 0. An estimate without an interval is not compared.
    """
    agree: list[str] = []
    disagree: list[str] = []
    for name, other in others.items():
        widths = [np.log(one.high / one.low) / 2 for one in (trusted, other)]
        if not np.isfinite(widths).all():
            continue
        apart = abs(np.log(other.value / trusted.value))
        (disagree if apart > np.hypot(*widths) else agree).append(name)
    return Agreement(flops, tuple(agree), tuple(disagree))

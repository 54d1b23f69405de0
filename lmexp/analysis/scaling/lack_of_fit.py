"""Lack of fit: how far a law is off beyond its data, which no resampling of that data shows.

A bootstrap or a jackknife assumes that the law holds. On public runs it does not quite: fitted without the largest
fifth of Chinchilla's own runs, Chinchilla's law missed them by 2.3 times the scatter of the others, and 64 % of them
lay in its 95 % intervals. So what a law missed on its own largest runs widens its predictions beyond all runs:

    distance d = the largest of ln(N/N_max), ln(D/D_max), ln(N D/(N D)_max) and 0, over the runs that were fitted
    rate^2 = sum(e^2 - h^2) / sum(d^2), over the held-out runs, and 0 if that is negative

with the error e = ln(predicted/measured) and the standard error h that the interval for a single run stands for. At a
distance d, half the interval of a law's loss is at least t rate d. The errors of one hold-out move together, so t is
Student's with only as many degrees of freedom as the law has parameters. The constants' own interval already has a part
of the lack of fit, for runs that do not agree move a jackknife's refits: so the larger of the two counts, not the sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.analysis.quantiles import LEVEL, student

STANDARD_ERRORS = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Half a 95 % interval of a normal distribution, in standard deviations."""


@dataclass(frozen=True)
class LackOfFit:
    """What a law missed on its largest runs when it was fitted without them, more than its interval allowed."""

    rate: float
    """Standard deviation of ln(predicted/measured) for each factor of e beyond the runs."""
    reach: tuple[float, ...]
    """The ends of the fitted runs; see `reach_of`."""
    freedom: int
    """Degrees of freedom of the rate."""

    def half(self, inputs: Sequence[Floats]) -> Floats:
        """Return half the 95 % interval (...) of ln(loss) that the lack of fit asks for at inputs (...)."""
        return np.asarray(student(self.freedom) * self.rate * distance(inputs, self.reach))


def reach_of(inputs: Sequence[Floats]) -> tuple[float, ...]:
    """Return the largest logarithm of each input (n,) of the fitted runs, and of the product of two."""
    return tuple(float(logs.max()) for logs in _logs(inputs))


def distance(inputs: Sequence[Floats], reach: Sequence[float]) -> Floats:
    """Return how far inputs (...) lie beyond the fitted runs, as a logarithm; 0 among them."""
    beyond = [logs - end for logs, end in zip(_logs(inputs), reach, strict=True)]
    return np.asarray(np.maximum(np.max(np.broadcast_arrays(*beyond), axis=0), 0.0))


def rate_of(errors: Floats, half: Floats, away: Floats) -> float:
    """Return the rate of held-out runs: errors, half of their intervals and distances, (n,) each; 0 if all is noise."""
    excess, squares = float((errors**2 - (half / STANDARD_ERRORS) ** 2).sum()), float((away**2).sum())
    return float(np.sqrt(excess / squares)) if excess > 0 and squares > 0 else 0.0


def _logs(inputs: Sequence[Floats]) -> list[Floats]:
    """Return ln of each input, and of the product of two: compute, up to a factor."""
    logs = [np.log(np.asarray(values, dtype=np.float64)) for values in inputs]
    return [*logs, logs[0] + logs[1]] if len(logs) == 2 else logs

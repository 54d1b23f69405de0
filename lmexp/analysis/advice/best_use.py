"""The best use of a budget under a law, where a token's price is a power of the size: FLOPs, seconds or dollars.

The laws of scaling/laws.py know one price, C = 6ND. A study's own FLOPs a token grow a little slower than N, for
attention and embeddings, and its seconds slower still, for larger matmuls are faster. So a price is a line in logs,
fitted to the study's rows:  p(N) = e^c N^s  for a token trained on.

T tokens served afterwards cost a third of that each: the forward pass alone (Sardana et al. 2023, equation 2). So a
budget X pays for D = X / p(N) - T/3, and the loss is least where

    beta B D^-beta / (alpha A N^-alpha) = D / (s (D + T/3)).

Everything is vectorised over forms, so that a bootstrap's thousand laws are answered at once.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.laws import Form

SERVED = 1 / 3
"""What a served token costs of one that is trained on."""
HALVINGS = 100


@dataclass(frozen=True)
class Line:
    """y = e^c N^s, from measurements at sizes between `smallest` and `largest`."""

    c: float
    s: float
    smallest: float
    largest: float

    def at(self, params: npt.ArrayLike) -> Floats:
        """Return y at sizes (...)."""
        return np.asarray(np.exp(self.c + self.s * np.log(np.asarray(params, dtype=np.float64))))

    def inverse(self, times: float) -> "Line":
        """Return the line of `times` / y: seconds a token from tokens a second."""
        return Line(np.log(times) - self.c, -self.s, self.smallest, self.largest)

    def beyond(self, params: float) -> float:
        """Return by how many times a size lies outside of what was measured; 1 inside."""
        return max(params / self.largest, self.smallest / params, 1.0)


class Use(NamedTuple):
    """What a budget buys: parameters, tokens; each an array (...)."""

    params: Floats
    tokens: Floats


def line_through(params: Floats, values: Floats, slope: float) -> Line:
    """Return the least-squares line of ln `values` (n,) on ln `params` (n,); with one size, one of this slope."""
    x, y = np.log(params), np.log(values)
    if np.ptp(x) > 1e-9:
        slope = float(np.cov(x, y, bias=True)[0, 1] / np.var(x))
    return Line(float(np.mean(y) - slope * np.mean(x)), slope, float(params.min()), float(params.max()))


def best_use(form: Form, budget: npt.ArrayLike, price: Line, served: float = 0.0) -> Use:
    """Return the size and the tokens of least loss that a budget pays for, `served` tokens included.

    `price` is rising, as every cost of a token is. NaN where the budget does not pay for serving the smallest of
    models.
    """
    s, third = price.s, SERVED * served
    log_budget = np.log(np.asarray(budget, dtype=np.float64))
    log_a, log_b = np.log(np.multiply(form.alpha, form.A)), np.log(np.multiply(form.beta, form.B))
    shape = np.broadcast_shapes(np.shape(log_budget), np.shape(log_a), np.shape(log_b))
    high = np.broadcast_to((log_budget - price.c - np.log(max(third, 1.0))) / s, shape).copy()  # D is at least 1 there
    low = np.full(shape, -100.0)  # far below one parameter, so that the optimum is the law's own wherever it lies
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        whole = np.exp(log_budget - price.c - s * middle)  # D + T/3
        tokens = np.maximum(whole - third, 1e-9)
        slope = log_b - form.beta * np.log(tokens) - log_a + form.alpha * middle
        above = slope - np.log(tokens) + np.log(s) + np.log(whole) > 0
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    params = np.exp((low + high) / 2)
    tokens = np.exp(log_budget - price.c - s * np.log(params)) - third
    return Use(np.where(tokens > 0, params, np.nan), np.where(tokens > 0, tokens, np.nan))


def cheapest_use(form: Form, loss: npt.ArrayLike, price: Line, served: float = 0.0) -> Use:
    """Return the size and the tokens of least cost that reach a loss; NaN where the law never does.

    With p the share of the size's term in what is reducible, both follow from p, and the condition has one root in it.
    """
    above_floor = np.asarray(loss, dtype=np.float64) - form.E
    reducible = np.where(above_floor > 0, above_floor, np.nan) ** (1 / np.asarray(form.gamma))
    shape = np.broadcast_shapes(np.shape(reducible), np.shape(form.alpha))
    low, high = np.full(shape, -50.0), np.full(shape, 50.0)

    def use(logit: Floats) -> Use:
        share, rest = 1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(logit))
        params = (form.A / (share * reducible)) ** (1 / np.asarray(form.alpha))
        return Use(params, (form.B / (rest * reducible)) ** (1 / np.asarray(form.beta)))

    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tokens = use(middle).tokens
        above = np.log(np.divide(form.beta, form.alpha)) - middle + np.log1p(SERVED * served / tokens) > -np.log(
            price.s
        )
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return use((low + high) / 2)


def cost_of(use: Use, price: Line, served: float = 0.0) -> Floats:
    """Return what a size and its tokens cost, serving included."""
    return np.asarray(price.at(use.params) * (use.tokens + SERVED * served))

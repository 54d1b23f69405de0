"""The best use of a budget under a law, if the price of a token is a power of the size: in FLOPs, seconds or dollars.

The laws of scaling/laws.py assume one price, C = 6ND. In a study, FLOPs per token grow a little more slowly than N,
because of attention and embeddings, and seconds grow more slowly still, because larger matmuls run more efficiently.
So the price of a token to train on is a straight line in logs, fitted to the study's rows:  p(N) = e^c N^s.

Each of T tokens served afterwards costs a third of that, the forward pass alone (Sardana et al. 2023, equation 2). So
a budget X pays for D = X / p(N) - T/3, and the loss has its minimum where

    beta B D^-beta / (alpha A N^-alpha) = D / (s (D + T/3)).

All functions are vectorised over forms, so the thousand refits of a bootstrap are computed at once.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.laws import SERVED, Form, cheapest_sizes

HALVINGS = 100
"""Steps of the bisection."""


@dataclass(frozen=True)
class Line:
    """The line y = e^c N^s, fitted to measurements at sizes from `smallest` to `largest`."""

    c: float
    s: float
    smallest: float
    largest: float

    def at(self, params: npt.ArrayLike) -> Floats:
        """Return y at sizes (...)."""
        return np.asarray(np.exp(self.c + self.s * np.log(np.asarray(params, dtype=np.float64))))

    def inverse(self, times: float) -> "Line":
        """Return the line of `times` / y, which turns tokens per second into seconds per token."""
        return Line(np.log(times) - self.c, -self.s, self.smallest, self.largest)

    def beyond(self, params: float) -> float:
        """Return the factor by which a size lies outside the measured sizes; it is 1 inside."""
        return max(params / self.largest, self.smallest / params, 1.0)


class Use(NamedTuple):
    """What a budget buys: parameters and tokens, each an array (...)."""

    params: Floats
    tokens: Floats


def line_through(params: Floats, values: Floats, slope: float) -> Line:
    """Return the least-squares line of ln `values` (n,) on ln `params` (n,); `slope` is used if there is one size."""
    x, y = np.log(params), np.log(values)
    if np.ptp(x) > 1e-9:
        slope = float(np.cov(x, y, bias=True)[0, 1] / np.var(x))
    return Line(float(np.mean(y) - slope * np.mean(x)), slope, float(params.min()), float(params.max()))


def best_use(form: Form, budget: npt.ArrayLike, price: Line, served: float = 0.0) -> Use:
    """Return the size and the tokens with the lowest loss that a budget pays for, including `served` tokens.

    `price` must rise with the size. A size that leaves less than one token to train on and serve is no candidate. The
    result is NaN if the budget does not even pay for serving the smallest model.
    """
    s, third = price.s, SERVED * served
    log_budget = np.log(np.asarray(budget, dtype=np.float64))
    log_a, log_b = np.log(np.multiply(form.alpha, form.A)), np.log(np.multiply(form.beta, form.B))
    shape = np.broadcast_shapes(np.shape(log_budget), np.shape(log_a), np.shape(log_b))
    high = np.broadcast_to((log_budget - price.c - np.log(max(third, 1.0))) / s, shape).copy()  # D is at least 1 there
    low = np.full(shape, -100.0)  # far below one parameter, so that this bound never cuts off the optimum
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
    """Return the size and the tokens with the lowest cost that reach a loss; NaN if the law never reaches it."""
    return Use(*cheapest_sizes(form, loss, served, price.s))


def cost_of(use: Use, price: Line, served: float = 0.0) -> Floats:
    """Return the cost of training a size on its tokens, plus that of serving `served` tokens."""
    return np.asarray(price.at(use.params) * (use.tokens + SERVED * served))

"""The common form of all laws as the solver uses it: ln L, its gradient and its Hessian, for a batch of parameters.

    ln L = ln(E + S^gamma),  S = exp(a - alpha x) + exp(b - beta y)

where x and y are ln N and ln D minus their means. Without centring, the condition number of Chinchilla's law on its own
runs is 4e6; with it, 4e3. The units of N and D change only the means. The working parameters, as far as the law leaves
them free, are:

    E   itself, so that it may be at a bound, such as 0
    a, b   ln A and ln B at the centre;    alpha, beta;    g = ln gamma

A law of one exponent has alpha alone, and its derivatives are the sums of those by alpha and by beta.

Precision, optimizer and repetition (effective.py) shift x to x + h(phi), or y, and the parameters phi follow the
others. Parameters are an array (batch, k), and values at the points are (batch, n).

The Hessian is computed for the objective, never for each point: with q = ln L, m = gamma ln S, sigma = S^gamma / L,

    dq/dE = 1/L,   dq/dt = sigma dm/dt,   Hess q = (sigma (dm dm' + Hess m) on all but E) - dq dq'
    Hess ln S = p_N p_D v v' + second derivatives of the exponents,   v = d(a - alpha x) - d(b - beta y)

so a weighted sum of Hessians over the points takes only a few matrix products.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.effective import Effective
from lmexp.analysis.scaling.laws import Form, Law
from lmexp.analysis.scaling.points import Points

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]

WORKING = {"E": "E", "A": "a", "alpha": "alpha", "B": "b", "beta": "beta", "gamma": "g"}
"""Number of the form -> its working parameter."""


@dataclass(frozen=True, eq=False)
class Surface:
    """A law at given points, with all that the solver needs of both."""

    law: Law
    log_inputs: tuple[Floats, ...]
    """(n,) each: ln N and ln D, or the logarithm of the law's one variable."""
    log_loss: Floats
    """(n,) ln of the measured loss."""
    effects: tuple[Effective, ...] = ()
    """What shifts ln N or ln D."""

    @classmethod
    def of(cls, law: Law, points: Points, effects: Sequence[Effective] = ()) -> "Surface":
        """Return the surface of a law at points that have all of its inputs."""
        inputs = tuple(np.log(points.column(name)) for name in law.inputs)
        return cls(law, inputs, np.log(points.loss), tuple(effects))

    def __len__(self) -> int:
        return len(self.log_loss)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The working parameters, in order."""
        shifts = (name for effect in self.effects for name in effect.parameters)
        return (*(WORKING[name] for name in self.law.free), *shifts)

    def shifts_of(self, parameters: Floats) -> list[Floats]:
        """Return the parameters (batch, m) of each effect, from all working parameters (batch, k)."""
        ends = np.cumsum([len(self.law.free), *(len(effect.parameters) for effect in self.effects)])
        return [parameters[:, start:end] for start, end in pairwise(ends)]

    @cached_property
    def centres(self) -> tuple[float, ...]:
        """The means of the logarithms of the inputs."""
        return tuple(float(values.mean()) for values in self.log_inputs)

    @cached_property
    def centred(self) -> tuple[Floats, ...]:
        """(n,) each: the logarithms of the inputs minus their means."""
        return tuple(values - centre for values, centre in zip(self.log_inputs, self.centres, strict=True))

    @property
    def exponent_of_tokens(self) -> str | None:
        """The working parameter that is the exponent of D; None if it is fixed at 1."""
        if self.law.one_exponent:
            return "alpha"
        return "beta" if "beta" in self.names else None

    @property
    def has_floor(self) -> bool:
        """Whether the first working parameter is E."""
        return self.names[0] == "E"

    @cached_property
    def bounds(self) -> tuple[Floats, Floats]:
        """The least and the greatest value (k,) of each working parameter; equal for an E that is fixed."""
        low, high = np.full(len(self.names), -np.inf), np.full(len(self.names), np.inf)
        if self.has_floor:
            low[0], high[0] = self.law.irreducible
        return low, high

    @property
    def n_free(self) -> int:
        """How many numbers a fit has to find."""
        low, high = self.bounds
        return int((low < high).sum())

    def is_at_bound(self, parameters: Floats) -> Bools:
        """Return which working parameters (..., k) are at a bound, or fixed."""
        low, high = self.bounds
        return (parameters <= low) | (parameters >= high)

    def starts(self, weights: Floats, delta: float) -> Floats | None:
        """Return working parameters (s, k) to descend from; None if the solver's grid finds them."""
        return None

    def at(self, rows: Ints) -> "Surface":
        """Return the surface at some of its points, centred at the means of these points."""
        effects = tuple(effect.at(rows) for effect in self.effects)
        return Surface(self.law, tuple(values[rows] for values in self.log_inputs), self.log_loss[rows], effects)

    def form(self, parameters: Floats) -> Form:
        """Convert working parameters (batch, k) to the form's numbers, (batch,) each."""
        value = dict(zip(self.names, parameters.T, strict=True))
        zero, one = np.zeros(len(parameters)), np.ones(len(parameters))
        alpha, beta = value["alpha"], value[self.exponent_of_tokens] if self.exponent_of_tokens else one
        tokens = np.exp(value["b"] + beta * self.centres[1]) if "b" in value else zero
        gamma = np.exp(value["g"]) if "g" in value else one
        return Form(value.get("E", zero), np.exp(value["a"] + alpha * self.centres[0]), alpha, tokens, beta, gamma)

    def theta(self, parameters: Floats) -> Floats:
        """Return the law's own parameters (batch, k), followed by those of the effects."""
        of_law = self.law.theta(self.form(parameters))
        return np.concatenate([of_law, parameters[:, len(self.law.free) :]], axis=1)

    def residual(self, parameters: Floats) -> Floats:
        """Return ln(predicted/measured) (batch, n)."""
        return self._evaluate(parameters).residual

    def _evaluate(self, parameters: Floats) -> "_Values":
        """Return the intermediate values that objective, gradient and Hessian share."""
        value = dict(zip(self.names, parameters.T[:, :, None], strict=True))  # (batch, 1) each
        shifted = list(self.centred)
        for effect, shifts in zip(self.effects, self.shifts_of(parameters), strict=True):
            shifted[effect.input] = shifted[effect.input] + effect.shift(shifts)
        x = shifted[0]
        size = value["a"] - value["alpha"] * x
        if "b" in value:
            y = shifted[1]
            data = value["b"] - (value[self.exponent_of_tokens] if self.exponent_of_tokens else 1.0) * y
            share = 1 / (1 + np.exp(np.clip(data - size, -700, 700)))
            log_sum = size - np.log(share)
        else:
            y, share, log_sum = x, np.ones_like(size), size
        gamma = np.exp(value["g"]) if "g" in value else np.ones((1, 1))
        reducible = np.exp(np.minimum(gamma * log_sum, 700))
        loss = reducible + value.get("E", 0.0)
        return _Values(x, y, share, log_sum, gamma, reducible / loss, loss, np.log(loss) - self.log_loss)

    def objective(self, parameters: Floats, weights: Floats, delta: float) -> Floats:
        """Return the weighted sum of Huber's loss of the residuals (batch,), weights (batch, n)."""
        return huber(self.residual(parameters), weights, delta)

    def jacobian(self, parameters: Floats) -> Floats:
        """Return the derivatives (n, k) of the residuals by the parameters (k,)."""
        at = self._evaluate(parameters[None])
        rows = self._slopes(at, parameters[None], self._moves(parameters[None]))[0] * at.sigma[0]
        return np.concatenate([1 / at.loss, rows] if self.has_floor else [rows]).T

    def _moves(self, parameters: Floats) -> list["_Move"]:
        """Return how each parameter of the effects moves ln N or ln D."""
        moves = []
        for effect, shifts in zip(self.effects, self.shifts_of(parameters), strict=True):
            exponent = "alpha" if effect.input == 0 else self.exponent_of_tokens
            power = parameters[:, self.names.index(exponent), None] if exponent else np.ones((1, 1))
            for name, first, second in zip(effect.parameters, *effect.derivatives(shifts), strict=True):
                moves.append(_Move(name, effect.input, exponent, power, first, second))
        return moves

    def _slopes(self, at: "_Values", parameters: Floats, moves: Sequence["_Move"]) -> Floats:
        """Return dm/dt of each parameter t but E, (batch, k - 1 or k, n), where m = gamma ln S."""
        to_size = at.gamma * at.share  # dm/da, (batch, n)
        to_data = at.gamma * (1 - at.share)
        slope: dict[str, Floats] = {
            "a": to_size,
            "alpha": -at.x * to_size,
            "b": to_data,
            "beta": -at.y * to_data,
            "g": at.gamma * at.log_sum,
        }
        if self.law.one_exponent:
            slope["alpha"] = slope["alpha"] + slope["beta"]
        slope |= {move.name: -move.power * move.first * (to_data if move.input else to_size) for move in moves}
        return np.stack([np.broadcast_to(slope[name], at.residual.shape) for name in self.names if name != "E"], axis=1)

    def derivatives(self, parameters: Floats, weights: Floats, delta: float) -> tuple[Floats, Floats, Floats]:
        """Return objective (batch,), gradient (batch, k) and Hessian (batch, k, k).

        At Huber's kinks, where the second derivative jumps, its value on the inside is used.
        """
        at = self._evaluate(parameters)
        moves = self._moves(parameters)
        to_size = at.gamma * at.share  # dm/da, (batch, n)
        between: dict[str, Floats | float] = {"a": 1.0, "alpha": -at.x, "b": -1.0, "beta": at.y, "g": 0.0}  # v
        if self.law.one_exponent:
            between["alpha"] = at.y - at.x
        names = [name for name in self.names if name != "E"]
        between |= {move.name: move.power * move.first * (1 if move.input else -1) for move in moves}

        pull = np.clip(at.residual, -delta, delta)  # Huber's first derivative
        weighted = weights * pull
        curved = weights * (np.abs(at.residual) <= delta) - weighted  # of dq dq', with the -dq dq' of Hess q
        down = weighted * at.sigma
        k, first = len(self.names), int(self.has_floor)
        slopes = self._slopes(at, parameters, moves)  # (batch, k - first, n)
        gradient = np.empty((len(parameters), k))
        hessian = np.zeros((len(parameters), k, k))
        gradient[:, first:] = np.einsum("bkn,bn->bk", slopes, down)
        inner = hessian[:, first:, first:]
        inner += _gram(slopes, curved * at.sigma**2 + down)
        if "b" in self.names:
            across = np.stack([np.broadcast_to(between[name], down.shape) for name in names], axis=1)
            inner += _gram(across, down * to_size * (1 - at.share))
        if self.has_floor:
            gradient[:, 0] = (weighted / at.loss).sum(axis=1)
            hessian[:, 0, 0] = (curved / at.loss**2).sum(axis=1)
            hessian[:, 0, first:] = np.einsum("bkn,bn->bk", slopes, curved * at.sigma / at.loss)
            hessian[:, first:, 0] = hessian[:, 0, first:]
        if "g" in self.names:  # gamma multiplies ln S: d2m/dg dt = dm/dt
            row = np.einsum("bkn,bn->bk", slopes, down)
            at_g = names.index("g")
            inner[:, at_g, :] += row
            inner[:, :, at_g] += row
            inner[:, at_g, at_g] -= row[:, at_g]
        for move in moves:
            place, pulled = names.index(move.name), down * (at.gamma - to_size if move.input else to_size)
            inner[:, place, place] -= (pulled * move.power * move.second).sum(axis=1)
            if move.exponent:
                at_exponent = names.index(move.exponent)
                mixed = -(pulled * move.first).sum(axis=1)
                inner[:, at_exponent, place] += mixed
                inner[:, place, at_exponent] += mixed
        return huber(at.residual, weights, delta), gradient, hessian


class _Move(NamedTuple):
    """How one parameter of an effect moves ln N or ln D."""

    name: str
    input: int
    """0 for N, 1 for D."""
    exponent: str | None
    """The working parameter that is the exponent of this input; None if it is fixed at 1."""
    power: Floats
    """(batch, 1) the value of the exponent."""
    first: Floats
    """(batch, n) first derivative of ln N or ln D by the parameter."""
    second: Floats
    """(batch, n) second derivative."""


@dataclass(frozen=True, eq=False)
class _Values:
    """The surface at one batch of parameters; every array broadcasts to (batch, n)."""

    x: Floats
    """ln N, centred, with the shift by the effects."""
    y: Floats
    """ln D, centred."""
    share: Floats
    """p_N, the share of N's term in S."""
    log_sum: Floats
    """ln S."""
    gamma: Floats
    sigma: Floats
    """S^gamma / L, the reducible share of the loss."""
    loss: Floats
    residual: Floats


def huber(residual: Floats, weights: Floats, delta: float) -> Floats:
    """Return the weighted sum (batch,): r^2/2 up to delta, delta (|r| - delta/2) beyond."""
    pull = np.clip(residual, -delta, delta)
    return np.einsum("bn,bn->b", weights, pull * (residual - pull / 2))


def _gram(vectors: Floats, weights: Floats) -> Floats:
    """Return the weighted sum over points of the outer products of vectors (batch, k, n): (batch, k, k)."""
    return (vectors * weights[:, None, :]) @ vectors.transpose(0, 2, 1)

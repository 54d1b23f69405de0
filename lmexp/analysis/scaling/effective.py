"""Effective sizes and tokens: what N or D is worth, given the precision, the optimizer or the repetition of a run.

A law then holds at N f or D f instead of N or D. The solver (surface.py) sees the shift ln f at every point, and its
derivatives by the parameters of the effect, which are fitted beside those of the law.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.points import Points
from lmexp.errors import UserError, nearest

Ints = npt.NDArray[np.intp]
Run = Mapping[str, float | str]
"""What is known of a run beside its size and tokens: `precision`, `weight_bits`, `activation_bits`, `kv_bits`,
`optimizer`, `unique_tokens`."""

MIN_EPOCHS = 1.5
"""If no run has more passes over its data, nothing is known about repetition."""
BEST_PARAMS_PER_TOKEN = (520.8 / 1487.7) ** (1 / 0.35266)
"""Best size for D tokens, as a multiple of D, with the constants A, B and alpha of Muennighoff et al. 2023: 0.051."""


class Effective(Protocol):
    """One factor on N or D."""

    @property
    def input(self) -> int:
        """Which input of the law it multiplies: 0 for N, 1 for D."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the fitted parameters (m)."""

    @property
    def start(self) -> Floats:
        """(m,) the start of the search."""

    @property
    def said(self) -> str:
        """A sentence about the form that is fitted."""

    def at(self, rows: Ints) -> "Effective":
        """Return the effect at some of its points."""

    def on(self, points: Points) -> "Effective":
        """Return the same effect at other points. Raises UserError for a value that no fitted point has."""

    def shift(self, shifts: Floats) -> Floats:
        """Return ln f at each point (batch, n), from parameters (batch, m)."""

    def derivatives(self, shifts: Floats) -> tuple[list[Floats], list[Floats]]:
        """Return the first and the unmixed second derivative of ln f by each parameter, (batch, n) each."""

    def log_factor_of(self, shifts: Floats, run: Run, inputs: Sequence[Floats]) -> Floats:
        """Return ln f (...) of one run of size N and tokens D, `inputs`, at parameters (..., m)."""


@dataclass(frozen=True, eq=False)
class Factors:
    """A factor on the tokens for each optimizer, relative to the most frequent one.

    Wen et al. 2025 (arXiv 2509.02046) measure an optimizer by the tokens that AdamW would need for the same loss, over
    those that it used: that speedup is this factor.
    """

    names: tuple[str, ...]
    """The reference first."""
    of_point: Ints
    """(n,) index into the names."""
    input: int = 1

    @classmethod
    def of(cls, values: npt.NDArray[np.str_]) -> "Factors":
        """Return the factors of points with the names (n,)."""
        names, counts = np.unique(values, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        place = np.empty(len(names), dtype=np.intp)
        place[order] = np.arange(len(names))
        return cls(tuple(str(names[i]) for i in order), place[np.searchsorted(names, values)])

    @property
    def parameters(self) -> tuple[str, ...]:
        """The logarithm of each factor but the reference's."""
        return tuple(f"ln_factor_{name}" for name in self.names[1:])

    @property
    def start(self) -> Floats:
        """All optimizers alike."""
        return np.zeros(len(self.names) - 1)

    @property
    def said(self) -> str:
        """A sentence about the form that is fitted."""
        return f"D_eff = D times a factor for each optimizer, relative to {self.names[0]}"

    def at(self, rows: Ints) -> "Factors":
        """Return the effect at some of its points."""
        return replace(self, of_point=self.of_point[rows])

    def on(self, points: Points) -> "Factors":
        """Return the same factors at other points. Raises UserError for an optimizer that no fitted point has."""
        assert points.optimizer is not None
        return replace(self, of_point=np.array([self._index(str(name)) for name in points.optimizer], dtype=np.intp))

    def shift(self, shifts: Floats) -> Floats:
        """Return ln f at each point (batch, n)."""
        return self._table(shifts)[:, self.of_point]

    def derivatives(self, shifts: Floats) -> tuple[list[Floats], list[Floats]]:
        """Return the derivatives of ln f: 1 where the optimizer is that of the parameter, and no second ones."""
        shape = (len(shifts), len(self.of_point))
        ones = [np.broadcast_to((self.of_point == i) * 1.0, shape) for i in range(1, len(self.names))]
        return ones, [np.zeros_like(one) for one in ones]

    def log_factor_of(self, shifts: Floats, run: Run, inputs: Sequence[Floats]) -> Floats:
        """Return ln f (...) of a run's `optimizer` [default: the reference]."""
        return self._table(shifts)[..., self._index(str(run.get("optimizer", self.names[0])))]

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise UserError(
                f"no point has optimizer '{name}'.{nearest(name, self.names)} There are {', '.join(self.names)}"
            )
        return self.names.index(name)

    def _table(self, shifts: Floats) -> Floats:
        return np.concatenate([np.zeros((*shifts.shape[:-1], 1)), shifts], axis=-1)


@dataclass(frozen=True, eq=False)
class Repeated:
    """Diminishing returns of repeated tokens, or of parameters beyond what the unique tokens deserve.

    Muennighoff et al. 2023 (arXiv 2305.16264): D' = U_D (1 + R (1 - exp(-r/R))), where U_D are the
    unique tokens and r = D/U_D - 1 the repetitions; the fitted parameter is ln R. N' has the same form, with U_N the
    best size for U_D, or N if that is less. As in the paper, that size is a fixed multiple of U_D.
    """

    input: int
    excess: Floats
    """(n,) r, how often the unique part is repeated; 0 where it is not."""

    @classmethod
    def of(cls, points: Points, input: int) -> "Repeated":
        """Return the effect on N, 0, or D, 1, of points with known unique tokens."""
        assert points.unique_tokens is not None
        return cls(input, _excess(input, (points.params, points.tokens), points.unique_tokens))

    @property
    def parameters(self) -> tuple[str, ...]:
        """ln R_N or ln R_D."""
        return ("ln_R_D" if self.input else "ln_R_N",)

    @property
    def start(self) -> Floats:
        """The published values: 15.39 for tokens, 5.31 for parameters."""
        return np.log([15.39 if self.input else 5.31])

    @property
    def said(self) -> str:
        """A sentence about the form that is fitted."""
        letter = "D" if self.input else "N"
        return f"{letter}' = U_{letter} (1 + R_{letter} (1 - exp(-r/R_{letter}))), r = {letter}/U_{letter} - 1"

    def at(self, rows: Ints) -> "Repeated":
        """Return the effect at some of its points."""
        return replace(self, excess=self.excess[rows])

    def on(self, points: Points) -> "Repeated":
        """Return the same effect at other points."""
        return Repeated.of(points, self.input)

    def shift(self, shifts: Floats) -> Floats:
        """Return ln f at each point (batch, n)."""
        return _diminished(self.excess, shifts)[0]

    def derivatives(self, shifts: Floats) -> tuple[list[Floats], list[Floats]]:
        """Return the first and the second derivative of ln f by ln R, (batch, n) each."""
        _, first, second = _diminished(self.excess, shifts)
        return [first], [second]

    def log_factor_of(self, shifts: Floats, run: Run, inputs: Sequence[Floats]) -> Floats:
        """Return ln f (...) of a run with `unique_tokens` [default: all of its tokens are unique]."""
        unique = np.asarray(run["unique_tokens"], dtype=np.float64) if "unique_tokens" in run else inputs[1]
        return _diminished(_excess(self.input, inputs, unique), shifts[..., 0])[0]


def _excess(input: int, sizes: Sequence[Floats], unique: Floats) -> Floats:
    """Return r (n,) of sizes N and tokens D with unique tokens."""
    whole = np.minimum(unique, sizes[1]) * (1.0 if input else BEST_PARAMS_PER_TOKEN)
    return np.maximum(sizes[input] / whole - 1, 0.0)


def _diminished(excess: Floats, log_rate: Floats) -> tuple[Floats, Floats, Floats]:
    """Return ln((1 + R (1 - exp(-r/R))) / (1 + r)) and its two derivatives by ln R, of r and ln R that broadcast."""
    rate = np.exp(log_rate)
    left = np.exp(-excess / rate)
    worth = 1 + rate * -np.expm1(-excess / rate)
    first = worth - 1 - excess * left
    second = first - excess**2 / rate * left
    slope = first / worth
    return np.log(worth) - np.log1p(excess), slope, second / worth - slope**2

"""What a precision makes of a model's size: its effective parameters, as a factor on N.

Kumar et al. 2024 (equation 3): N_eff = N (1 - exp(-P/gamma)) for every kind of tensor that P bits hold; the constants
do not transfer, so gamma is fitted. That takes several widths where the factor bends, which for the published gamma
of about 2.7 bits means below 16. With fewer, each precision has a factor of its own, relative to the reference one:
the same law at N_eff, without a claim about the bits between.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.errors import UserError, nearest

Ints = npt.NDArray[np.intp]

BITS = {
    "fp32": 32, "tf32": 19, "bf16": 16, "bf16_true": 16, "fp16": 16, "fp8": 8, "int8": 8, "fp6": 6, "fp4": 4, "int4": 4,
    "int3": 3, "int2": 2,
}  # fmt: skip
"""Bits of the operands of a matmul."""
BENDING = 16
"""Widths below this tell gamma; Kumar's form at 16 bits is within 0.3 % of 1 for the published gamma."""
PUBLISHED_GAMMA = 2.7
"""Kumar et al. 2024: where the search for gamma begins."""


@dataclass(frozen=True, eq=False)
class Precisions:
    """The precisions of some points, and how each shifts ln N."""

    names: tuple[str, ...]
    """The reference first: factors are relative to it."""
    of_point: Ints
    """(n,) index into the names."""

    @classmethod
    def of(cls, precision: npt.NDArray[np.str_] | None) -> "Precisions | None":
        """Return the precisions of points, or None where there are not two of them; the widest is the reference."""
        if precision is None:
            return None
        found, counts = np.unique(precision, return_counts=True)
        if len(found) < 2:
            return None
        order = sorted(range(len(found)), key=lambda i: (-BITS.get(str(found[i]), 0), -counts[i], str(found[i])))
        place = np.empty(len(found), dtype=np.intp)
        place[order] = np.arange(len(found))
        return cls(tuple(str(found[i]) for i in order), place[np.searchsorted(found, precision)])

    def at(self, rows: Ints) -> "Precisions":
        """Return those of some of the points."""
        return Precisions(self.names, self.of_point[rows])

    @cached_property
    def bits(self) -> Floats | None:
        """Widths of the names, where they identify gamma: three or more, two of them where the factor bends."""
        if not all(name in BITS for name in self.names):
            return None
        bits = np.array([BITS[name] for name in self.names], dtype=np.float64)
        widths = np.unique(bits)
        return bits if len(widths) >= 3 and (widths < BENDING).sum() >= 2 else None

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of what is fitted: ln gamma of the bits, or the logarithm of each factor but the reference's."""
        return ("ln_gamma_bits",) if self.bits is not None else tuple(f"ln_factor_{name}" for name in self.names[1:])

    @property
    def said(self) -> str:
        """Which of the two forms is fitted, in words."""
        if self.bits is not None:
            return "N_eff = N (1 - exp(-bits/gamma)), gamma fitted"
        return f"N_eff = N times a factor for each precision, relative to {self.names[0]}: too few widths for gamma"

    @property
    def start(self) -> Floats:
        """(m,) where the search begins."""
        return np.log([PUBLISHED_GAMMA]) if self.bits is not None else np.zeros(len(self.names) - 1)

    def log_factor(self, shifts: Floats, name: str | None = None) -> Floats:
        """Return ln(N_eff/N) (...) of a precision, by default the reference, at parameters (..., m).

        Raises UserError for a precision that is not among these.
        """
        name = self.names[0] if name is None else name
        if name not in self.names:
            raise UserError(
                f"no point has precision '{name}'.{nearest(name, self.names)} There are {', '.join(self.names)}"
            )
        return self._table(shifts)[0][..., self.names.index(name)]

    def shift(self, shifts: Floats) -> Floats:
        """Return what is added to ln N at each point (batch, n)."""
        return self._table(shifts)[0][:, self.of_point]

    def derivatives(self, shifts: Floats) -> tuple[list[Floats], list[Floats]]:
        """Return the first and the (unmixed) second derivative of the shift for each parameter, (batch, n) each."""
        if self.bits is None:
            ones = [
                np.broadcast_to((self.of_point == i) * 1.0, (len(shifts), len(self.of_point)))
                for i in range(1, len(self.names))
            ]
            return ones, [np.zeros_like(one) for one in ones]
        _, first, second = self._table(shifts)
        return [first[:, self.of_point]], [second[:, self.of_point]]

    def _table(self, shifts: Floats) -> tuple[Floats, Floats, Floats]:
        """Return ln(N_eff/N) of each name (..., names), and its derivatives by ln gamma, which factors lack."""
        if self.bits is None:
            table = np.concatenate([np.zeros((*shifts.shape[:-1], 1)), shifts], axis=-1)
            return table, np.zeros_like(table), np.zeros_like(table)
        ratio = self.bits / np.exp(shifts)  # P/gamma, (..., names)
        rate = ratio / np.expm1(np.minimum(ratio, 700))  # -d ln(1 - exp(-P/gamma)) / d ln gamma
        return np.log(-np.expm1(-ratio)), -rate, rate * (1 - ratio - rate)

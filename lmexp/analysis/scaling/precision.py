"""The effect of precision on a model's size: its effective number of parameters, as a factor on N.

Kumar et al. 2024 (equation 3), with the bits of weights, activations and KV cache:

    N_eff = N (1 - exp(-P_w/gamma_w)) (1 - exp(-P_a/gamma_a)) (1 - exp(-P_kv/gamma_kv))

A table that has a column of its own for one of them gives it a gamma of its own. Otherwise all have the bits of the
run's precision, and one gamma. The published constants do not transfer to other setups, so gamma is fitted. This needs
several widths at which the factor is clearly below 1, which for the published gamma of about 2.7 bits means below 16
bits. With fewer widths, each precision gets its own factor relative to the reference precision: the same law at N_eff,
without a claim about the widths in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.effective import Run
from lmexp.analysis.scaling.points import Points
from lmexp.config.paths import group_choices, search_roots
from lmexp.config.yaml_files import read_yaml
from lmexp.errors import UserError, nearest

Ints = npt.NDArray[np.intp]

BITS = {
    "fp32": 32, "tf32": 19, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "fp6": 6, "fp4": 4, "int4": 4, "int3": 3,
    "int2": 2,
}  # fmt: skip
"""Bits of the operands of a matmul, by their type."""
BENDING = 16
"""Only widths below this identify gamma: at 16 bits and the published gamma, Kumar's factor is within 0.3 % of 1."""
PUBLISHED_GAMMA = 2.7
"""Start of the search for gamma (Kumar et al. 2024)."""


def bits_of(names: Sequence[str]) -> list[int | None]:
    """Return the bits of the operands of a matmul in each precision, or None if they are not known.

    A precision of conf/precision/ says their type in its file. A name from elsewhere, as in a table of points, may be
    that of a type.
    """
    files = group_choices("precision", search_roots())
    types = [read_yaml(files[name]).get("compute") if name in files else name for name in names]
    return [BITS.get(str(each)) for each in types]


@dataclass(frozen=True, eq=False)
class Precisions:
    """The precisions of some points, and the shift of ln N that each causes."""

    names: tuple[str, ...]
    """The reference precision first; factors are relative to it."""
    of_point: Ints
    """(n,) index into the names."""
    widths: tuple[float | None, ...]
    """The bits of each; see bits_of."""
    kind: str = ""
    """One of BITS_OF if only weights, activations or the KV cache have these widths."""
    input: int = 0

    @classmethod
    def of(cls, precision: npt.NDArray[np.str_] | None) -> "Precisions | None":
        """Return the precisions of points, or None if there are fewer than two. The widest is the reference."""
        if precision is None:
            return None
        names, counts = np.unique(precision, return_counts=True)
        if len(names) < 2:
            return None
        widths = bits_of([str(name) for name in names])
        order = sorted(range(len(names)), key=lambda i: (-(widths[i] or 0), -counts[i], str(names[i])))
        place = np.empty(len(names), dtype=np.intp)
        place[order] = np.arange(len(names))
        of_point = place[np.searchsorted(names, precision)]
        return cls(tuple(str(names[i]) for i in order), of_point, tuple(widths[i] for i in order))

    @classmethod
    def all_of(cls, points: Points) -> "list[Precisions]":
        """Return the precision of points, and those of weights, activations and KV cache, as far as they vary."""
        found = [cls.of(points.precision), *(cls.of_bits(kind, points.bits[kind]) for kind in points.bits)]
        return [each for each in found if each is not None]

    @classmethod
    def of_bits(cls, kind: str, bits: Floats) -> "Precisions | None":
        """Return the precisions of one kind of tensor (n,), or None if all are equal. The widest is the reference."""
        widths, place = np.unique(-bits, return_inverse=True)
        if len(widths) < 2:
            return None
        return cls(tuple(f"{-width:g}" for width in widths), place.reshape(-1), tuple((-widths).tolist()), kind)

    def at(self, rows: Ints) -> "Precisions":
        """Return the precisions of some of the points."""
        return replace(self, of_point=self.of_point[rows])

    @cached_property
    def bits(self) -> Floats | None:
        """The width of each name if the widths identify gamma, else None.

        They do if there are three or more, and two of them are below 16 bits.
        """
        if not all(self.widths):
            return None
        bits = np.array(self.widths, dtype=np.float64)
        widths = np.unique(bits)
        return bits if len(widths) >= 3 and (widths < BENDING).sum() >= 2 else None

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the fitted parameters: ln gamma, or the logarithm of each factor but the reference's."""
        if self.bits is not None:
            return (f"ln_gamma_{self.kind or 'bits'}",)
        return tuple(f"ln_factor_{f'{self.kind}_' if self.kind else ''}{name}" for name in self.names[1:])

    @property
    def said(self) -> str:
        """A sentence that says which of the two forms is fitted."""
        if self.bits is not None:
            return f"N_eff = N (1 - exp(-{self.kind or 'bits'}/gamma)), gamma fitted"
        of = f"number of {self.kind}" if self.kind else "precision"
        return f"N_eff = N times a factor for each {of}, relative to {self.names[0]}: too few widths for gamma"

    @property
    def start(self) -> Floats:
        """(m,) the start of the search."""
        return np.log([PUBLISHED_GAMMA]) if self.bits is not None else np.zeros(len(self.names) - 1)

    def log_factor(self, shifts: Floats, name: str | None = None) -> Floats:
        """Return ln(N_eff/N) (...) of a precision [default: the reference], at parameters (..., m).

        Raises UserError if no point has the precision.
        """
        return self._table(shifts)[0][..., self._index(self.names[0] if name is None else name)]

    def _index(self, name: str) -> int:
        if name not in self.names:
            shown = f"{self.kind or 'precision'} '{name}'"
            raise UserError(f"no point has {shown}.{nearest(name, self.names)} There are {', '.join(self.names)}")
        return self.names.index(name)

    def on(self, points: Points) -> "Precisions":
        """Return the same precisions at other points. Raises UserError for a precision that no fitted point has."""
        names = np.array([f"{width:g}" for width in points.bits[self.kind]]) if self.kind else points.precision
        assert names is not None
        return replace(self, of_point=np.array([self._index(str(name)) for name in names], dtype=np.intp))

    def log_factor_of(self, shifts: Floats, run: Run, inputs: Sequence[Floats]) -> Floats:
        """Return ln(N_eff/N) (...) of a run's `precision`, or its bits of this kind [default: the reference].

        A fitted gamma holds for all bits, also for those that no point has.
        """
        if not self.kind or self.kind not in run:
            return self.log_factor(shifts, str(run["precision"]) if not self.kind and "precision" in run else None)
        if self.bits is None:
            return self.log_factor(shifts, f"{float(run[self.kind]):g}")
        return np.asarray(np.log(-np.expm1(-float(run[self.kind]) / np.exp(shifts[..., 0]))))

    def shift(self, shifts: Floats) -> Floats:
        """Return the shift of ln N at each point (batch, n)."""
        return self._table(shifts)[0][:, self.of_point]

    def derivatives(self, shifts: Floats) -> tuple[list[Floats], list[Floats]]:
        """Return the first and the unmixed second derivative of the shift by each parameter, (batch, n) each."""
        if self.bits is None:
            ones = [
                np.broadcast_to((self.of_point == i) * 1.0, (len(shifts), len(self.of_point)))
                for i in range(1, len(self.names))
            ]
            return ones, [np.zeros_like(one) for one in ones]
        _, first, second = self._table(shifts)
        return [first[:, self.of_point]], [second[:, self.of_point]]

    def _table(self, shifts: Floats) -> tuple[Floats, Floats, Floats]:
        """Return ln(N_eff/N) of each name (..., names), and its first two derivatives by ln gamma; 0 for factors."""
        if self.bits is None:
            table = np.concatenate([np.zeros((*shifts.shape[:-1], 1)), shifts], axis=-1)
            return table, np.zeros_like(table), np.zeros_like(table)
        ratio = self.bits / np.exp(shifts)  # P/gamma, (..., names)
        rate = ratio / np.expm1(np.minimum(ratio, 700))  # -d ln(1 - exp(-P/gamma)) / d ln gamma
        return np.log(-np.expm1(-ratio)), -rate, rate * (1 - ratio - rate)

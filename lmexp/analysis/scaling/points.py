"""The points that a law is fitted to: sizes, tokens, FLOPs and losses of runs, as plain arrays."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.errors import UserError, nearest

Texts = npt.NDArray[np.str_]
Ints = npt.NDArray[np.int64]
BITS_OF = ("weight_bits", "activation_bits", "kv_bits")
"""What has a precision of its own in training (Kumar et al. 2024, equation 3)."""


@dataclass(frozen=True, eq=False)
class Points:
    """Runs, one per entry of every array. All numbers are float64, so that 6ND cannot overflow."""

    params: Floats
    """(n,) parameters N; NaN in all rows if only compute is known, and then `tokens` too."""
    tokens: Floats
    """(n,) training tokens D."""
    flops: Floats
    """(n,) training FLOPs C, in one convention."""
    loss: Floats
    """(n,) validation loss in nats per token."""
    unit: Texts
    """(n,) the independent unit of each point: a run, or the trunk that milestones share. Units are resampled."""
    precision: Texts | None = None
    """(n,) name of the precision; None if the study has only one."""
    optimizer: Texts | None = None
    """(n,) name of the optimizer; None if the points have only one."""
    unique_tokens: Floats | None = None
    """(n,) training tokens of which D may be several passes; None if that is unknown."""
    costs: dict[str, Floats] = field(default_factory=dict)
    """Other costs, (n,) each: `train_seconds`, `dollars`, ...; NaN if not measured."""
    bits: dict[str, Floats] = field(default_factory=dict)
    """(n,) bits of the weights, activations and KV cache in training, each by its name in BITS_OF; only those that
    vary."""
    others: dict[str, Floats] = field(default_factory=dict)
    """Columns that a law of the user's names, (n,) each; NaN where there is no number."""
    headings: dict[str, str] = field(default_factory=dict)
    """The table's own names of params, tokens, flops and loss."""
    table_columns: tuple[str, ...] = ()
    """All columns of the table that the points were read from."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows that were left out: reason -> number of rows."""
    names: Texts | None = None
    """(n,) what a reader calls each point: `line 7` of a file, or the name of a run; None for `point 7`."""
    weights: Floats | None = None
    """(n,) weight of each point in the fit, above 0; None if all weigh the same."""
    weighted_by: str = ""
    """The column that the weights were read from."""
    lines: Ints | None = None
    """(n,) the line of each point in its file, or the number of its row in a table, from 1; None if it is unknown."""
    run_ids: Texts | None = None
    """(n,) the run that each point is a row of; None if a table does not say it."""
    units_named: bool = True
    """Whether the units are known; False if a table does not say which rows are one run, and each row counts as one."""
    floor: float | None = None
    """The loss that no model can beat, in the unit of `loss`; None if it is unknown or the points differ in it."""
    warnings: tuple[str, ...] = ()
    """What a reader of the fit must know about the points."""
    source: str = ""
    """A text that says where the points come from."""

    def __post_init__(self) -> None:
        """Cast to float64 and check. Raises UserError if lengths differ or a number is not finite and above 0."""
        for name in ("params", "tokens", "flops", "loss"):
            unknown = name in ("params", "tokens") and not self.has_sizes
            object.__setattr__(self, name, self._numbers(name, getattr(self, name), may_miss=unknown))
        object.__setattr__(self, "unit", self._texts("unit", self.unit))
        for name in ("precision", "optimizer", "names", "run_ids"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, self._texts(name, getattr(self, name)))
        if self.unique_tokens is not None:
            object.__setattr__(self, "unique_tokens", self._numbers("unique_tokens", self.unique_tokens))
        object.__setattr__(self, "bits", {name: self._numbers(name, values) for name, values in self.bits.items()})
        if self.weights is not None:
            object.__setattr__(self, "weights", self._numbers("weights", self.weights))
        costs = {name: self._numbers(name, values, may_miss=True) for name, values in self.costs.items()}
        object.__setattr__(self, "costs", costs)
        others = {name: np.asarray(values, dtype=np.float64) for name, values in self.others.items()}
        for name, values in others.items():
            self._check_length(name, values.shape)
        object.__setattr__(self, "others", others)

    def _numbers(self, name: str, values: npt.ArrayLike, may_miss: bool = False) -> Floats:
        """Return a column as float64 (n,). Values must be finite and above 0, or NaN if `may_miss`."""
        numbers = np.asarray(values, dtype=np.float64)
        self._check_length(name, numbers.shape)
        good = np.isfinite(numbers) & (numbers > 0)
        if may_miss:
            good |= np.isnan(numbers)
        if not good.all():
            bad = int(np.flatnonzero(~good)[0])
            raise UserError(f"point {bad + 1}{self._where}: {name} is {numbers[bad]:g}; it must be finite and above 0")
        return numbers

    def _texts(self, name: str, values: npt.ArrayLike) -> Texts:
        """Return a column as text (n,)."""
        texts = np.asarray(values, dtype=np.str_)
        self._check_length(name, texts.shape)
        return texts

    def _check_length(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise UserError unless `shape` is (n,), with the length of `params`."""
        if shape != (len(self.params),):
            raise UserError(f"{name}{self._where} has shape {shape}, params has {len(self.params)} entries")

    @property
    def has_sizes(self) -> bool:
        """Whether parameters and tokens are known; if not, only a law in compute can be fitted."""
        sizes = np.asarray([self.params, self.tokens], dtype=np.float64)
        return not len(self) or not np.isnan(sizes).all()

    @property
    def _where(self) -> str:
        return f" of {self.source}" if self.source else ""

    def __len__(self) -> int:
        return len(self.params)

    @property
    def n_units(self) -> int:
        """How many independent units the points come from."""
        return len(np.unique(self.unit))

    @property
    def relative_weights(self) -> Floats:
        """(n,) The weights as multiples of their mean, so that equal weights are all exactly 1."""
        if self.weights is None or not len(self) or np.ptp(self.weights) == 0:
            return np.ones(len(self))
        return np.asarray(self.weights / self.weights.mean())

    def sha256(self) -> str:
        """Return the SHA-256 of the points' params, tokens, FLOPs, losses and weights, if any, as float64."""
        columns = np.stack(
            [self.params, self.tokens, self.flops, self.loss, *([] if self.weights is None else [self.weights])]
        )
        return hashlib.sha256(columns.astype("<f8").tobytes()).hexdigest()

    def name_of(self, row: int) -> str:
        """Return what a reader calls a point."""
        return f"point {row + 1}" if self.names is None else str(self.names[row])

    def with_units(self, unit: Texts, said: str) -> "Points":
        """Return the points with other units (n,), and a warning about it."""
        return replace(self, unit=unit, warnings=(*self.warnings, said))

    @property
    def names_of_columns(self) -> dict[str, str]:
        """What a law may name -> the name of that column here: `N` -> `params`, if the table calls parameters N."""
        sizes = ("params", "tokens", "flops") if self.has_sizes else ("flops",)
        headings = {self.headings[name]: name for name in sizes if name in self.headings}
        return headings | {name: name for name in (*sizes, *self.costs, *self.others)}

    @property
    def names_of_loss(self) -> set[str]:
        """What a law may call the loss."""
        return {"loss", self.headings.get("loss", "loss")}

    def column(self, name: str) -> Floats:
        """Return a column or a cost (n,) by its name. Raises UserError if there is none of that name."""
        known = {"params": self.params, "tokens": self.tokens, "flops": self.flops, "loss": self.loss, **self.costs}
        known |= self.others
        if name not in known:
            raise UserError(f"there is no '{name}'{self._where}.{nearest(name, known)} There are {', '.join(known)}")
        return known[name]

    def where(self, mask: npt.NDArray[np.bool_]) -> "Points":
        """Return the points that `mask` (n,) marks, with the same `left_out`, warnings and source."""
        costs: Mapping[str, Floats] = {name: values[mask] for name, values in self.costs.items()}
        return replace(
            self,
            params=self.params[mask],
            tokens=self.tokens[mask],
            flops=self.flops[mask],
            loss=self.loss[mask],
            unit=self.unit[mask],
            precision=None if self.precision is None else self.precision[mask],
            bits={name: values[mask] for name, values in self.bits.items()},
            optimizer=None if self.optimizer is None else self.optimizer[mask],
            unique_tokens=None if self.unique_tokens is None else self.unique_tokens[mask],
            costs=dict(costs),
            others={name: values[mask] for name, values in self.others.items()},
            names=None if self.names is None else self.names[mask],
            weights=None if self.weights is None else self.weights[mask],
            lines=None if self.lines is None else self.lines[mask],
            run_ids=None if self.run_ids is None else self.run_ids[mask],
        )

"""What laws predict for rows that they were not fitted to: rows of single runs, or whole loss curves."""

from typing import NamedTuple

import numpy as np

from lmexp.analysis.arrays import Floats, Marks
from lmexp.analysis.scaling.curves import Curve, curve_of_frame
from lmexp.analysis.scaling.multipower import fit_curves
from lmexp.errors import UserError
from lmexp.papers.evidence import Evidence

CURVE = "file"
"""The column that says which curve a row belongs to."""


class HeldOut(NamedTuple):
    """Losses of one group of rows: of all held-out runs, or of one held-out curve."""

    predicted: Floats
    measured: Floats

    @property
    def errors(self) -> Floats:
        """(n,) |predicted/measured - 1|."""
        return np.asarray(np.abs(self.predicted / self.measured - 1))

    @property
    def r_squared(self) -> float:
        """The share of the variance of the measured losses that is predicted."""
        off = ((self.predicted - self.measured) ** 2).sum()
        return float(1 - off / ((self.measured - self.measured.mean()) ** 2).sum())


def check(name: str, held: Marks) -> None:
    """Raise UserError if the condition of a function holds for no row or for all."""
    if not held.any() or held.all():
        raise UserError(f"{name}: the condition must hold for some rows and not for all")


def curves_held_out(evidence: Evidence, held: Marks, delta: float | None = None) -> list[HeldOut]:
    """Return the losses of each held-out curve by the multi-power law, fitted to the curves that are not held out.

    Raises UserError if rows are no curves, if a curve is held out in part, or if the law is not determined.
    """
    if CURVE not in evidence.table:
        raise UserError(f"a law of loss curves takes rows with a column '{CURVE}', which --points FOLDER adds")
    fitted_to: list[Curve] = []
    others: list[Curve] = []
    for name, rows in evidence.table.assign(held=held).groupby(CURVE, sort=False):
        if rows["held"].nunique() > 1:
            raise UserError(f"the curve {name} is held out in part; hold out whole curves")
        curve = curve_of_frame(rows.drop(columns="held"), str(name))
        (others if rows["held"].iloc[0] else fitted_to).append(curve)
    law = fit_curves(fitted_to, delta)
    return [HeldOut(law.losses(curve)[curve.fitted], curve.loss[curve.fitted]) for curve in others]

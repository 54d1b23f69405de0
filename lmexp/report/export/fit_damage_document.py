"""A fit of the damage of rounding as one JSON document; what `--json` prints and `fit.json` holds."""

from collections.abc import Sequence
from typing import Any

import lmexp
from lmexp.analysis.scaling.bootstrap import FEW_UNITS
from lmexp.analysis.scaling.damage import FORMULA, NAME, DamageFit
from lmexp.analysis.scaling.law_fit import Estimate
from lmexp.report.values import json_value


def damage_document(fit: DamageFit, predicted: Sequence[tuple[str, Estimate]]) -> dict[str, Any]:
    """Return a fit of the damage as one JSON document: the law, its points, and the damage of the predicted runs."""
    return json_value(
        {
            "source": fit.points.source,
            "version": lmexp.__version__,
            "sha256": fit.points.sha256(),
            "method": "jackknife over runs" if fit.points.n_units < FEW_UNITS else "bootstrap over runs",
            "n_points": len(fit.points),
            "n_units": fit.points.n_units,
            "left_out": fit.points.left_out,
            "laws": {
                NAME: {
                    "formula": FORMULA,
                    "theta": fit.theta,
                    "intervals": {name: list(interval) for name, interval in fit.intervals.items()},
                    "delta": fit.delta,
                    "residual": fit.residual,
                }
            },
            "predicted": [
                {"run": words, "damage": {key: float(value) for key, value in damage._asdict().items()}}
                for words, damage in predicted
            ],
            "warnings": list(fit.warnings),
        }
    )

"""A fit of loss curves as one JSON document; what `--json` prints and `fit.json` holds."""

from typing import Any

import lmexp
from lmexp.analysis.scaling.multipower import BLOCKS, FORMULA, NAME, CurveFit, Tested
from lmexp.report.values import json_value


def curves_document(fit: CurveFit, tested: tuple[Tested, ...]) -> dict[str, Any]:
    """Return a fit of loss curves as one JSON document: the law, its curves, and the predicted schedules."""
    return json_value(
        {
            "source": ", ".join(curve.name for curve in fit.curves),
            "version": lmexp.__version__,
            "method": f"jackknife over {BLOCKS} blocks of each curve, linear around the optimum",
            "n_points": sum(int(curve.fitted.sum()) for curve in fit.curves),
            "curves": [
                {"name": curve.name, "n_points": int(curve.fitted.sum()), "last_step": curve.step[-1]}
                for curve in fit.curves
            ],
            "laws": {
                NAME: {
                    "formula": FORMULA,
                    "theta": fit.theta,
                    "intervals": {name: list(interval) for name, interval in fit.intervals.items()},
                    "at_bound": list(fit.at_bound),
                    "objective": fit.objective,
                    "delta": fit.delta,
                    "residual": fit.residual,
                }
            },
            "predicted": [
                {
                    "run": each.name,
                    "loss": {key: float(value) for key, value in each.final._asdict().items()},
                    "measured": each.measured,
                    "r_squared": each.r_squared,
                    "mean_absolute_error": each.mean_absolute_error,
                    "worst_error": each.worst_error,
                }
                for each in tested
            ],
            "warnings": list(fit.warnings),
        }
    )

"""A fit as one JSON document, for other programs; what `--json` prints and `fit.json` holds."""

from typing import Any

import lmexp
from lmexp.analysis.scaling.answers import Answer
from lmexp.analysis.scaling.bootstrap import FEW_UNITS
from lmexp.analysis.scaling.checks import flops_per_token
from lmexp.analysis.scaling.law_fit import Estimate, LawFit
from lmexp.analysis.scaling.laws import Price
from lmexp.analysis.scaling.own_law import OwnLaw
from lmexp.report.values import json_value


def fit_document(answer: Answer) -> dict[str, Any]:
    """Return a fit as one JSON document: laws, approaches, optima, and what was left out; no NaN in it."""
    points = answer.points
    return json_value(
        {
            "source": points.source,
            "points_sha256": points.sha256(),
            "version": lmexp.__version__,
            "method": "bootstrap over units" if points.n_units >= FEW_UNITS else "jackknife over units",
            "resamples": answer.bootstraps if points.n_units >= FEW_UNITS else points.n_units,
            "bootstraps": answer.bootstraps,
            "seed": answer.seed,
            "n_points": len(points),
            "n_units": points.n_units,
            "left_out": points.left_out,
            "weighted_by": points.weighted_by or None,
            "largest": answer.largest,
            "cost": answer.cost,
            "flops_per_param_token": flops_per_token(points),
            "price": {"flops_per_token": str(answer.price), **answer.price._asdict()},
            "trusted": answer.trusted.law.name,
            "laws": {name: _law(law, answer.price) for name, law in answer.fit.laws.items()},
            "loss_floor": points.floor,
            "floor_is_inside": {each.by: each.is_inside for each in answer.irreducible},
            "approaches": {
                name: {
                    "exponent": _interval(approach.exponent),
                    "n_budgets": approach.n_budgets,
                    "holdout_params_off": approach.holdout,
                    "parabolas": [
                        {"flops": p.flops, "params": p.params, "low": p.interval[0], "high": p.interval[1]}
                        for p in approach.parabolas
                    ],
                }
                for name, approach in answer.approaches.items()
            },
            "approach_1_bias": _bias(answer, "approach_1"),
            "approach_2_bias": _bias(answer, "approach_2"),
            "refused": answer.refused,
            "agreement": None if answer.agreement is None else vars(answer.agreement),
            "best": [
                {
                    "flops": row.flops,
                    "beyond": row.beyond,
                    "by": row.by,
                    "params": _interval(row.params),
                    "tokens": _interval(row.tokens),
                    "loss": None if row.loss is None else _interval(row.loss),
                    "wider": row.wider,
                }
                for row in answer.best
            ],
            "served_tokens": answer.served_tokens,
            "served": [
                vars(row) | {"params": _interval(row.params), "tokens": _interval(row.tokens)} for row in answer.served
            ],
            "bought": [vars(row) | {"loss": _interval(row.loss)} for row in answer.bought],
            "predicted": [
                {"run": row.run, "by": row.by, "loss": _interval(row.loss), "wider": row.wider}
                for row in answer.predicted
            ],
            "warnings": list(answer.warnings),
        }
    )


def _bias(answer: Answer, name: str) -> dict[str, float] | None:
    return vars(answer.biases[name]) if name in answer.biases else None


def _law(law: LawFit, price: Price) -> dict[str, Any]:
    exponents = law.exponents(price) if law.law.has_optimum else {}
    return {
        "formula": law.law.formula,
        "theta": law.theta,
        "intervals": {name: list(interval) for name, interval in law.intervals.items()},
        "exponents": {name: _interval(estimate) for name, estimate in exponents.items()},
        "standard_errors": law.standard_errors,
        "covariance": law.covariance.tolist(),
        "widened": law.widened,
        "simulated_coverage": law.coverage,
        "lack_of_fit": None if law.lack_of_fit is None else law.lack_of_fit.rate,
        "expression": law.law.expression.text if isinstance(law.law, OwnLaw) else None,
        "columns": list(law.law.inputs),
        "fixed": list(law.fixed),
        "at_bound": list(law.at_bound),
        "bounds": {name: list(law.law.limits(name)) for name in law.law.parameters},
        "irreducible_bounds": list(law.law.irreducible) if "E" in law.theta else None,
        "objective": law.objective,
        "delta": law.delta,
        "condition": law.condition,
        "residual": law.residual,
        "holdout": None if law.holdout is None else vars(law.holdout),
    }


def _interval(estimate: Estimate) -> dict[str, float]:
    return {name: float(value) for name, value in zip(("value", "low", "high"), estimate, strict=True)}

"""A fitted relation as one JSON document; what `--json` prints and `fit.json` holds."""

from typing import Any

import lmexp
from lmexp.analysis.scaling.law_fit import Estimate
from lmexp.analysis.scaling.relations.relation import Cell, Relation
from lmexp.report.values import json_value


def relation_document(relation: Relation) -> dict[str, Any]:
    """Return a fitted relation as one JSON document; no NaN in it."""
    points = relation.points
    return json_value(
        {
            "law": relation.law,
            "source": relation.source,
            "version": lmexp.__version__,
            "points_sha256": points.sha256(),
            "method": relation.method,
            "seed": relation.seed,
            "n_points": len(points),
            "n_units": points.n_units,
            "left_out": points.left_out,
            "laws": {
                formula.name: {
                    "formula": formula.formula,
                    "theta": formula.theta,
                    "intervals": {name: list(interval) for name, interval in formula.intervals.items()},
                    "residual": formula.residual,
                    "residual_of": formula.residual_of,
                    "at_bound": list(formula.at_bound),
                }
                for formula in relation.formulas
            },
            "errors": [vars(error) for error in relation.errors],
            "tables": {
                listed.title: [{name: _cell(cell) for name, cell in row.items()} for row in listed.rows]
                for listed in relation.listed
            },
            "predicted": [
                {"run": one.run, "by": one.by, "quantity": one.quantity, **_interval(one.estimate)}
                for one in relation.predictions
            ],
            "warnings": list(relation.warnings),
        }
    )


def _interval(estimate: Estimate) -> dict[str, float]:
    return {name: float(value) for name, value in estimate._asdict().items()}


def _cell(cell: Cell) -> Any:
    return _interval(cell) if isinstance(cell, Estimate) else cell

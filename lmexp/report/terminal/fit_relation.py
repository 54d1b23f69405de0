"""A fitted relation as text: its numbers, held-out errors, the tables that it rests on, and what was predicted."""

from lmexp.analysis.scaling.law_fit import Estimate
from lmexp.analysis.scaling.relations.relation import Cell, Relation
from lmexp.analysis.scaling.words import estimate_text, interval_text, number
from lmexp.report.terminal.fit import LAWS, FitText, Rows, about_points
from lmexp.units import printable

ERRORS = ("what", "points", "bias", "mean error", "in interval")
PREDICTED = ("run", "by", "what", "value")


def relation_text(relation: Relation) -> FitText:
    """Return what a fitted relation says, for the terminal and its page."""
    about = about_points(relation.points)
    if not relation.has_sizes:
        about[1] = f"{len(relation.points)} points from {relation.points.n_units} units."
    rows: Rows = []
    for formula in relation.formulas:
        for i, (name, value) in enumerate(formula.theta.items()):
            interval = interval_text(*formula.intervals[name], number)
            if name in formula.at_bound:
                interval = "at its bound, not identified"
            rows.append((formula.name if i == 0 else "", name, number(value), interval))
    tables: list[tuple[str, tuple[str, ...], Rows]] = [("Laws", LAWS, rows)]
    if relation.errors:
        errors: Rows = []
        for error in relation.errors:
            bias, size = error.bias, error.mean_absolute_error
            written = (f"{bias:+.2%}", f"{size:.2%}") if error.is_relative else (f"{bias:+.4g}", f"{size:.4g}")
            errors.append((error.what, str(error.n_points), *written, f"{error.coverage:.0%}"))
        tables.append(("Errors on held-out rows, fitted to the rest", ERRORS, errors))
    for listed in relation.listed:
        headings = tuple(listed.rows[0])
        tables.append((listed.title, headings, [tuple(map(_cell, row.values())) for row in listed.rows]))
    if relation.predictions:
        predicted: Rows = []
        before = ""
        for one in relation.predictions:
            predicted.append((one.run if one.run != before else "", one.by, one.quantity, _cell(one.estimate)))
            before = one.run
        tables.append(("Predicted", PREDICTED, predicted))
    notes = [f"{formula.name}: {formula.formula}" for formula in relation.formulas]
    return FitText(
        [printable(relation.source), *about[1:]], list(relation.headline), tables, [*notes, *relation.warnings]
    )


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        return value
    return estimate_text(value, number) if isinstance(value, Estimate) else number(value)

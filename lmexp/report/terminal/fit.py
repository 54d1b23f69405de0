"""A fit in the terminal: the points, each law, the best use of budgets, and warnings.

The 95 % interval of a number is in brackets. Laws and approaches are shown side by side and never averaged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmexp.analysis.scaling.answers import Answer
from lmexp.analysis.scaling.checks import FAR, size_of
from lmexp.analysis.scaling.law_fit import Estimate
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.words import (
    beyond,
    estimate_text,
    headline,
    in_cost,
    interval_text,
    lack_of_fit_text,
    loss_text,
    number,
)
from lmexp.report.terminal.layout import empty_table
from lmexp.runs.columns import column
from lmexp.units import counted, flops_text, printable, si

Rows = list[tuple[str, ...]]
LAWS = ("law", "", "value", "95 % interval")
ERRORS = ("law", "points", "bias", "mean error", "in interval", "objective", "delta")
BEST = ("FLOPs", "by", "parameters", "tokens", "loss")
TEXT_COLUMNS = {"law", "by", "", "95 % interval", "run"}
"""Headings of columns that hold text; all other columns align right."""
PREDICTED = ("run", "by", "loss of one such run")
SERVED = ("FLOPs", "by", "loss", "parameters", "tokens", "FLOPs saved")


@dataclass(frozen=True)
class FitText:
    """What a fit says, in the terminal and on its page."""

    about: list[str]
    """What was fitted."""
    headline: list[str]
    tables: list[tuple[str, tuple[str, ...], Rows]]
    """Titles, headings and rows; all cells are text."""
    notes: list[str]
    """Notes and warnings."""


def fit_text(answer: Answer) -> FitText:
    """Return what a fit of runs says."""
    return FitText(about_points(answer.points), headline(answer), tables(answer), [*notes_of(answer), *answer.warnings])


def print_fit(text: FitText, console: Console) -> None:
    """Print a fit, at 80 columns or more."""
    for sentence in text.about:
        console.print(Text(sentence))
    console.print()
    for sentence in text.headline:
        console.print(Text(sentence, style="bold"))
    for title, headings, rows in text.tables:
        console.print()
        console.print(Text(title))
        console.print(_table(headings, rows))
    if text.notes:
        console.print()
    for note in text.notes:
        console.print(Text(f"- {note}"))


def about_points(points: Points) -> list[str]:
    """Return which points were fitted, and which were left out, as sentences."""
    spans = ""
    if points.has_sizes:
        sizes = int(size_of(points.params).max()) + 1
        spans = f"{sizes} sizes from {si(points.params.min())} to {si(points.params.max())}, "
    spans += f"{flops_text(points.flops.min())} to {flops_text(points.flops.max())} FLOPs"
    units = f" from {counted(points.n_units, 'unit')}" if points.n_units < len(points) else ""
    said = [printable(points.source), f"{counted(len(points), 'point')}{units}: {spans}."]
    if points.left_out:
        said.append(f"Left out: {', '.join(f'{count} {why}' for why, count in points.left_out.items())}.")
    return said


def tables(answer: Answer) -> list[tuple[str, tuple[str, ...], Rows]]:
    """Return the tables of a fit, each with its title and headings; all cells are text."""
    titled = [
        ("Laws", LAWS, law_rows(answer)),
        ("Errors on the largest fifth of compute, fitted to the rest", ERRORS, error_rows(answer)),
    ]
    if answer.best:
        titled.append((f"Best use of a budget of {answer.price}", BEST, best_rows(answer)))
    if answer.served and answer.served_tokens:
        title = f"The same loss, with {si(answer.served_tokens)} tokens served afterwards, at the least FLOPs in all"
        titled.append((title, SERVED, served_rows(answer)))
    if answer.predicted:
        titled.append(("Predicted loss", PREDICTED, predicted_rows(answer)))
    if answer.bought and answer.cost:
        title = column(answer.cost).heading
        rows: Rows = [
            (in_cost(row.amount, answer.cost), beyond(row.beyond), estimate_text(row.loss, loss_text))
            for row in answer.bought
        ]
        titled.append((f"What {column(answer.cost).title} buys", (title, "largest run", "loss"), rows))
    return titled


def law_rows(answer: Answer) -> Rows:
    """Return each law's parameters, then the exponents of the approaches, a row each."""
    rows: Rows = []
    for name, law in answer.fit.laws.items():
        for i, (parameter, value) in enumerate(law.theta.items()):
            low, high = law.intervals[parameter]
            if (
                parameter.startswith("ln_") and parameter not in law.law.parameters
            ):  # a factor or a rate reads better than its logarithm
                parameter = parameter.removeprefix("ln_")
                value, low, high = (float(np.exp(part)) for part in (value, low, high))
            interval = f"{number(low)} to {number(high)}"
            if parameter in law.at_bound:
                interval = "at its bound, not identified"
            if parameter in law.fixed:
                interval = "fixed"
            rows.append((name if i == 0 else "", parameter, number(value), interval))
    for name, approach in answer.approaches.items():
        value, low, high = (float(part) for part in approach.exponent)
        rows.append((name, "a in N* ~ C^a", number(value), interval_text(low, high, number)))
    return rows


def error_rows(answer: Answer) -> Rows:
    """Return how well each law predicts runs that it was not fitted to, and its objective with its delta."""
    rows: Rows = []
    for name, law in answer.fit.laws.items():
        held, solved = law.holdout, (f"{law.objective:.5g}", f"{law.delta:.2g}")
        if held is None:
            rows.append((name, "–", "–", "–", "–", *solved))
        else:
            errors = f"{held.bias:+.2%}", f"{held.mean_absolute_error:.2%}", f"{held.coverage:.0%}"
            rows.append((name, str(held.n_points), *errors, *solved))
    return rows


def best_rows(answer: Answer) -> Rows:
    """Return the best model for each budget, by each law and approach."""
    rows: Rows = []
    before = None
    for row in answer.best:
        budget = f"{flops_text(row.flops)}\n{beyond(row.beyond)}" if row.flops != before else ""
        before = row.flops
        loss = "–" if row.loss is None else two_lines(row.loss, loss_text)
        rows.append((budget, row.by, two_lines(row.params, si), two_lines(row.tokens, si), loss))
    return rows


def served_rows(answer: Answer) -> Rows:
    """Return the model that is cheapest to train and serve, for the loss that each budget reaches."""
    rows: Rows = []
    for row in answer.served:
        cells = (flops_text(row.flops), row.by, loss_text(row.loss), two_lines(row.params, si))
        rows.append((*cells, two_lines(row.tokens, si), "–" if math.isnan(row.saved) else f"{row.saved:.0%}"))
    return rows


def predicted_rows(answer: Answer) -> Rows:
    """Return the loss that each law predicts for each run, with the interval of a single run."""
    rows: Rows = []
    before = None
    for row in answer.predicted:
        run = "\n".join(f"{value if isinstance(value, str) else si(value)} {name}" for name, value in row.run.items())
        rows.append((run if row.run != before else "", row.by, two_lines(row.loss, loss_text)))
        before = row.run
    return rows


def notes_of(answer: Answer) -> list[str]:
    """Return what the tables do not show: how far laws disagree, the bias of approach 2, what was refused and why."""
    notes = [f"{name}: {law.law.formula}" for name, law in answer.fit.laws.items()]
    notes += _about_irreducible(answer)
    if answer.points.weights is not None and not answer.cost:
        notes.append("Weights count in the fits of the laws alone: held-out errors and approaches take all rows alike.")
    laws = [row for row in answer.best if row.loss is not None]
    if laws and len(answer.fit.laws) > 1:
        last = [float(row.params.value) for row in laws if row.flops == laws[-1].flops]
        apart = f"the best sizes of the laws differ by a factor of {max(last) / min(last):.2f}"
        notes.append(f"At {flops_text(laws[-1].flops)} FLOPs {apart}: this is uncertainty as well.")
    for name, off in answer.biases.items():
        notes.append(
            f"{name} on this grid would be {off.params:+.1%} off in N* and {off.tokens:+.1%} in D* "
            f"at {flops_text(answer.best[0].flops)} FLOPs if the fitted chinchilla law held exactly."
        )
    if "approach_1" in answer.approaches:
        notes.append("approach_1 has no interval: no resampling method gives one that holds the truth often enough.")
    for name, approach in answer.approaches.items():
        if approach.holdout is not None:
            notes.append(
                f"{name}: the smaller budgets predict the best size of the largest one {approach.holdout:+.0%} off."
            )
    times = [row.beyond for row in answer.best] + [row.beyond for row in answer.bought]
    far = sorted(time for time in times if time > FAR)
    if far:
        notes.append(
            f"{beyond(far[-1])} is far beyond the data: the interval assumes that the law fits there as it did on its "
            "own largest runs."
        )
    notes += _widened(answer)
    notes += [why if name in why else f"{name}: {why}" for name, why in answer.refused.items()]
    return notes


def _about_irreducible(answer: Answer) -> list[str]:
    """Return a note about what --irreducible asked of E, and which laws have none."""
    laws = answer.fit.laws.values()
    asked = [law for law in laws if "E" in law.theta and law.law.irreducible != (0.0, np.inf)]
    if not asked:
        return []
    low, high = asked[0].law.irreducible
    source = ", the floor of this text" if low == answer.points.floor else ""
    between = f"kept between {low:.6g} and {high:.6g}" if np.isfinite(high) else f"kept at {low:.6g} or more"
    words = f"fixed at {low:.6g}{source}" if low == high else between
    without = [law.law.name for law in laws if "E" not in law.theta]
    others = f"; {' and '.join(without)} {'has' if len(without) == 1 else 'have'} no E" if without else ""
    return [f"E is {words} in {', '.join(law.law.name for law in asked)}{others}."]


def _widened(answer: Answer) -> list[str]:
    """Return for each law which part of its widest interval of a loss is lack of fit."""
    said = []
    for name, law in answer.fit.laws.items():
        rows: list[tuple[float, str]] = [
            (row.wider, f"the loss at {flops_text(row.flops)} FLOPs") for row in answer.best if row.by == name
        ]
        if answer.cost:
            rows += [(row.wider, f"the loss for {in_cost(row.amount, answer.cost)}") for row in answer.bought]
        rows += [(row.wider, "the predicted loss") for row in answer.predicted if row.by == name]
        if rows:
            said.append(lack_of_fit_text(law, *max(rows)))
    return [sentence for sentence in said if sentence]


def _table(headings: Sequence[str], rows: Rows) -> Table:
    result = empty_table()
    for heading in headings:
        result.add_column(Text(heading), justify="left" if heading in TEXT_COLUMNS else "right", overflow="fold")
    for row in rows:
        result.add_row(*map(Text, row))
    return result


def two_lines(estimate: Estimate, write: Any) -> str:
    """Return an estimate, its interval below it, for a narrow table."""
    value, low, high = (float(part) for part in estimate)
    if math.isnan(value):
        return "–"
    return str(write(value)) if math.isnan(low) else f"{write(value)}\n{interval_text(low, high, write)}"

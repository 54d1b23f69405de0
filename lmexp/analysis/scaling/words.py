"""What a fit says, as sentences: the best size of a budget, whether the approaches agree, and the numbers in them.

The 95 % interval of a number is in brackets.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmexp.analysis.scaling.agreement import agreement
from lmexp.analysis.scaling.answers import Answer, Best
from lmexp.analysis.scaling.approaches import EqualCompute, Parabola
from lmexp.analysis.scaling.bootstrap import FEW_UNITS
from lmexp.analysis.scaling.irreducible import Irreducible
from lmexp.analysis.scaling.law_fit import Estimate, LawFit
from lmexp.analysis.scaling.points import Points
from lmexp.runs.columns import column
from lmexp.units import flops_text, si

MIN_WIDER = 1.05
"""An interval that lack of fit widens by a smaller factor is not said to be wider."""


def headline(answer: Answer) -> list[str]:
    """Return the answer in two or three sentences: the best size by the law that predicted the held-out runs best, and
    whether the approaches and the other laws agree with it. If they do not, this is the answer.
    """
    law = answer.trusted
    held = law.holdout
    said = []
    if answer.cost and answer.bought:
        first = answer.bought[0]
        amount = f"{in_cost(first.amount, answer.cost)} of {column(answer.cost).title}"
        said.append(f"{amount} buy a loss of {estimate_text(first.loss, loss_text)}.")
    for_size = answer.fit.trusted_for_size
    for row in [row for row in answer.best if for_size and row.by == for_size.law.name][:1]:
        said += _best_size(answer, row)
    if held and len(answer.fit.laws) > 1:
        off = f"{held.mean_absolute_error:.2%} off on average"
        said.append(f"{law.law.name} predicts the runs with the largest fifth of compute best: {off}.")
    elif held:
        off = f"{held.mean_absolute_error:.2%} off on average"
        said.append(f"Fitted to the smaller runs, the law predicts the largest fifth {off}.")
    return said + [irreducible_text(each) for each in answer.irreducible]


def about_compute(answer: Answer, largest: EqualCompute | None = None) -> list[str]:
    """Return what a study of sizes and tokens says about compute, in at most six sentences: the best size for its
    largest compute, how it grows, and what ten times as much would give, all by the law that the headline rests on.

    If the runs of the `largest` compute say which size is best, that comes first, unless laws and approaches disagree.
    """
    law = answer.trusted
    rows = [row for row in answer.best if row.by == law.law.name]
    said = _best_size(answer, rows[0]) if rows else []
    if largest is not None and not (answer.agreement and answer.agreement.disagree):
        parabola = largest.parabola
        by_law = [_beside_parabola(rows[0], parabola), *said[1:]] if rows and parabola else said
        said = [_at_equal_compute(answer.points, largest), *by_law]
    if "approach_2" in answer.approaches:
        exponent = estimate_text(answer.approaches["approach_2"].exponent, "{:.2f}".format)
        said.append(f"The best size grows as compute to the power of {exponent}, by approach_2.")
    for row in rows[1:2]:
        assert row.loss is not None, "a law has a loss"
        size, loss = estimate_text(row.params, si), estimate_text(row.loss, loss_text)
        said.append(
            f"{row.beyond:.3g} times the compute would give a loss of {loss} at {size} parameters, by {row.by}."
        )
    if law.holdout:
        off = f"{law.holdout.mean_absolute_error:.2%} off on average"
        said.append(f"Fitted to the smaller runs, {law.law.name} predicts the largest fifth of compute {off}.")
    return said


def about_budgets(points: Points, budgets: Sequence[EqualCompute]) -> list[str]:
    """Return the best size at each amount of compute as sentences, the largest amount first.

    It is the vertex of the parabola, or without one the size with the lowest measured loss.
    """
    return [_at_equal_compute(points, budget) for budget in reversed(budgets)]


def budget_text(flops: float) -> str:
    """Return the compute of a budget, whose runs differ in theirs by up to a tenth: 20G, not 19.8G."""
    return flops_text(flops, 2)


def _at_equal_compute(points: Points, budget: EqualCompute) -> str:
    at = f"At {budget_text(budget.flops)} FLOPs"
    if budget.parabola is not None:
        size = estimate_text(_vertex(budget.parabola), si)
        return f"{at} the best size is {size} parameters, the lowest point of a parabola."
    sizes = points.params[budget.members]
    lowest = float(sizes[int(points.loss[budget.members].argmin())])
    said = f"{at} the lowest loss is that of {si(lowest)} parameters"
    if lowest in (sizes.min(), sizes.max()):
        end = "smallest size, so a smaller" if lowest == sizes.min() else "largest size, so a larger"
        return f"{said}, the {end} one may be better."
    return f"{said}; these are too few sizes for a parabola."


def _vertex(parabola: Parabola) -> Estimate:
    """Return the best size by a parabola, with its interval."""
    return Estimate(*map(np.asarray, (parabola.params, *parabola.interval)))


def _beside_parabola(row: Best, parabola: Parabola) -> str:
    """Return the best size by a law, and whether it may be that of the parabola."""
    compared = agreement(row.flops, row.params, {"parabola": _vertex(parabola)})
    sizes = f"{estimate_text(row.params, si)} parameters and {estimate_text(row.tokens, si)} tokens"
    said = f"By {row.by}, fitted to all runs, it is {sizes}"
    if compared.agree:
        return f"{said}: the two agree within their intervals."
    return f"{said}: they differ by more than their intervals allow." if compared.disagree else f"{said}."


def irreducible_text(irreducible: Irreducible) -> str:
    """Return what a law's irreducible loss is beside the loss that no model can beat, as a sentence."""
    if irreducible.is_fixed:
        same = "" if irreducible.value == irreducible.floor else f"; the floor of this text is {irreducible.floor:.4f}"
        return f"E of {irreducible.by} is fixed at {irreducible.value:.4f}{same or ', the floor of this text'}."
    if irreducible.value == 0:
        return f"{irreducible.by} does not identify E; the floor of this text is {irreducible.floor:.4f}."
    low, high = f"{irreducible.low:.4f}", f"{irreducible.high:.4f}"
    place = "inside" if irreducible.is_inside else "outside"
    return (
        f"E = {irreducible.value:.4f} ({low} to {high}) by {irreducible.by}; the floor of this text is "
        f"{irreducible.floor:.4f}: {place} the interval."
    )


def lack_of_fit_text(law: LawFit, wider: float, of: str) -> str:
    """Return which part of the interval of `of`, such as a loss, is lack of fit; '' if it is hardly wider for it."""
    if law.lack_of_fit is None or not wider >= MIN_WIDER:
        return ""
    method = "jackknife" if law.n_units < FEW_UNITS else "bootstrap"
    return (
        f"{law.law.name}: the interval of {of} is {wider:.2g} times as wide as the {method}'s. Fitted without its "
        "largest runs, the law missed them by more than its interval allowed."
    )


def _best_size(answer: Answer, row: Best) -> list[str]:
    """Return the best size for the first budget, by the trusted law, and what the others say about it."""
    budget = f"At {flops_text(row.flops)} FLOPs"
    compared = answer.agreement
    of_name = {other.by: other.params for other in answer.best if other.flops == row.flops}

    def by(names: Sequence[str]) -> str:
        return ", ".join(f"{estimate_text(of_name[name], si)} by {name}" for name in names)

    if compared is not None and compared.disagree:
        off = answer.biases.get("approach_2") if "approach_2" in compared.disagree else None
        return [
            f"{budget} the best size is not settled: {by([row.by, *compared.disagree])}. They differ by more than "
            "their intervals allow.",
            *([f"approach_2 would be {off.params:+.0%} off on this grid if chinchilla held exactly."] if off else []),
            "More runs of equal compute, with sizes on both sides of these, would settle it.",
        ]
    sizes = f"{estimate_text(row.params, si)} parameters and {estimate_text(row.tokens, si)} tokens"
    said = [f"{budget} the best model has {sizes}, by {row.by}."]
    if compared is not None and compared.agree:
        said.append(f"Within their intervals, {' and '.join(compared.agree)} agree on the size.")
    return said


def estimate_text(estimate: Estimate, write: Any) -> str:
    """Return `1.2 (1.1 to 1.3)`."""
    value, low, high = (float(part) for part in estimate)
    if math.isnan(value):
        return "–"
    return f"{write(value)} ({interval_text(low, high, write)})" if not math.isnan(low) else write(value)


def interval_text(low: float, high: float, write: Any) -> str:
    """Return `1.1 to 1.3`, or a dash if there is no interval."""
    return "–" if math.isnan(low) else f"{write(low)} to {write(high)}"


def number(value: float) -> str:
    """Return a parameter of a law with four digits, as a power of ten if it is huge or tiny."""
    return f"{value:.4g}"


def loss_text(value: float) -> str:
    """Return a loss with as many decimals as a fit can determine."""
    return f"{value:.3f}"


def beyond(times: float) -> str:
    """Return how far a budget is from the largest run."""
    return "largest run" if abs(times - 1) < 0.005 else f"{times:.3g}x the largest run"


def in_cost(value: float, cost: str) -> str:
    """Return an amount of a cost with its unit."""
    unit = column("train_flops" if cost == "flops" else cost).unit
    return f"{flops_text(value) if 'flops' in cost else f'{value:.4g}'} {unit}".rstrip()

"""What `fit` answers: every law and approach side by side, and the best size, tokens and loss of budgets.

Nothing is averaged over laws. The one that predicted the held-out largest runs best is named, and the others stand
beside it: how far they lie apart is an uncertainty that no interval of one law shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lmexp.analysis.scaling import checks, cost
from lmexp.analysis.scaling.approaches import Approach, Bias, approach_1, approach_2, bias
from lmexp.analysis.scaling.fit import Estimate, Fit, LawFit, fit
from lmexp.analysis.scaling.laws import SERVING_FLOPS_PER_TOKEN, power
from lmexp.analysis.scaling.points import Points
from lmexp.errors import UserError

POOR = 0.05
"""Mean relative error on held-out runs from which no law says where the optimum is."""
VAGUE = 10.0
"""Upper over lower end of an interval of N*: beyond, a size is hardly known."""
BEYOND = (1.0, 10.0)
"""Budgets that are told unless others are asked for: so many times the largest run."""


@dataclass(frozen=True)
class Best:
    """The best use of a budget, as one law or approach has it."""

    flops: float
    beyond: float
    """Times the compute of the largest run."""
    by: str
    params: Estimate
    tokens: Estimate
    loss: Estimate | None
    """None of an approach, which has no law of the loss."""


@dataclass(frozen=True)
class Served:
    """The cheapest model for a loss when it is also to be used, beside the cheapest to train for that loss."""

    flops: float
    """The training budget whose best loss is asked for."""
    by: str
    loss: float
    params: Estimate
    tokens: Estimate
    train_flops: float
    total_flops: float
    """Of training and of serving."""
    saved: float
    """Share of the total that the model which is cheapest to train would take more."""


@dataclass(frozen=True)
class Bought:
    """The loss that an amount of one cost buys."""

    amount: float
    beyond: float
    loss: Estimate


@dataclass(frozen=True, eq=False)
class Answer:
    """One fit, with all that is shown of it."""

    points: Points
    fit: Fit
    largest: float
    """FLOPs, or the cost asked about, of the largest run."""
    cost: str | None = None
    """The cost that a law of one variable was fitted to, instead of laws in N and D."""
    flops_per_token: float = 6.0
    """FLOPs per parameter and token of a budget."""
    approaches: dict[str, Approach] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """Law or approach to why it is not here."""
    bias: Bias | None = None
    """Of approach 2 at the first budget, were the law `chinchilla` right."""
    best: tuple[Best, ...] = ()
    served_tokens: float | None = None
    served: tuple[Served, ...] = ()
    bought: tuple[Bought, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def trusted(self) -> LawFit:
        """The law that predicted the largest runs best; without runs held out, the one with fewest parameters."""
        return min(
            self.fit.laws.values(),
            key=lambda law: (law.holdout.mean_absolute_error if law.holdout else np.inf, len(law.law.parameters)),
        )


def answer(
    points: Points,
    budgets: Sequence[float] = (),
    served: float | None = None,
    delta: float | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
) -> Answer:
    """Fit all laws in N and D and both approaches, and say the optimum of each budget.

    Raises UserError where the design identifies no such law, or no law can be fitted.
    """
    if why := checks.refusals(points):
        raise UserError(
            f"{points.source.split(':')[0]}: {' '.join(why)} --cost train_flops fits the loss against compute alone."
        )
    found = fit(points, delta=delta, bootstraps=bootstraps, seed=seed)
    refused = {name: " ".join(reasons) for name, reasons in found.refusals.items()}
    if not found.laws:
        raise UserError(f"no law could be fitted: {'; '.join(f'{name}: {why}' for name, why in refused.items())}")
    approaches = {}
    for name, result in (("approach_1", approach_1(points, bootstraps, seed)), ("approach_2", approach_2(points))):
        if isinstance(result, str):
            refused[name] = result
        else:
            approaches[name] = result

    largest, factor = float(points.flops.max()), checks.flops_per_token(points)
    asked = list(budgets) or [largest * times for times in BEYOND]
    laws = {name: law for name, law in found.laws.items() if law.law.has_optimum}
    best = [_by_law(name, law, flops, largest, factor) for flops in asked for name, law in laws.items()]
    best += [_by_approach(found, flops, largest) for flops in asked for found in approaches.values()]
    order = {flops: i for i, flops in enumerate(asked)}
    at_largest = [float(law.optimum(largest, factor).params.value) for law in laws.values()]
    edges = checks.edge(points, float(np.median(at_largest))) if at_largest else ""
    first = laws.get("chinchilla")
    return Answer(
        points=points,
        fit=found,
        largest=largest,
        flops_per_token=factor,
        approaches=approaches,
        refused=refused,
        bias=bias(points, first.law, theta_of(first), asked[0]) if first and "approach_2" in approaches else None,
        best=tuple(sorted(best, key=lambda row: order[row.flops])),
        served_tokens=served,
        served=tuple(_serve(name, law, flops, served, factor) for flops in asked for name, law in laws.items())
        if served
        else (),
        warnings=_once(
            points.warnings,
            checks.warnings(points),
            (edges,),
            _doubts(found, best),
            found.warnings,
            *(law.warnings for law in found.laws.values()),
            *(found.warnings for found in approaches.values()),
        ),
    )


def answer_in_cost(
    points: Points,
    name: str,
    amounts: Sequence[float] = (),
    delta: float | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
) -> Answer:
    """Fit a power law with a floor to the frontier of loss against one cost: `flops`, `train_seconds`, `dollars`, ...

    Raises UserError where the cost was not measured, or the frontier has too few runs.
    """
    column = "flops" if name == "train_flops" else name
    chosen = cost.on_frontier(points, name)
    found = fit(chosen, laws=[power(column)], delta=delta, bootstraps=bootstraps, seed=seed)
    if not found.laws:
        raise UserError(f"no law of loss against {name}: {' '.join(map(' '.join, found.refusals.values()))}")
    (law,) = found.laws.values()
    largest = float(np.max(chosen.flops if column == "flops" else chosen.costs[column]))
    asked = list(amounts) or [largest * times for times in BEYOND]
    return Answer(
        points=chosen,
        fit=found,
        largest=largest,
        cost=name,
        bought=tuple(Bought(amount, amount / largest, law.loss(amount)) for amount in asked),
        warnings=_once(points.warnings, cost.warnings(chosen, name), found.warnings, law.warnings),
    )


def _doubts(found: Fit, best: Sequence[Best]) -> tuple[str, ...]:
    """Return warnings where no law predicts the runs held out, or none knows the best size."""
    doubts = []
    errors = [law.holdout.mean_absolute_error for law in found.laws.values() if law.holdout]
    if errors and min(errors) > POOR:
        doubts.append(
            f"No law predicts the largest runs to within {POOR:.0%}: these runs follow none, or are too noisy for it."
        )
    widths = [float(row.params.high / row.params.low) for row in best if row.loss is not None]
    if widths and min(widths) > VAGUE:
        doubts.append(
            f"The surest law knows the best size to within a factor of {min(widths):.2g}: more sizes and ratios help."
        )
    return tuple(doubts)


def theta_of(law: LawFit) -> npt.NDArray[np.float64]:
    """Return a fitted law's own parameters (k,); those of precisions are left out."""
    return np.array([law.theta[name] for name in law.law.parameters])


def _by_law(name: str, law: LawFit, flops: float, largest: float, factor: float) -> Best:
    params, tokens, loss = law.optimum(flops, factor)
    return Best(flops, flops / largest, name, params, tokens, loss)


def _by_approach(found: Approach, flops: float, largest: float) -> Best:
    return Best(flops, flops / largest, found.name, found.params(flops), found.tokens(flops), None)


def _serve(name: str, law: LawFit, flops: float, served: float, factor: float) -> Served:
    """Return the cheapest model in all that reaches the best loss of a training budget."""
    params, _, loss = law.optimum(flops, factor)
    found = law.for_serving(float(loss.value), served)
    n, d = float(found.params.value), float(found.tokens.value)
    train = factor * n * d
    total = train + SERVING_FLOPS_PER_TOKEN * n * served
    plain = flops + SERVING_FLOPS_PER_TOKEN * float(params.value) * served
    return Served(flops, name, float(loss.value), found.params, found.tokens, train, total, 1 - total / plain)


def _once(*groups: Sequence[str]) -> tuple[str, ...]:
    """Return the sentences of all groups, each once."""
    return tuple(dict.fromkeys(sentence for group in groups for sentence in group if sentence))

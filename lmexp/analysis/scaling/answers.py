"""The answers of `fit`: all laws and approaches side by side, and the best size, tokens and loss for each budget.

Laws are not averaged. The law that predicted the largest, held-out runs best is named, and the others are shown
beside it: the spread between laws is an uncertainty that the interval of a single law does not include.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lmexp.analysis.scaling import branches, checks, cost, outliers
from lmexp.analysis.scaling.agreement import Agreement, agreement, rivals
from lmexp.analysis.scaling.approaches import Approach, Bias, approach_1, approach_2, bias
from lmexp.analysis.scaling.fit import Fit, fit
from lmexp.analysis.scaling.irreducible import Irreducible, irreducible
from lmexp.analysis.scaling.law_fit import Estimate, LawFit, times_as_wide
from lmexp.analysis.scaling.laws import DEFAULT_LAWS, SERVED, SIX_ND, Law, Price, power
from lmexp.analysis.scaling.own_law import OwnLaw, is_expression
from lmexp.analysis.scaling.points import Points
from lmexp.errors import UserError
from lmexp.units import si

POOR = 0.05
"""If every law's mean relative error on held-out runs is above this, a warning says that no law fits."""
VAGUE = 10.0
"""If the upper end of every interval of N* is more than this many times the lower, a warning says so."""
BEYOND = (1.0, 10.0)
"""The default budgets, as multiples of the largest run."""


@dataclass(frozen=True)
class Best:
    """The best use of a budget according to one law or approach."""

    flops: float
    beyond: float
    """The budget as a multiple of the largest run's compute."""
    by: str
    """The name of the law or approach."""
    params: Estimate
    tokens: Estimate
    loss: Estimate | None
    """None for an approach, which has no law of the loss."""
    wider: float = 1.0
    """How many times as wide the interval of the loss is as without lack of fit (lack_of_fit.py)."""


@dataclass(frozen=True)
class Served:
    """The model with the lowest cost of training and serving together, for the best loss of a training budget."""

    flops: float
    """The training budget whose best loss must be reached."""
    by: str
    loss: float
    params: Estimate
    tokens: Estimate
    train_flops: float
    total_flops: float
    """Training and serving together."""
    saved: float
    """Share of FLOPs saved against training and serving the model that is cheapest to train."""


@dataclass(frozen=True)
class Bought:
    """The loss that an amount of one cost buys."""

    amount: float
    beyond: float
    """The amount as a multiple of the most expensive run's."""
    loss: Estimate
    wider: float = 1.0
    """How many times as wide the interval of the loss is as without lack of fit (lack_of_fit.py)."""


@dataclass(frozen=True)
class Predicted:
    """The loss that a law predicts for one new run."""

    run: dict[str, float | str]
    """What is known of the run: `params`, `tokens`, ..."""
    by: str
    """The name of the law."""
    loss: Estimate
    wider: float = 1.0
    """How many times as wide the interval of the loss is as without lack of fit (lack_of_fit.py)."""


@dataclass(frozen=True, eq=False)
class Answer:
    """One fit and everything that is reported about it."""

    points: Points
    fit: Fit
    largest: float
    """FLOPs of the largest run, or its `cost` if that is set."""
    cost: str | None = None
    """The cost that a law of one variable was fitted to; None if laws in N and D were fitted."""
    price: Price = SIX_ND
    """FLOPs of a token, which turn a budget into N and D."""
    approaches: dict[str, Approach] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """Name of a law or approach without a result -> the reason."""
    biases: dict[str, Bias] = field(default_factory=dict)
    """Bias of each approach at the first budget, under the assumption that the law `chinchilla` is right."""
    best: tuple[Best, ...] = ()
    agreement: Agreement | None = None
    """Whether the others give the same best size at the first budget; None if laws of one variable were fitted."""
    served_tokens: float | None = None
    served: tuple[Served, ...] = ()
    bought: tuple[Bought, ...] = ()
    predicted: tuple[Predicted, ...] = ()
    warnings: tuple[str, ...] = ()
    bootstraps: int = 1000
    seed: int = 0

    @property
    def trusted(self) -> LawFit:
        """The law that predicted the held-out runs best."""
        return self.fit.trusted

    @property
    def irreducible(self) -> tuple[Irreducible, ...]:
        """The irreducible loss of each law beside the floor of the text; empty if that is unknown."""
        return irreducible(self.fit.laws, self.points.floor)


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # of refits that diverge
def answer(
    points: Points,
    budgets: Sequence[float] = (),
    served: float | None = None,
    delta: float | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
    laws: Sequence[Law | str] = DEFAULT_LAWS,
    runs: Sequence[Mapping[str, float | str]] = (),
    irreducible: str | None = None,
    parameters: Sequence[str] = (),
) -> Answer:
    """Fit laws in N and D and both approaches, and compute the optimum of each budget and the loss of each of `runs`.

    A law may be an expression; `irreducible` and `parameters` fix or bound E and other parameters, as `fit` says.
    Raises UserError if the design cannot identify a law in N and D, if no law can be fitted, or if a law needs more of
    a run than is given.
    """
    why = checks.refusals(points)
    if why and not all(map(is_expression, laws)):
        raise UserError(
            f"{points.source.split(':')[0]}: {' '.join(why)} --cost train_flops fits the loss against compute alone."
        )
    points = branches.in_units(points) if points.has_sizes else points
    fitted = fit(points, laws, delta, bootstraps, seed, irreducible, parameters)
    refused = {name: " ".join(reasons) for name, reasons in fitted.refusals.items()}
    if not fitted.laws:
        reasons = "; ".join(f"{name}: {why}" for name, why in refused.items())
        raise UserError(f"no law could be fitted: {reasons} {' '.join(points.warnings)}".rstrip())
    results = {} if why else {"approach_1": approach_1(points), "approach_2": approach_2(points)}
    approaches = {name: result for name, result in results.items() if not isinstance(result, str)}
    refused |= {name: result for name, result in results.items() if isinstance(result, str)}

    largest, price = float(points.flops.max()), SIX_ND if why else checks.price_of(points)
    wanted = list(budgets) or [largest * times for times in BEYOND]
    trading = {name: law for name, law in fitted.laws.items() if law.law.has_optimum}
    best = [_by_law(name, law, flops, largest, price) for flops in wanted for name, law in trading.items()]
    best += [_by_approach(approach, flops, largest) for flops in wanted for approach in approaches.values()]
    order = {flops: i for i, flops in enumerate(wanted)}
    first = trading.get("chinchilla")
    return Answer(
        points=points,
        fit=fitted,
        largest=largest,
        price=price,
        bootstraps=bootstraps,
        seed=seed,
        approaches=approaches,
        refused=refused,
        biases=_biases(points, first, wanted[0], approaches) if first else {},
        agreement=_agreement(fitted, best, rivals(fitted, list(approaches)), wanted[0]) if trading else None,
        best=tuple(sorted(best, key=lambda row: order[row.flops])),
        served_tokens=served,
        served=tuple(_serve(name, law, flops, served, price) for flops in wanted for name, law in trading.items())
        if served
        else (),
        predicted=tuple(
            _predict(name, law, run, others_of(fitted)) for run in runs for name, law in fitted.laws.items()
        ),
        warnings=_once(
            *_about_points(points, fitted, wanted[0], price),
            _doubts(fitted, best),
            fitted.warnings,
            *(law.warnings for law in fitted.laws.values()),
            *(approach.warnings for approach in approaches.values()),
        ),
    )


def _about_points(points: Points, fitted: Fit, flops: float, price: Price) -> Iterator[Sequence[str]]:
    """Yield the warnings about the points: their reading, their design, and rows that no noise explains."""
    yield points.warnings
    yield (branches.question(points),) if points.has_sizes else ()
    yield checks.warnings(points)
    largest = float(points.flops.max())
    laws = [law for law in fitted.laws.values() if law.law.has_optimum]
    if laws:
        yield (checks.edge(points, float(np.median([law.optimum(largest, price).params.value for law in laws]))),)
    yield (_outliers(fitted.trusted, points, flops, price),)


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def answer_in_cost(
    points: Points,
    name: str,
    amounts: Sequence[float] = (),
    delta: float | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
    irreducible: str | None = None,
) -> Answer:
    """Fit a power law with a floor to the frontier of loss against one cost: `flops`, `train_seconds`, `dollars`, ...

    `irreducible` fixes or bounds E, as `fit` says. Raises UserError if the cost was not measured, or if the frontier
    has too few runs.
    """
    column = "flops" if name == "train_flops" else name
    bounds = cost.ANY if irreducible is None else checks.irreducible_bounds(irreducible, points)
    chosen = cost.on_frontier(points, name, bounds)
    fitted = fit(chosen, [power(column).with_irreducible(bounds)], delta, bootstraps, seed)
    if not fitted.laws:
        raise UserError(f"no law of loss against {name}: {' '.join(map(' '.join, fitted.refusals.values()))}")
    (law,) = fitted.laws.values()
    largest = float(np.max(chosen.flops if column == "flops" else chosen.costs[column]))
    wanted = list(amounts) or [largest * times for times in BEYOND]
    return Answer(
        points=chosen,
        fit=fitted,
        largest=largest,
        cost=name,
        bootstraps=bootstraps,
        seed=seed,
        bought=tuple(_buy(law, amount, largest) for amount in wanted),
        warnings=_once(
            chosen.warnings,
            cost.warnings(chosen, name),
            fitted.warnings,
            law.warnings,
            (_outliers(law, chosen, wanted[0], SIX_ND),),
        ),
    )


def _biases(points: Points, law: LawFit, flops: float, approaches: Iterable[str]) -> dict[str, Bias]:
    """Return how far off each approach would be on this grid if a law held exactly."""
    functions = {"approach_1": approach_1, "approach_2": approach_2}
    biases = {name: bias(points, law.law, theta_of(law), flops, functions[name]) for name in approaches}
    return {name: known for name, known in biases.items() if known is not None}


def _agreement(fitted: Fit, best: Sequence[Best], names: Sequence[str], flops: float) -> Agreement:
    """Return whether the named laws and approaches agree with the trusted law about the best size of a budget."""
    params = {row.by: row.params for row in best if row.flops == flops}
    trusted = fitted.trusted_for_size
    assert trusted is not None, "a law that gives a best size"
    return agreement(flops, params[trusted.law.name], {name: params[name] for name in names})


def _outliers(law: LawFit, points: Points, flops: float, price: Price) -> str:
    """Return a warning that names the rows no noise explains, and says what leaving them out changes; '' without."""
    off = outliers.deviations(law, points)
    far = np.abs(off) > outliers.FAR_OFF
    if not far.any():
        return ""
    rows = outliers.named(points, off)
    said = f"Rows too far from {law.law.name} to be noise, in robust standard deviations: {rows}."
    if isinstance(law.law, OwnLaw):
        return said
    theta = outliers.theta_without(law, points, far)
    if not law.law.has_optimum:
        after, before = float(law.law.loss(theta, flops)), float(law.loss(flops).value)
        return f"{said} Without them the loss at {flops:.3g} FLOPs would be {after:.4g} instead of {before:.4g}."
    params = float(law.law.optimum(theta, flops, price).params), float(law.optimum(flops, price).params.value)
    return (
        f"{said} Without them the best size at {flops:.3g} FLOPs would be {si(params[0])} instead of {si(params[1])}."
    )


def _doubts(fitted: Fit, best: Sequence[Best]) -> tuple[str, ...]:
    """Return warnings if no law predicts the held-out runs, or if every interval of the best size is too wide."""
    doubts = []
    errors = [law.holdout.mean_absolute_error for law in fitted.laws.values() if law.holdout]
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
    """Return a fitted law's own parameters (k,), without those of the precisions."""
    return np.array([law.theta[name] for name in law.law.parameters])


def _by_law(name: str, law: LawFit, flops: float, largest: float, price: Price) -> Best:
    params, tokens, loss = law.optimum(flops, price)
    wider = _wider(law, lambda law: law.optimum(flops, price).loss)
    return Best(flops, flops / largest, name, params, tokens, loss, wider)


def _buy(law: LawFit, amount: float, largest: float) -> Bought:
    return Bought(amount, amount / largest, law.loss(amount), _wider(law, lambda law: law.loss(amount)))


def _wider(law: LawFit, loss: Callable[[LawFit], Estimate]) -> float:
    """Return how many times as wide the interval of a law's loss is as without its lack of fit."""
    return times_as_wide(loss(law), loss(law.as_fitted)) if law.lack_of_fit else 1.0


def _by_approach(approach: Approach, flops: float, largest: float) -> Best:
    return Best(flops, flops / largest, approach.name, approach.params(flops), approach.tokens(flops), None)


def others_of(fitted: Fit) -> set[str]:
    """Return the columns that laws of the user's take, besides parameters and tokens."""
    own = (law.law.inputs for law in fitted.laws.values() if isinstance(law.law, OwnLaw))
    return {name for inputs in own for name in inputs} - {"params", "tokens"}


def _predict(name: str, law: LawFit, run: Mapping[str, float | str], of_others: Collection[str]) -> Predicted:
    """Return the loss of one new run. Raises UserError if the law needs more of it than is given.

    `of_others` are columns that only laws of the user's take.
    """
    if missing := [key for key in law.law.inputs if key not in run]:
        raise UserError(f"{name} predicts the loss of a run from its {' and '.join(law.law.inputs)}: add {missing[0]}=")
    known = {"params", "tokens", *law.law.inputs, *of_others}
    others = {key: value for key, value in run.items() if key not in known}

    def loss(law: LawFit) -> Estimate:
        return law.prediction(*(float(run[key]) for key in law.law.inputs), **others)

    return Predicted(dict(run), name, loss(law), _wider(law, loss))


def _serve(name: str, law: LawFit, flops: float, served: float, price: Price) -> Served:
    """Return the model that reaches the best loss of a training budget at the lowest cost, serving included."""
    params, _, loss = law.optimum(flops, price)
    optimum = law.for_serving(float(loss.value), served, price)
    n, d = float(optimum.params.value), float(optimum.tokens.value)
    train = float(price.at(n)) * d
    total = train + SERVED * float(price.at(n)) * served
    plain = flops + SERVED * float(price.at(params.value)) * served
    return Served(flops, name, float(loss.value), optimum.params, optimum.tokens, train, total, 1 - total / plain)


def _once(*groups: Sequence[str]) -> tuple[str, ...]:
    """Return the sentences of all groups without duplicates."""
    return tuple(dict.fromkeys(sentence for group in groups for sentence in group if sentence))

"""The scaling laws as data: formulas, published constants, and the optimum of a budget under each.

Every law here is a special case of one form in parameters N and tokens D, with some of its six numbers held fixed:

    L = E + (A N^-alpha + B D^-beta)^gamma

Chinchilla's law has gamma = 1. Kaplan's has E = 0 and beta = 1, and other names for its parameters. Gadre's law of
over-training has beta = alpha. A law in one variable has the first term only, and N then stands for that variable. So
loss, optimum and serving are written once, for the form. A law adds the names of its own parameters and the conversion
between them and the form. surface.py says how the form is fitted.

A theta is an array whose last axis holds a law's parameters in the order of `Law.parameters`. Its leading axes are
batch axes and broadcast with N and D: theta (B, 1, k) with N (n,) gives losses (B, n).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.errors import UserError, nearest

FLOPS_PER_TOKEN = 6.0
"""Training FLOPs are N D times this: 2 forward and 4 backward (Kaplan et al. 2020, section 2.1)."""
SERVED = 1 / 3
"""Cost of a token served, as a share of the cost of a token trained on: the forward pass alone."""


class Price(NamedTuple):
    """The FLOPs of a token to train on, as a power of the size: C = factor N^power D. 6 N D is the usual convention.

    In counted FLOPs the power is a little below 1, because attention and embeddings weigh more in small models.
    """

    factor: float = FLOPS_PER_TOKEN
    power: float = 1.0

    def at(self, params: npt.ArrayLike) -> "Floats":
        """Return the FLOPs per token of sizes (...)."""
        return np.asarray(self.factor * np.asarray(params, dtype=np.float64) ** self.power)

    def __str__(self) -> str:
        """The convention as a formula."""
        return f"C = {self.factor:.3g} N{'' if self.power == 1 else f'^{self.power:.3g}'} D"


IN_LOGS = frozenset({"A", "B", "Nc", "Dc", "gamma", "a", "b"})
"""Parameters that are factors: their intervals are symmetric in the logarithm."""

SIX_ND = Price()
"""C = 6 N D."""


class Form(NamedTuple):
    """The six numbers of L = E + (A N^-alpha + B D^-beta)^gamma; arrays that broadcast."""

    E: Floats
    A: Floats
    alpha: Floats
    B: Floats = np.zeros(())
    beta: Floats = np.ones(())
    gamma: Floats = np.ones(())


def cheapest_sizes(
    form: Form, loss: npt.ArrayLike, served: npt.ArrayLike = 0.0, power: float = 1.0
) -> tuple[Floats, Floats]:
    """Return the N and D that reach a loss at the lowest N^s (D + T/3), T tokens `served` and s the `power`.

    At the minimum (Sardana et al. 2023, equation 2, where s is 1)
    beta B D^-beta / (alpha A N^-alpha) = D / (s (D + T/3)). Let p be the share of N's term in the reducible loss. N and
    D follow from p, the left side falls with p and the right side rises, so there is one root, found by bisection. N
    and D are NaN if the law never reaches the loss.
    """
    gap = np.asarray(loss, dtype=np.float64) - form.E
    reducible = np.where(gap > 0, gap, np.nan) ** (1 / np.asarray(form.gamma))
    third = np.asarray(served, dtype=np.float64) * SERVED

    def sizes(logit: Floats) -> tuple[Floats, Floats]:
        share, rest = 1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(logit))
        params = (form.A / (share * reducible)) ** (1 / np.asarray(form.alpha))
        return params, (form.B / (rest * reducible)) ** (1 / np.asarray(form.beta))

    shape = np.broadcast_shapes(reducible.shape, np.shape(form.alpha), third.shape)
    low, high = np.full(shape, -50.0), np.full(shape, 50.0)
    for _ in range(60):  # halves 100 to below 1e-16
        middle = (low + high) / 2
        left_over_right = np.log(power * form.beta / form.alpha) - middle + np.log1p(third / sizes(middle)[1])
        low, high = np.where(left_over_right > 0, middle, low), np.where(left_over_right > 0, high, middle)
    return sizes((low + high) / 2)


class Optimal(NamedTuple):
    """The best use of a budget: parameters, tokens and the resulting loss."""

    params: Floats
    tokens: Floats
    loss: Floats


@dataclass(frozen=True)
class Law:
    """A formula for the loss as a function of size and tokens, or of one cost."""

    name: str
    formula: str
    parameters: tuple[str, ...]
    """Names of the fitted parameters, in the order of a theta."""
    inputs: tuple[str, ...]
    """The variables of the loss: columns or costs of Points."""
    free: tuple[str, ...]
    """The numbers of the form that are fitted; the others are fixed at E = 0, beta = 1, gamma = 1."""
    to_form: Callable[..., Form]
    """Converts the parameters, as arguments, to the form."""
    from_form: Callable[[Form], tuple[Floats, ...]]
    """Converts the form back to the parameters."""
    effects: tuple[str, ...] = ()
    """What the law knows beside its inputs and the precision: `optimizer` or `repetition` (effective.py)."""
    one_exponent: bool = False
    """Whether beta is alpha, one fitted number for both; `free` then has alpha alone."""
    irreducible: tuple[float, float] = (0.0, np.inf)
    """Least and greatest E that a fit may take; two equal numbers fix E."""

    def with_irreducible(self, bounds: tuple[float, float]) -> "Law":
        """Return the law with bounds for E, or with a fixed E if both are equal; itself if it has no E."""
        return replace(self, irreducible=bounds) if "E" in self.free else self

    @property
    def sizes(self) -> tuple[str, ...]:
        """The inputs that are sizes of a run: beyond those of the fitted runs, the law is less certain."""
        return self.inputs

    def limits(self, name: str) -> tuple[float, float]:
        """Return the least and the greatest value that a fit may give a parameter."""
        return self.irreducible if name == "E" else (-np.inf, np.inf)

    def is_in_logs(self, name: str) -> bool:
        """Whether the interval of a parameter, also of one of an effect, is symmetric in its logarithm."""
        return name in IN_LOGS

    def form(self, theta: npt.ArrayLike) -> Form:
        """Return the form of a theta (..., k); each of its numbers has shape (...)."""
        theta = np.asarray(theta, dtype=np.float64)
        return self.to_form(*np.moveaxis(theta, -1, 0))

    def theta(self, form: Form) -> Floats:
        """Return the theta (..., k) of a form."""
        return np.stack(np.broadcast_arrays(*self.from_form(form)), axis=-1).astype(np.float64)

    def loss(self, theta: npt.ArrayLike, *inputs: npt.ArrayLike) -> Floats:
        """Return the loss at `inputs`: N and D, or the law's one variable; theta (..., k) broadcasts with them.

        Raises UserError if the law takes another number of inputs.
        """
        if len(inputs) != len(self.inputs):
            raise UserError(f"the law {self.name} takes {' and '.join(self.inputs)}, {len(inputs)} values were given")
        f = self.form(theta)
        values = [np.asarray(value, dtype=np.float64) for value in inputs]
        reducible = f.A * values[0] ** -f.alpha
        if len(values) == 2:
            reducible = reducible + f.B * values[1] ** -f.beta
        return np.asarray(f.E + reducible**f.gamma)

    @property
    def has_optimum(self) -> bool:
        """Whether the law trades parameters for tokens, so that a budget has a best size."""
        return self.inputs == ("params", "tokens")

    def optimum(self, theta: npt.ArrayLike, flops: npt.ArrayLike, price: Price = SIX_ND) -> Optimal:
        """Return N*, D* and the loss there under C = k N^s D, the price; theta (..., k) broadcasts with C.

        The closed form holds for every gamma, which does not move the optimum: N* = G (C/k)^(beta/(alpha + s beta)),
        D* = (C/k)/N*^s, with G = (alpha A/(s beta B))^(1/(alpha + s beta)). With k = 6 and s = 1 it is equation 4 of
        Hoffmann et al. 2022. Raises UserError if the law has only one input.
        """
        self._check_optimum()
        f = self.form(theta)
        product = np.asarray(flops, dtype=np.float64) / price.factor
        both = f.alpha + price.power * f.beta
        scale = (f.alpha * f.A / (price.power * f.beta * f.B)) ** (1 / both)
        params = scale * product ** (f.beta / both)
        tokens = product / params**price.power
        return Optimal(params, tokens, self.loss(theta, params, tokens))

    def for_serving(
        self, theta: npt.ArrayLike, loss: npt.ArrayLike, served: npt.ArrayLike, price: Price = SIX_ND
    ) -> Optimal:
        """Return the N and D that reach `loss` at the fewest FLOPs, if T = `served` tokens are served afterwards.

        These FLOPs are k N^s (D + T/3), at the price of a token; 6ND + 2NT with k = 6 and s = 1. N and D are NaN if the
        law never reaches the loss. Raises UserError if the law has only one input.
        """
        self._check_optimum()
        params, tokens = cheapest_sizes(self.form(theta), loss, served, price.power)
        reached = np.broadcast_to(np.asarray(loss, dtype=np.float64), params.shape)
        return Optimal(params, tokens, np.where(np.isfinite(params), reached, np.nan))

    def of_size(self, theta: npt.ArrayLike, params: npt.ArrayLike, price: Price = SIX_ND) -> Optimal:
        """Return the D and the loss of the budget whose best size is N = `params` (...), under C = k N^s D.

        It is `optimum` solved for D: D = (s beta B N^alpha / (alpha A))^(1/beta). Raises UserError if the law has only
        one input.
        """
        self._check_optimum()
        f, params = self.form(theta), np.asarray(params, dtype=np.float64)
        tokens = (price.power * f.beta * f.B * params**f.alpha / (f.alpha * f.A)) ** (1 / f.beta)
        return Optimal(np.broadcast_to(params, tokens.shape), tokens, self.loss(theta, params, tokens))

    def exponent(self, theta: npt.ArrayLike, price: Price = SIX_ND) -> Floats:
        """Return a of N* ~ C^a under C = k N^s D, for theta (..., k). Raises UserError for a law of one input."""
        self._check_optimum()
        f = self.form(theta)
        return np.asarray(f.beta / (f.alpha + price.power * f.beta))

    def _check_optimum(self) -> None:
        if not self.has_optimum:
            raise UserError(f"the law {self.name} is of {self.inputs[0]} alone: it has no best size for a budget")


chinchilla = Law(
    name="chinchilla",
    formula="L = E + A N^-alpha + B D^-beta",
    parameters=("E", "A", "B", "alpha", "beta"),
    inputs=("params", "tokens"),
    free=("E", "A", "alpha", "B", "beta"),
    to_form=lambda E, A, B, alpha, beta: Form(E, A, alpha, B, beta),
    from_form=lambda f: (f.E, f.A, f.B, f.alpha, f.beta),
)
"""Hoffmann et al. 2022, section 3.3: approach 3."""

extra = Law(
    name="extra",
    formula="L = E + (A N^-alpha + B D^-beta)^gamma",
    parameters=("E", "A", "B", "alpha", "beta", "gamma"),
    inputs=("params", "tokens"),
    free=("E", "A", "alpha", "B", "beta", "gamma"),
    to_form=lambda E, A, B, alpha, beta, gamma: Form(E, A, alpha, B, beta, gamma),
    from_form=lambda f: (f.E, f.A, f.B, f.alpha, f.beta, f.gamma),
)
"""Chinchilla's law with an extra exponent, which often predicts the largest runs better."""

kaplan = Law(
    name="kaplan",
    formula="L = ((Nc/N)^(alpha_N/alpha_D) + Dc/D)^alpha_D",
    parameters=("Nc", "Dc", "alpha_N", "alpha_D"),
    inputs=("params", "tokens"),
    free=("A", "alpha", "B", "gamma"),
    to_form=lambda Nc, Dc, alpha_N, alpha_D: Form(
        np.zeros(()), Nc ** (alpha_N / alpha_D), alpha_N / alpha_D, Dc, np.ones(()), alpha_D
    ),
    from_form=lambda f: (
        f.A ** (1 / f.alpha),
        f.B,
        f.alpha * f.gamma,
        f.gamma,
    ),
)
"""Kaplan et al. 2020, equation 1.5, where N excludes embeddings."""


overtraining = Law(
    name="overtraining",
    formula="L = E + (a M^eta + b M^-eta) C^-eta, M = D/N, C = 6ND",
    parameters=("E", "a", "b", "eta"),
    inputs=("params", "tokens"),
    free=("E", "A", "alpha", "B"),
    to_form=lambda E, a, b, eta: Form(
        E, a / FLOPS_PER_TOKEN**eta, 2 * eta, b / FLOPS_PER_TOKEN**eta, 2 * eta, np.ones(())
    ),
    from_form=lambda f: (
        f.E,
        f.A * FLOPS_PER_TOKEN ** (f.alpha / 2),
        f.B * FLOPS_PER_TOKEN ** (f.alpha / 2),
        f.alpha / 2,
    ),
    one_exponent=True,
)
"""Gadre et al. 2024 (arXiv 2403.08540): at one ratio M of tokens to parameters, the loss is a power of C.

It is Chinchilla's law with beta = alpha = 2 eta, written in C and M: N = (C/6M)^1/2 and D = (CM/6)^1/2. One exponent
less makes do with fewer runs, and the authors predict runs of hundreds of tokens per parameter from five small ones.
"""


repeated = Law(
    name="repeated",
    formula="L = E + A N'^-alpha + B D'^-alpha, N' and D' with diminishing returns of repetition",
    parameters=("E", "A", "B", "alpha"),
    inputs=("params", "tokens"),
    free=("E", "A", "alpha", "B"),
    to_form=lambda E, A, B, alpha: Form(E, A, alpha, B, alpha, np.ones(())),
    from_form=lambda f: (f.E, f.A, f.B, f.alpha),
    effects=("repetition",),
    one_exponent=True,
)
"""Muennighoff et al. 2023 (arXiv 2305.16264), with its D' and N', and one exponent as there."""

optimizers = Law(
    name="optimizers",
    formula="L = E + A N^-alpha + B (f D)^-beta, f a factor for each optimizer",
    parameters=chinchilla.parameters,
    inputs=chinchilla.inputs,
    free=chinchilla.free,
    to_form=chinchilla.to_form,
    from_form=chinchilla.from_form,
    effects=("optimizer",),
)
"""Chinchilla's law with the speedup of each optimizer in tokens, as Wen et al. 2025 (arXiv 2509.02046) define it."""


def _kaplan_alone(name: str, column: str, letter: str) -> Law:
    """Return Kaplan's law in one of N and D, if the other is not the limit."""
    return Law(
        name=name,
        formula=f"L = ({letter}c/{letter})^alpha_{letter}",
        parameters=(f"{letter}c", f"alpha_{letter}"),
        inputs=(column,),
        free=("A", "alpha"),
        to_form=lambda scale, alpha: Form(np.zeros(()), scale**alpha, alpha),
        from_form=lambda f: (f.A ** (1 / f.alpha), f.alpha),
    )


kaplan_params = _kaplan_alone("kaplan_params", "params", "N")
"""Kaplan et al. 2020, equation 1.1: for models trained on so many tokens that more tokens would not help."""
kaplan_tokens = _kaplan_alone("kaplan_tokens", "tokens", "D")
"""Kaplan et al. 2020, equation 1.2: for models so large that more parameters would not help."""


def power(column: str) -> Law:
    """Return the power law with a floor in one column of the points: flops, train_seconds, dollars, ..."""
    return Law(
        name=f"power_{column}",
        formula=f"L = E + A {column}^-alpha",
        parameters=("E", "A", "alpha"),
        inputs=(column,),
        free=("E", "A", "alpha"),
        to_form=lambda E, A, alpha: Form(E, A, alpha),
        from_form=lambda f: (f.E, f.A, f.alpha),
    )


LAWS = {
    law.name: law
    for law in (chinchilla, extra, kaplan, overtraining, repeated, optimizers, kaplan_params, kaplan_tokens)
}
"""The laws in parameters and tokens, by name; `power` makes those in one cost."""
DEFAULT_LAWS = (chinchilla, extra, kaplan)
"""The laws that `fit` fits by default; chinchilla and extra are always fitted together."""


CURVE_LAWS = ("multipower",)
"""Laws of single runs' loss curves, which multipower.py fits."""
DAMAGE = "damage"
"""The law of what rounding a model's weights does to its loss, which damage.py fits."""


RELATIONS = ("downstream", "learning_rate", "batch_size", "loss_to_loss")
"""Laws of other numbers than the loss of a size, which the package `relations` fits."""
ONE_QUESTION = {
    **dict.fromkeys(CURVE_LAWS, "loss curves"),
    DAMAGE: "rounded weights",
    "downstream": "a score by the loss",
    "learning_rate": "the best learning rate",
    "batch_size": "the best batch size",
    "loss_to_loss": "one loss by another",
}
"""What each law is about that is no law of the losses of runs."""


def law_named(name: str) -> Law:
    """Return a law by its name; `power_dollars` is the power law with a floor in dollars.

    Raises UserError if there is no law of that name.
    """
    if name.startswith("power_"):
        return power(name.removeprefix("power_"))
    if "=" in name:
        raise UserError(f"a law of your own needs a table's columns, so `lmexp fit` alone takes it: {name[:60]!r}")
    if name in ONE_QUESTION:
        raise UserError(f"{name} is no law of the losses of runs: `lmexp fit ... --law {name}` alone fits it")
    if name not in LAWS:
        raise UserError(
            f"there is no law '{name}'.{nearest(name, [*LAWS, *ONE_QUESTION])} There are {', '.join(LAWS)}, "
            f"power_COLUMN, {', '.join(f'{law} for {what}' for law, what in ONE_QUESTION.items())}"
        )
    return LAWS[name]


@dataclass(frozen=True)
class PublishedLaw:
    """Published constants of a law."""

    law: Law
    values: tuple[float, ...]
    """In the order of the law's parameters."""
    source: str

    @property
    def theta(self) -> Floats:
        """The constants as a theta (k,)."""
        return np.array(self.values)


PUBLISHED_LAWS = {
    "hoffmann": PublishedLaw(
        chinchilla,
        (1.69, 406.4, 410.7, 0.336, 0.283),
        "Hoffmann et al. 2022, approach 3, with the exponents to three digits as Sardana et al. 2023 use them",
    ),
    "hoffmann_rounded": PublishedLaw(
        chinchilla, (1.69, 406.4, 410.7, 0.34, 0.28), "Hoffmann et al. 2022, equation 10: exponents to two digits"
    ),
    "epoch": PublishedLaw(chinchilla, (1.8172, 482.01, 2085.43, 0.3478, 0.3658), "Besiroglu et al. 2024, table 1"),
    "kaplan": PublishedLaw(kaplan, (6.4e13, 1.8e13, 0.076, 0.103), "Kaplan et al. 2020, table 2, L(N, D)"),
    "kaplan_params": PublishedLaw(kaplan_params, (8.8e13, 0.076), "Kaplan et al. 2020, equation 1.1"),
    "kaplan_tokens": PublishedLaw(kaplan_tokens, (5.4e13, 0.095), "Kaplan et al. 2020, equation 1.2"),
}
"""Published constants by name. They were fitted to other data: use them for comparison, not to predict losses here."""

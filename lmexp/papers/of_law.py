"""Numbers that a scaling law gives, for the functions of a claim: the law is fitted, or its constants are published.

Each function here takes a law and a theta (..., k), whose last axis holds the law's parameters, and returns numbers
(...). Inputs broadcast with the leading axes of theta. So one formula serves a fit with its refits, and the published
constants, which have no interval.
"""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.laws import (
    FLOPS_PER_TOKEN,
    LAWS,
    PUBLISHED_LAWS,
    SERVED,
    Law,
    Optimal,
    PublishedLaw,
    law_named,
)
from lmexp.errors import UserError, nearest

PUBLISHED = "published:"
"""How the name of a law with published constants begins, because laws to fit have some of the same names."""
What = Literal["params", "tokens", "flops"]


def published_law(name: str) -> PublishedLaw | None:
    """Return the constants that `published:hoffmann` names; None for a law to fit. Raises UserError if unknown."""
    if not name.startswith(PUBLISHED):
        return None
    short = name.removeprefix(PUBLISHED).strip()
    if short not in PUBLISHED_LAWS:
        known = ", ".join(PUBLISHED_LAWS)
        raise UserError(f"there is no published law '{short}'.{nearest(short, PUBLISHED_LAWS)} There are {known}")
    return PUBLISHED_LAWS[short]


def law_to_fit(name: str) -> Law:
    """Return a law by its name. Raises UserError, which tells a set of published constants from an unknown name."""
    if name not in LAWS and name in PUBLISHED_LAWS:
        raise UserError(f"'{name}' is a set of published constants: write '{PUBLISHED}{name}'")
    return law_named(name)


def exponent(law: Law, theta: Floats) -> Floats:
    """Return the exponent a of the best size N* ~ C^a."""
    return law.exponent(theta)


def best_ratio(law: Law, theta: Floats, flops: npt.ArrayLike) -> Floats:
    """Return the tokens per parameter of the best size for a budget."""
    best = law.optimum(theta, flops)
    return best.tokens / best.params


def parameter(law: Law, theta: Floats, name: str) -> Floats:
    """Return a parameter. Raises UserError if the law has none of this name."""
    if name not in law.parameters:
        raise UserError(f"the law {law.name} has no parameter '{name}'; it has {', '.join(law.parameters)}")
    return np.asarray(theta[..., law.parameters.index(name)])


def loss(law: Law, theta: Floats, *inputs: npt.ArrayLike) -> Floats:
    """Return the loss at the law's inputs."""
    return law.loss(theta, *inputs)


def cheapest(
    law: Law,
    theta: Floats,
    what: str,
    *,
    loss: npt.ArrayLike | None = None,
    size: npt.ArrayLike | None = None,
    served: npt.ArrayLike = 0.0,
) -> Floats:
    """Return a number of the model that reaches a loss at the fewest FLOPs, 6ND + 2NT with T tokens `served`.

    `what` is its `params` N, its `tokens` D or these `flops`. The loss is given, or it is that of a model with `size`
    parameters, trained on the tokens for which this size is the best. The number is NaN if the law never reaches the
    loss. Raises UserError for another `what`, for both or none of `loss` and `size`, and for negative numbers.
    """
    return _quantity(_cheapest(law, theta, loss, size, served), what, served)


def cheapest_ratio(
    law: Law,
    theta: Floats,
    what: str,
    *,
    loss: npt.ArrayLike | None = None,
    size: npt.ArrayLike | None = None,
    served: npt.ArrayLike = 0.0,
) -> Floats:
    """Return a number of the cheapest model, over that of the model of this loss with the fewest FLOPs of training.

    The arguments are those of `cheapest`. The FLOPs of both models include those of serving.
    """
    ours, trained = (_cheapest(law, theta, loss, size, tokens) for tokens in (served, 0.0))
    return _quantity(ours, what, served) / _quantity(trained, what, served)


def _cheapest(
    law: Law, theta: Floats, loss: npt.ArrayLike | None, size: npt.ArrayLike | None, served: npt.ArrayLike
) -> Optimal:
    if (loss is None) == (size is None):
        raise UserError("give loss=, or size= for the loss of the best training of a size, and not both")
    if np.any(np.asarray(served) < 0):
        raise UserError("served= is a number of tokens, 0 or more")
    if size is not None:
        if np.any(np.asarray(size) <= 0):
            raise UserError("size= is a number of parameters, above 0")
        loss = law.of_size(theta, size).loss
    return law.for_serving(theta, np.asarray(loss), served)


def _quantity(best: Optimal, what: str, served: npt.ArrayLike) -> Floats:
    if what == "flops":
        return FLOPS_PER_TOKEN * best.params * (best.tokens + SERVED * np.asarray(served))
    if what not in get_args(What):
        raise UserError(
            f"'{what}' is no number of a model.{nearest(what, get_args(What))} It is params, tokens or flops"
        )
    return best.params if what == "params" else best.tokens

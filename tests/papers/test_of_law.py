"""Numbers of laws in claims: published constants are exact, and a model to serve is the one that costs least."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from lmexp.analysis.scaling.laws import PUBLISHED_LAWS
from lmexp.errors import UserError
from lmexp.papers.evidence import Evidence
from lmexp.papers.expressions import estimate, in_each_row

NO_ROWS = Evidence(pd.DataFrame(), (), "no rows")
OF_TWO = st.sampled_from([name for name, known in PUBLISHED_LAWS.items() if known.law.has_optimum])
SIZES = st.floats(1e8, 1e12)
SERVED = st.floats(1e9, 1e14)


def number(expression: str) -> float:
    """Return the exact number of an expression without rows."""
    value, low, high = estimate(expression, NO_ROWS)
    assert low == value == high
    return value


def of_model(what: str, law: str, size: float, served: float, function: str = "cheapest") -> float:
    return number(f"{function}('published:{law}', '{what}', size={size!r}, served={served!r})")


@settings(max_examples=20, deadline=None)
@given(OF_TWO, SIZES, SERVED)
def test_the_cheapest_model_is_the_one_that_a_search_over_sizes_finds(law: str, size: float, served: float):
    """Scipy varies the size alone: the tokens that give the loss follow from the law, solved for D."""
    form = PUBLISHED_LAWS[law].law.form(PUBLISHED_LAWS[law].theta)
    trained = of_model("tokens", law, size, 0.0)
    reducible = form.A * size**-form.alpha + form.B * trained**-form.beta

    def log_flops(log_params: float) -> float:
        left = reducible - form.A * math.exp(log_params) ** -form.alpha
        tokens = (form.B / left) ** (1 / form.beta)
        return math.log(6) + log_params + math.log(tokens + served / 3)

    smallest = math.log(form.A / reducible) / form.alpha  # it would need infinitely many tokens
    found = minimize_scalar(log_flops, bounds=(smallest + 1e-9, math.log(size) + 1), method="bounded")
    flops = of_model("flops", law, size, served)
    assert math.log(flops) == pytest.approx(log_flops(math.log(of_model("params", law, size, served))), abs=1e-9)
    assert math.log(flops) <= found.fun + 1e-9
    saved = of_model("flops", law, size, served, "cheapest_ratio")
    assert saved == pytest.approx(flops / (size * (6 * trained + 2 * served)), rel=1e-9) and saved <= 1


@settings(max_examples=20, deadline=None)
@given(OF_TWO, SIZES)
def test_without_serving_the_size_stays(law: str, size: float):
    assert of_model("params", law, size, 0.0) == pytest.approx(size, rel=1e-9)
    known = PUBLISHED_LAWS[law]
    best = known.law.optimum(known.theta, of_model("flops", law, size, 0.0))
    assert best.params == pytest.approx(size, rel=1e-9)
    for what in ("params", "tokens", "flops"):
        assert of_model(what, law, size, 0.0, "cheapest_ratio") == pytest.approx(1, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(OF_TWO, SIZES, SERVED, st.floats(1.1, 100))
def test_the_more_is_served_the_smaller_and_the_longer_trained(law: str, size: float, served: float, more: float):
    little, much = (
        [of_model(what, law, size, tokens, "cheapest_ratio") for what in ("params", "tokens", "flops")]
        for tokens in (served, served * more)
    )
    assert much[0] < little[0] <= 1 and much[1] > little[1] >= 1 and much[2] < little[2] + 1e-12


def test_published_constants_give_what_their_papers_say():
    assert number("predict('published:hoffmann', 70e9, 1.4e12)") == pytest.approx(
        1.69 + 406.4 / 70e9**0.336 + 410.7 / 1.4e12**0.283
    )
    assert number("parameter('published:epoch', 'beta') / 2") == 0.3658 / 2
    assert number("exponent_of('published:epoch')") == pytest.approx(0.512, abs=1e-3)  # Besiroglu et al. 2024
    assert 18 < number("best_ratio('published:epoch', 5.76e23)") < 26  # about 20, as Chinchilla itself was trained
    assert number("3 / 4") == 0.75


def test_published_constants_stand_beside_rows():
    """A law's loss is a column, so a function of rows takes it, and its interval is that of the rows."""
    tokens = np.array([1e9, 2e9, 4e9])
    off = np.array([0.1, 0.2, 0.3])
    losses = 1.69 + 406.4 / 1e8**0.336 + 410.7 / tokens**0.283 + off
    table = pd.DataFrame({"n_params": 1e8, "tokens": tokens, "loss": losses, "seed": [0, 1, 2]})
    expression = "loss - predict('published:hoffmann', n_params, tokens)"
    np.testing.assert_allclose(in_each_row(expression, table).to_numpy(dtype=float), off)
    ours = estimate(f"mean({expression})", Evidence(table, ("seed",), "three runs"))
    assert ours.value == pytest.approx(0.2) and ours.low < 0.2 < ours.high
    one = Evidence(table.head(1), ("seed",), "one run")
    assert estimate("predict('published:kaplan_tokens', 1e9)", one).low > 0, "no row takes part in it"


def test_a_law_fitted_to_rows_gives_the_same_numbers_with_an_interval():
    draw = np.random.default_rng(0)
    rows = [
        {"n_params": n, "tokens": d, "loss": 1.69 + 406.4 / n**0.336 + 410.7 / d**0.283 + draw.normal(0, 1e-3)}
        for n in np.geomspace(1e7, 1e10, 5)
        for d in np.geomspace(1e9, 1e12, 5)
    ]
    study = Evidence(pd.DataFrame(rows), (), "a study")
    for call in (
        "cheapest('{}', 'params', size=7e9, served=1e11)",
        "cheapest_ratio('{}', 'flops', loss=2.2, served=1e12)",
    ):
        ours, truth = estimate(call.format("chinchilla"), study), number(call.format("published:hoffmann"))
        assert ours.low < truth < ours.high and ours.high / ours.low < 1.5
    with pytest.raises(UserError, match="must be the whole expression"):
        estimate("cheapest('chinchilla', 'params', loss=2.2) / 1e9", study)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("cheapest('published:hofmann', 'params', loss=2)", r"no published law 'hofmann'\. Did you mean 'hoffmann'\?"),
        ("cheapest('hoffmann', 'params', loss=2)", "a set of published constants: write 'published:hoffmann'"),
        ("cheapest('published:epoch', 'param', loss=2)", r"'param' is no number of a model\. Did you mean 'params'\?"),
        ("cheapest('published:epoch', 'params')", "give loss=, or size="),
        ("cheapest('published:epoch', 'params', loss=2, size=1e9)", "and not both"),
        ("cheapest('published:epoch', 'params', loss=1.8)", "a loss that it never reaches"),
        ("cheapest('published:epoch', 'params', size=0)", "size= is a number of parameters, above 0"),
        ("cheapest('published:epoch', 'params', size=1, served=-1)", "served= is a number of tokens, 0 or more"),
        ("cheapest('published:epoch', 'params', loss=2, delta=1)", "delta= is not known here; .* with loss=, served="),
        ("cheapest('published:kaplan_params', 'params', loss=3)", "has no best size for a budget"),
        ("predict('published:epoch', 1e9)", "takes params and tokens, 1 values were given"),
        ("parameter('published:epoch', 'gamma')", "no parameter 'gamma'; it has E, A, B, alpha, beta"),
        ("worst_error('published:epoch', 1 == 2)", "published constants are not fitted to rows"),
        ("mean(loss)", "'loss' is a column, and without a sweep and without points there are no rows"),
        ("vertices()", "no rows has no rows"),
    ],
)
def test_what_is_wrong_with_a_law_is_one_sentence(expression: str, why: str):
    with pytest.raises(UserError, match=why):
        estimate(expression, NO_ROWS)

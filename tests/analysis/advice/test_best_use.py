"""Where a budget is best spent: the closed forms of 6ND, and what holds for any price."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lmexp.analysis.advice.best_use import Line, best_use, cheapest_use, cost_of, line_through
from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, Form

SIX_ND = Line(np.log(6.0), 1.0, 1e6, 1e9)
FORMS = st.builds(
    Form,
    st.floats(0, 2),
    st.floats(10, 1000),
    st.floats(0.1, 0.6),
    st.floats(10, 5000),
    st.floats(0.1, 0.6),
    st.floats(0.5, 1.5),
)
PRICES = st.builds(Line, st.floats(-20, 5), st.floats(0.6, 1.3), st.just(1e6), st.just(1e9))


def loss_of(form: Form, params: float, tokens: float) -> float:
    return float(form.E + (form.A * params**-form.alpha + form.B * tokens**-form.beta) ** form.gamma)


@pytest.mark.parametrize("name", ["hoffmann", "epoch", "kaplan"])
def test_at_6nd_it_is_the_laws_own_optimum(name: str):
    known = PUBLISHED_LAWS[name]
    use = best_use(known.law.form(known.theta), np.array([1e18, 1e24]), SIX_ND)
    expected = known.law.optimum(known.theta, np.array([1e18, 1e24]))
    np.testing.assert_allclose(use.params, expected.params, rtol=1e-9)
    np.testing.assert_allclose(use.tokens, expected.tokens, rtol=1e-9)


def test_serving_two_trillion_tokens_asks_for_a_smaller_model_trained_longer():
    """Numbers worked out from Sardana et al. 2023, equation 2, with Hoffmann's constants."""
    form = Form(1.69, 406.4, 0.336, 410.7, 0.283)
    use = cheapest_use(form, 1.947, SIX_ND, 2e12)
    assert f"{float(use.params):.3e} {float(use.tokens):.3e}" == "2.418e+10 2.657e+12"


@given(FORMS, PRICES, st.floats(1e12, 1e24), st.floats(0, 1e9))
@example(
    Form(0, 506, 0.109375, 10, 0.125, 1), Line(0, 1, 1e6, 1e9), 1e12, 0
)  # best below one token, which nobody trains
def test_no_other_size_makes_better_use_of_the_budget(form: Form, price: Line, factor: float, served: float):
    budget = float(price.at(1e3)) * factor
    params, tokens = (float(x) for x in best_use(form, budget, price, served))
    best = loss_of(form, params, tokens)
    for other in (params * 0.9, params * 1.1):
        left = budget / float(price.at(other)) - served / 3
        assert left <= 0 or left + served / 3 < 1 or loss_of(form, other, left) >= best - 1e-12


@given(FORMS, PRICES, st.floats(1e12, 1e24), st.floats(1.01, 100), st.floats(0, 1e9))
def test_a_larger_budget_never_gives_a_worse_loss(form: Form, price: Line, factor: float, more: float, served: float):
    budget = float(price.at(1e3)) * factor
    small, large = (best_use(form, b, price, served) for b in (budget, budget * more))
    assert loss_of(form, *map(float, large)) <= loss_of(form, *map(float, small)) + 1e-12


@given(FORMS, PRICES, st.floats(1e12, 1e20), st.floats(0, 1e9))
@example(Form(0, 752, 0.125, 10, 0.125, 1), Line(0, 1, 1e6, 1e9), 1e12, 0)  # less than one token would be cheaper still
def test_the_cheapest_way_to_a_loss_costs_the_budget_that_gives_it(
    form: Form, price: Line, factor: float, served: float
):
    budget = float(price.at(1e3)) * factor
    use = best_use(form, budget, price, served)
    back = cost_of(cheapest_use(form, loss_of(form, *map(float, use)), price, served), price, served)
    assert float(back) <= budget * (1 + 1e-5)
    if float(use.tokens) + served / 3 > 1.001:  # best_use trains one token at least
        np.testing.assert_allclose(back, budget, rtol=1e-5)


def test_a_loss_below_the_floor_has_no_price():
    assert np.isnan(
        cost_of(cheapest_use(PUBLISHED_LAWS["epoch"].law.form(PUBLISHED_LAWS["epoch"].theta), 1.8, SIX_ND), SIX_ND)
    )


def test_a_line_goes_through_what_lies_on_one_and_says_how_far_it_is_from_it():
    sizes = np.array([1e6, 4e6, 1e7])
    line = line_through(sizes, 5 * sizes**0.8, 1.0)
    np.testing.assert_allclose(line.at(1e9), 5 * 1e9**0.8)
    assert (line.beyond(5e6), line.beyond(1e8), line.beyond(1e5)) == (1.0, 10.0, 10.0)
    assert line_through(np.array([1e6]), np.array([3.0]), -1.0).s == -1.0

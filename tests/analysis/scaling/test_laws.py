"""The laws: published figures, the closed forms, and what follows from them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.analysis.scaling.laws import (
    LAWS,
    PUBLISHED_LAWS,
    Price,
    chinchilla,
    extra,
    kaplan,
    law_named,
    overtraining,
    power,
)
from lmexp.errors import UserError

exponents = st.floats(0.1, 1.0)
thetas = st.tuples(st.floats(0.5, 3.0), st.floats(10, 5000), st.floats(10, 5000), exponents, exponents).map(np.array)


def test_the_published_figures_of_serving_are_met():
    best = chinchilla.for_serving(PUBLISHED_LAWS["hoffmann"].theta, 1.947, 2e12)
    assert f"{best.params:.3e} {best.tokens:.3e}" == "2.418e+10 2.657e+12"


def test_kaplans_published_laws_in_one_variable():
    assert PUBLISHED_LAWS["kaplan_params"].law.loss(PUBLISHED_LAWS["kaplan_params"].theta, 1e9) == pytest.approx(
        (8.8e13 / 1e9) ** 0.076
    )
    assert PUBLISHED_LAWS["kaplan_tokens"].law.loss(PUBLISHED_LAWS["kaplan_tokens"].theta, 1e9) == pytest.approx(
        (5.4e13 / 1e9) ** 0.095
    )


def test_kaplans_law_has_the_published_form():
    n_scale, d_scale, alpha_n, alpha_d = theta = PUBLISHED_LAWS["kaplan"].theta
    expected = ((n_scale / 3e8) ** (alpha_n / alpha_d) + d_scale / 2e10) ** alpha_d
    assert kaplan.loss(theta, 3e8, 2e10) == pytest.approx(expected, rel=1e-12)


@given(
    theta=thetas,
    budget=st.floats(1e18, 1e26),
    factor=st.floats(4, 12),
    power=st.floats(0.7, 1.2),
    off=st.floats(0.5, 2),
)
def test_no_other_split_of_a_budget_gives_less_loss(theta, budget, factor, power, off):
    best = chinchilla.optimum(theta, budget, Price(factor, power))
    assert factor * best.params**power * best.tokens == pytest.approx(budget, rel=1e-9)
    assert best.loss <= chinchilla.loss(theta, best.params * off, best.tokens / off**power) * (1 + 1e-12)


@given(theta=thetas, gamma=st.floats(0.3, 2))
def test_the_extra_exponent_moves_no_optimum(theta, gamma):
    plain, bent = chinchilla.optimum(theta, 1e22), extra.optimum(np.append(theta, gamma), 1e22)
    assert bent.params == pytest.approx(plain.params, rel=1e-9)


@given(theta=thetas, part=st.floats(0.05, 0.95), served=st.floats(1e9, 1e14), off=st.floats(0.8, 1.25))
def test_no_other_pair_reaches_the_loss_for_less_training_and_serving(theta, part, served, off):
    loss = theta[0] + part * (chinchilla.loss(theta, 1e9, 1e10) - theta[0])
    best = chinchilla.for_serving(theta, loss, served)
    assert chinchilla.loss(theta, best.params, best.tokens) == pytest.approx(loss, rel=1e-9)
    params = best.params * off
    left = loss - theta[0] - theta[1] * params ** -theta[3]
    if left > 0:
        tokens = (theta[2] / left) ** (1 / theta[4])
        cost, other = (6 * n * d + 2 * n * served for n, d in [(best.params, best.tokens), (params, tokens)])
        assert cost <= other * (1 + 1e-9)


def test_without_serving_it_is_the_optimum_of_training():
    theta = PUBLISHED_LAWS["epoch"].theta
    best = chinchilla.optimum(theta, 1e22)
    assert chinchilla.for_serving(theta, best.loss, 0.0).params == pytest.approx(best.params, rel=1e-9)


def test_a_loss_below_the_floor_is_reached_by_nothing():
    best = chinchilla.for_serving(PUBLISHED_LAWS["epoch"].theta, [1.8, 2.0], 1e12)
    assert np.isnan(best.params).tolist() == [True, False]


@given(theta=thetas, params=st.floats(1e6, 1e11), ratio=st.floats(0.1, 1e4))
def test_over_training_is_chinchillas_law_with_one_exponent(theta, params, ratio):
    """Gadre's form in C and M at any size, and back to the same numbers."""
    E, a, b, eta = theta = theta[:4] * np.array([1.0, 1.0, 1.0, 0.5])
    power = (6 * params * params * ratio) ** -eta
    expected = E + (a * ratio**eta + b * ratio**-eta) * power
    assert overtraining.loss(theta, params, params * ratio) == pytest.approx(expected, rel=1e-9)
    form = overtraining.form(theta)
    assert chinchilla.loss(chinchilla.theta(form), params, params * ratio) == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(overtraining.theta(form), theta, rtol=1e-9)


@pytest.mark.parametrize("known", PUBLISHED_LAWS.values(), ids=PUBLISHED_LAWS)
def test_the_form_and_back_is_the_theta(known):
    np.testing.assert_allclose(known.law.theta(known.law.form(known.theta)), known.theta, rtol=1e-9)


def test_a_batch_of_thetas_and_a_row_of_sizes_give_a_table():
    thetas = np.stack([PUBLISHED_LAWS["epoch"].theta, PUBLISHED_LAWS["hoffmann"].theta])
    table = chinchilla.loss(thetas[:, None], [1e8, 1e9, 1e10], 1e11)
    assert table.shape == (2, 3)
    assert table[1, 2] == chinchilla.loss(PUBLISHED_LAWS["hoffmann"].theta, 1e10, 1e11)


def test_a_name_that_is_no_law_gets_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'chinchilla'"):
        law_named("chincilla")
    assert law_named("power_dollars").inputs == ("dollars",)


def test_a_law_of_one_variable_has_no_best_size():
    with pytest.raises(UserError, match="no best size"):
        power("flops").optimum([1.0, 2.0, 0.1], 1e20)
    with pytest.raises(UserError, match="takes params and tokens"):
        LAWS["chinchilla"].loss(PUBLISHED_LAWS["epoch"].theta, 1e9)

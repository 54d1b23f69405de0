"""The range of sizes that noise does not tell from the best one, where it is known in closed form."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.analysis.advice.tied_sizes import tied_sizes


@given(st.floats(1e4, 1e10), st.floats(0.01, 2), st.floats(1e-4, 0.5))
def test_of_a_parabola_in_the_logarithm_it_is_the_square_root(best: float, curvature: float, margin: float):
    def loss(size: float) -> float:
        return 2 + curvature * math.log(size / best) ** 2

    half = math.sqrt(margin / curvature)
    low, high = tied_sizes(loss, best, margin, (best * math.exp(-5), best * math.exp(5)))
    assert math.log(high / best) == pytest.approx(min(half, 5), abs=1e-6)
    assert math.log(best / low) == pytest.approx(min(half, 5), abs=1e-6)


def test_without_noise_no_other_size_is_tied_and_one_that_the_budget_does_not_pay_for_never_is():
    def loss(size: float) -> float:
        return math.inf if size > 2e6 else 2 + math.log(size / 1e6) ** 2

    assert tied_sizes(loss, 1e6, 0.0, (1e3, 1e9)) == (1e6, 1e6)
    low, high = tied_sizes(loss, 1e6, 0.9, (1e3, 1e9))
    assert low == pytest.approx(1e6 * math.exp(-math.sqrt(0.9))) and high == pytest.approx(2e6)

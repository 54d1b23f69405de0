"""Quantiles and tails equal those of scipy.stats."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lmexp.analysis.quantiles import chi_square, f_tail, student

FREEDOM = st.floats(1, 1000)
SHARES = st.floats(0.001, 0.999)


@given(FREEDOM, SHARES)
def test_student_is_the_middle_of_the_t_distribution(freedom: float, level: float):
    assert float(student(freedom, level)) == pytest.approx(stats.t.interval(level, freedom)[1], rel=1e-9)


@given(SHARES, FREEDOM)
def test_chi_square_is_its_quantile(share: float, freedom: float):
    assert chi_square(share, freedom) == pytest.approx(stats.chi2.ppf(share, freedom), rel=1e-9)


@given(st.floats(0, 100), FREEDOM, FREEDOM)
def test_the_tail_of_f_is_its_survival_function(ratio: float, between: float, within: float):
    assert f_tail(ratio, between, within) == pytest.approx(stats.f.sf(ratio, between, within), rel=1e-9)

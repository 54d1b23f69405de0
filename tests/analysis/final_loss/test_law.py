"""The law that the runs of a sweep share predicts the end of a curve from its beginning."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, t

from lmexp.analysis.final_loss.law import SharedLaw, fit_law
from lmexp.analysis.final_loss.predict import calibrate, half_width
from tests.analysis.final_loss.lawful import SCHEDULES, closed_form, drawn


@cache
def law_of_four_schedules() -> SharedLaw:
    return fit_law([drawn(np.random.default_rng(seed), SCHEDULES[seed % 4]) for seed in range(8)])


# The gain of wsd's cool-down differs from run to run, and a curve does not show it before the cool-down.
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.3, 0.5, 0.8]), which=st.sampled_from([0, 2, 3]))
def test_curves_of_the_closed_form_end_where_the_law_says(seed: int, share: float, which: int):
    """The levels spread by 10 %, of which the prediction leaves a twentieth."""
    curve = drawn(np.random.default_rng(seed), SCHEDULES[which])
    assert law_of_four_schedules().predict(curve.up_to(share)) == pytest.approx(curve.final, rel=0.005)


def test_the_law_knows_what_is_left_of_the_schedule():
    """At 70 % of the budget, wsd and a constant rate have trained alike; the drop that is to come parts them."""
    law = law_of_four_schedules()
    wsd, constant = (closed_form(schedule, 2.5, 0.5, 0.3) for schedule in (SCHEDULES[1], SCHEDULES[2]))
    assert wsd.up_to(0.7).loss == pytest.approx(constant.up_to(0.7).loss, rel=1e-9)
    assert wsd.final is not None and constant.final is not None
    drop = constant.final - wsd.final
    assert drop > 0.02
    assert law.predict(constant.up_to(0.7)) - law.predict(wsd.up_to(0.7)) == pytest.approx(drop, rel=0.1)


def test_a_finished_run_is_tested_as_if_it_had_not_finished():
    curves = law_of_four_schedules().curves
    for index in (0, 3):
        others = fit_law([*curves[:index], *curves[index + 1 :]])
        assert others.shape == law_of_four_schedules().shape  # the one thing that may rest on its end too
        predicted = others.predict(curves[index].up_to(0.5))
        assert law_of_four_schedules().tested(index, 0.5) == pytest.approx(
            np.log(predicted / (curves[index].final or 0))
        )


def test_an_interval_is_students_for_one_more_error():
    errors = np.array([0.01, -0.02, 0.03, 0.0, 0.005])
    low, high = t.interval(0.95, 4, loc=0, scale=errors.std(ddof=1) * np.sqrt(1 + 1 / 5))
    assert half_width(errors) == pytest.approx(high) == pytest.approx(-low)


def test_the_calibration_judges_each_run_by_the_errors_of_the_others():
    errors = np.array([-0.02, -0.01, 0.0, 0.01, 0.02, 0.1])
    off, inside = calibrate(errors)
    assert inside == 5
    assert abs(errors[-1] - errors.mean()) < half_width(errors)  # with its own error, the last one would be inside
    assert off == pytest.approx(np.median(np.abs(np.expm1(1.2 * (errors - errors.mean())))))


@pytest.mark.slow(80)
@pytest.mark.parametrize("finished", [4, 8])
def test_95_percent_intervals_hold_the_final_loss(finished: int):
    """Simulated sweeps of cosine runs with a noise of 0.5 %; fewer inside than chance allows would be a fault."""
    sweeps, inside = 60, 0
    for seed in range(sweeps):
        random = np.random.default_rng(seed)
        law = fit_law([drawn(random, noise=0.005) for _ in range(finished)])
        errors = np.array([law.tested(index, 0.5) for index in range(finished)], dtype=float)
        curve = drawn(random, noise=0.005)
        error = np.log(law.predict(curve.up_to(0.5)) / (curve.final or 0)) - errors.mean()
        inside += abs(error) <= half_width(errors)
    assert inside >= binom.ppf(0.001, sweeps, 0.95)

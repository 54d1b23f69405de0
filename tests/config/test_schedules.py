"""Learning rates over the share of the budget."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.config.schedules import ScheduleConfig, factor

NAMES = ["cosine", "linear", "constant", "wsd", "wsd_linear"]


@given(name=st.sampled_from(NAMES), warmup=st.floats(0, 0.5), final=st.floats(0, 1), share=st.floats(0, 1))
def test_the_rate_stays_within_zero_and_the_peak(name: str, warmup: float, final: float, share: float):
    assert 0 <= factor(ScheduleConfig(name=name, warmup=warmup, final=final), share) <= 1 + 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_warm_up_is_linear_and_reaches_the_peak(name: str):
    schedule = ScheduleConfig(name=name, warmup=0.1)
    assert factor(schedule, 0.025) == pytest.approx(0.25)
    assert factor(schedule, 0.1) == pytest.approx(1)


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd", "wsd_linear"])
def test_the_budget_ends_at_the_final_rate(name: str):
    assert factor(ScheduleConfig(name=name, warmup=0.1, final=0.2), 1.0) == pytest.approx(0.2)


def test_shapes():
    assert factor(ScheduleConfig(name="cosine", final=0), 0.5) == pytest.approx(0.5)
    assert factor(ScheduleConfig(name="cosine", final=0), 0.25) == pytest.approx(0.5 + math.sqrt(2) / 4)
    assert factor(ScheduleConfig(name="linear", final=0), 0.3) == pytest.approx(0.7)
    assert factor(ScheduleConfig(name="constant"), 1.0) == 1
    wsd = ScheduleConfig(name="wsd", final=0, cooldown=0.2)
    assert factor(wsd, 0.8) == 1  # still on the plateau
    assert factor(wsd, 0.85) == pytest.approx(1 - math.sqrt(0.25))
    linear = ScheduleConfig(name="wsd_linear", final=0.2, cooldown=0.4)
    assert factor(linear, 0.6) == 1
    assert factor(linear, 0.7) == pytest.approx(0.2 + 0.8 * 0.75)

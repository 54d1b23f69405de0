"""Verdicts follow from the interval and the band alone."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.papers.evidence import Estimated
from lmexp.papers.verdicts import Band, runs_factor, verdict

numbers = st.integers(-1_000, 1_000).map(lambda hundredths: hundredths / 100)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.4, 0.6, "borne out"),
        (0.3, 0.7, "borne out"),  # the ends belong to the band
        (0.2, 0.5, "undecided"),
        (0.1, 0.9, "undecided"),
        (0.71, 0.9, "contradicted"),
        (-math.inf, math.inf, "undecided"),
    ],
)
def test_the_whole_interval_lies_inside_or_outside_or_it_is_open(low: float, high: float, expected: str):
    assert verdict(Estimated(0.5, low, high), Band(0.3, 0.7)) == expected


def test_an_open_end_takes_any_number():
    assert verdict(Estimated(5, 4, 1e9), Band(low=3)) == "borne out"
    assert verdict(Estimated(2, 1, 2.9), Band(low=3)) == "contradicted"
    assert (str(Band(low=3)), str(Band(high=3)), str(Band(1, 2))) == ("at least 3", "at most 3", "1 to 2")


def test_without_a_number_nothing_was_run():
    assert verdict(Estimated(math.nan, -math.inf, math.inf), Band(0, 1)) == "not run"


@given(numbers, st.floats(0.01, 5), numbers, numbers.map(abs))
def test_so_many_more_runs_decide_a_claim_whose_value_stays(value: float, half: float, low: float, width: float):
    band = Band(low, low + width)
    ours = Estimated(value, value - half, value + half)
    if verdict(ours, band) == "undecided" and (factor := runs_factor(ours, band)):
        narrow = half / math.sqrt(factor) * (1 - 1e-9)
        assert factor >= 1
        assert verdict(Estimated(value, value - narrow, value + narrow), band) in ("borne out", "contradicted")


def test_no_number_of_runs_decides_a_value_at_an_end_of_the_band_and_without_an_interval_none_is_known():
    assert runs_factor(Estimated(0.0, -1.0, 0.0), Band(low=0.0)) == math.inf
    assert runs_factor(Estimated(0.0, -math.inf, math.inf), Band(low=0.0)) is None

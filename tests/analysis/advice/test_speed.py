"""The speed of a model that was not trained: a line through measurements, or an assumption that says what it is."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.analysis.advice.best_use import Line
from lmexp.analysis.advice.speed import Speed, speed_of
from lmexp.cost.hardware import known_hardware

A10, H100 = known_hardware()["a10"], known_hardware()["h100_sxm"]
SIX_N = Line(float(np.log(6)), 1.0, 1e6, 1e8)
"""6 FLOPs per token and parameter."""


def rows(slope: float = -1.0, **columns: Any) -> pd.DataFrame:
    """Runs of three sizes on an A10, whose tokens per second are 1e12 / N at a slope of -1."""
    sizes = np.array([1e6, 1e7, 1e8])
    measured = {
        "n_params": sizes,
        "tokens_per_second": 1e6 * (sizes / 1e6) ** slope,
        "peak_memory_gb": 16 * sizes / 1e9,
        "wall_seconds": [1800.0, 3600.0, 7200.0],
        "dollars": [0.5, 1.0, 2.0],
        "mfu": [0.1, 0.2, 0.4],
        "device_name": "NVIDIA A10",
        "exclusive": True,
    }
    return pd.DataFrame(measured | columns)


def speed(table: pd.DataFrame, device: Any = None, price: float | None = None) -> Speed:
    known = speed_of(table, SIX_N, device, "fp32", price)
    assert isinstance(known, Speed), known
    return known


@given(slope=st.floats(-1.2, 0.2), params=st.floats(1e5, 1e10))
def test_measured_speeds_are_followed_along_their_own_power_of_the_size(slope: float, params: float):
    known = speed(rows(slope))
    assert known.source == "measured" and known.device == "NVIDIA A10"
    assert known.tokens_per_second.at(params) == pytest.approx(1e6 * (params / 1e6) ** slope)
    assert known.memory_gb is not None and known.memory_gb.at(params) == pytest.approx(16 * params / 1e9)


def test_the_price_is_what_was_paid_unless_the_user_names_one():
    assert (speed(rows()).dollars_per_hour, speed(rows()).price_source) == (1.0, "as this study's runs paid")
    assert (speed(rows(), price=3.0).dollars_per_hour, speed(rows(), price=3.0).price_source) == (3.0, "as you say")
    unpaid = speed(rows(dollars=np.nan))
    assert unpaid.dollars_per_hour is None and unpaid.price_source is None


def test_another_device_is_assumed_at_the_mfu_of_the_largest_model():
    known = speed(rows(), H100)
    peak = 67e12  # dense fp32 of its datasheet
    assert known.tokens_per_second.at(1e9) == pytest.approx(0.4 * peak / 6e9)
    assert known.source.startswith("assumed: MFU 0.4 of the largest model") and "datasheet" in known.source
    assert known.memory_gb is None and known.dollars_per_hour == H100.dollars_per_hour
    assert speed(rows(), A10).source == "measured"


@pytest.mark.parametrize(
    ("columns", "device", "reason"),
    [
        ({"exclusive": False}, None, "no run of it was measured alone"),
        ({"tokens_per_second": np.nan}, None, "no run of it was measured alone"),
        ({"device_name": ["NVIDIA A10", "NVIDIA L4", "NVIDIA L4"]}, None, "on several devices (NVIDIA A10, NVIDIA L4)"),
        ({"mfu": np.nan}, H100, "without an MFU nothing says how fast"),
    ],
)
def test_what_nothing_is_known_of_is_said_instead(columns: dict[str, Any], device: Any, reason: str):
    said = speed_of(rows(**columns), SIX_N, device, "fp32", None)
    assert isinstance(said, str) and reason in said


def test_a_row_beside_other_work_does_not_count():
    slowed = rows(tokens_per_second=[1e6, 1.0, 1e4], exclusive=[True, False, True])
    assert speed(slowed).tokens_per_second.at(1e7) == pytest.approx(1e5)

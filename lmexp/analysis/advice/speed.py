"""The speed, price and memory of a model of another size, from the rows of one arm.

Tokens per second follow a straight line in logs through this study's own measurements on one device. For a device
without measurements, the speed is an assumption and is reported as one: the MFU of the study's largest model times
the other device's peak in its datasheet.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lmexp.analysis.advice.best_use import Line, line_through
from lmexp.analysis.comparable import crowded
from lmexp.analysis.frontier import numbers
from lmexp.config.schema import HardwareConfig
from lmexp.cost.hardware import matches, peak_of


@dataclass(frozen=True)
class Speed:
    """The speed, price and memory of one arm on one device."""

    device: str
    tokens_per_second: Line
    source: str
    """`measured`, or a sentence that states the assumption."""
    dollars_per_hour: float | None
    """For all devices of a run together; None if no price is known."""
    price_source: str | None
    memory_gb: Line | None
    """Peak memory as a function of size; None unless it was measured on this device at several sizes."""


def speed_of(
    rows: pd.DataFrame, flops: Line, device: HardwareConfig | None, compute: str, price: float | None
) -> Speed | str:
    """Return the speed of an arm from its finished rows, or the reason why it is not known.

    Args:
        rows: the arm's rows, with the record's columns.
        flops: FLOPs per token as a function of size.
        device: the device to answer for; None for the study's own.
        compute: the number format of the arm's matmuls, as a key of the device's peaks.
        price: dollars per hour, if the user gave them.
    """
    measured = rows[~crowded(rows).to_numpy() & np.isfinite(numbers(rows, "tokens_per_second"))]
    if measured.empty:
        return "no run of it was measured alone on its device"
    names = sorted(set(measured["device_name"].fillna("").astype(str)))
    if device is None:
        if len(names) > 1:
            return f"its speed was measured on several devices ({', '.join(names)}): name one with --device"
        return _measured(measured, names[0], None, price)
    here = measured[[matches(device, str(name)) for name in measured["device_name"]]]
    if not here.empty:
        return _measured(here, device.name, device, price)
    return _assumed(measured, flops, device, compute, price)


def _measured(rows: pd.DataFrame, name: str, device: HardwareConfig | None, price: float | None) -> Speed:
    sizes = numbers(rows, "n_params")
    memory = numbers(rows, "peak_memory_gb")
    known = np.isfinite(memory) & (memory > 0)
    several = len(np.unique(sizes[known])) > 1
    paid, source = (price, "as you say") if price else _price(rows, device)
    return Speed(
        device=name,
        tokens_per_second=line_through(sizes, numbers(rows, "tokens_per_second"), -1.0),
        source="measured",
        dollars_per_hour=paid,
        price_source=source if paid else None,
        memory_gb=line_through(sizes[known], memory[known], 1.0) if several else None,
    )


def _price(rows: pd.DataFrame, device: HardwareConfig | None) -> tuple[float | None, str | None]:
    """Return dollars per hour and their source: what the runs paid, else the price in the device's file."""
    hours = numbers(rows, "wall_seconds") / 3600
    paid = numbers(rows, "dollars") / hours
    paid = paid[np.isfinite(paid) & (paid > 0)]
    if len(paid):
        return float(np.median(paid)), "as this study's runs paid"
    return (device.dollars_per_hour or None, device.price_source) if device else (None, None)


def _assumed(rows: pd.DataFrame, flops: Line, device: HardwareConfig, compute: str, price: float | None) -> Speed | str:
    """Return the assumed speed: this study's MFU times the other device's peak. Returns a reason if one is unknown."""
    sizes, mfu = numbers(rows, "n_params"), numbers(rows, "mfu")
    known = np.isfinite(mfu) & (mfu > 0)
    if not known.any():
        return f"no run was measured on {device.name}, and without an MFU nothing says how fast it would be there"
    peak = peak_of(device, compute)
    if peak is None:
        return f"no run was measured on {device.name}, and its file names no peak for {compute}"
    largest = sizes[known] == sizes[known].max()
    share = float(np.median(mfu[known][largest]))
    paid, source = (price, "as you say") if price else (device.dollars_per_hour or None, device.price_source)
    rate = Line(float(np.log(share * peak[0])) - flops.c, -flops.s, flops.smallest, flops.largest)
    said = f"assumed: MFU {share:.3g} of the largest model here, times {peak[0]:.3g} FLOP/s ({peak[1]})"
    return Speed(device.name, rate, said, paid, source if paid else None, None)

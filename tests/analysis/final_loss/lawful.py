"""Curves from the closed form of the multi-power law, and run directories that hold them."""

from pathlib import Path
from typing import Any

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.analysis.final_loss.curves import LossCurve
from lmexp.analysis.scaling.curves import Curve
from lmexp.analysis.scaling.multipower import multipower
from lmexp.config.schedules import ScheduleConfig, factor
from lmexp.runs.directory import RunDir
from lmexp.runs.record import complete, identity_columns
from lmexp.runs.state import State
from tests.report.synthetic import config

TOKENS = 1_000_000
STEPS = 1000
ALPHA, C, BETA, GAMMA = 0.4, 4.0, 1.0, 0.7
"""The shape of all curves here; C for a length of 1 and a peak rate of 1."""
SCHEDULES = tuple(ScheduleConfig(name=name, warmup=0.05) for name in ("cosine", "wsd", "constant", "linear"))
COSINE = SCHEDULES[0]


def closed_form(schedule: ScheduleConfig, floor: float, slope: float, gain: float, points: int = 20) -> LossCurve:
    """Return the curve of a finished run by `multipower`, which sums over every step."""
    step = np.arange(STEPS + 1.0)
    rates = np.array([factor(schedule, min(at / STEPS, 1.0)) for at in step])
    theta = np.log([floor, slope, ALPHA, gain, C, BETA, GAMMA])
    with np.errstate(divide="ignore"):
        losses = multipower(theta, Curve("law", step / STEPS, rates, np.full(len(step), np.nan)))
    share = np.arange(1, points + 1) / points
    loss = np.interp(share, step / STEPS, losses)
    return LossCurve(share[:-1], loss[:-1], schedule, TOKENS, float(loss[-1]))


def drawn(random: np.random.Generator, schedule: ScheduleConfig = COSINE, noise: float = 0.0) -> LossCurve:
    """Return a curve with levels that are drawn, and independent noise at each point (a standard deviation)."""
    level = random.normal(0, 0.1)
    floor, slope, gain = np.exp(level) * np.array([2.5, 0.5, 0.3]) * np.exp(random.normal(0, 0.05, 3))
    curve = closed_form(schedule, floor, slope, gain)
    off: Floats = np.exp(random.normal(0, noise, len(curve.share) + 1))
    assert curve.final is not None
    return LossCurve(curve.share, curve.loss * off[:-1], schedule, TOKENS, curve.final * float(off[-1]))


def run_of(folder: Path, name: str, curve: LossCurve, up_to: float = 1.0, **changes: Any) -> RunDir:
    """Make a run directory with a curve: finished, or running at a share of its budget."""
    made = config("gpt_nano", 2, "fp32", slug=name).model_copy(update={"schedule": curve.schedule, **changes})
    run = RunDir.create(folder / f"{name}-0", made)
    for share, loss in zip(curve.share, curve.loss, strict=True):
        if share <= up_to:
            run.append_point({"step": round(share * STEPS), "tokens": round(share * TOKENS), "loss": float(loss)})
    if up_to < 1:
        run.write_state(State(state="running", tokens=round(up_to * TOKENS), share=up_to))
    else:
        run.write_record([complete({**identity_columns(made), "loss": curve.final, "tokens": TOKENS})])
        run.write_state(State(state="done", tokens=TOKENS, share=1.0, finished=1.0))
    return run

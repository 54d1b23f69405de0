"""The multi-power law is recovered from the curves of a few schedules, and predicts another one."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.analysis.scaling.curves import Curve, curve_of_file
from lmexp.analysis.scaling.multipower import PARAMETERS, fit_curves, multipower
from lmexp.errors import UserError

TRUTH = np.array([2.6, 0.6, 0.45, 450.0, 2.0, 0.5, 0.6])
PEAK = 3e-4


def schedule(name: str, last: float = 24000, points: int = 60) -> Curve:
    """Return a schedule after 2000 steps of warm-up, without losses."""
    step = np.linspace(2000, last, points)
    share = (step - step[0]) / (last - step[0])
    lr = {
        "constant": np.ones(points),
        "cosine": 0.55 + 0.45 * np.cos(np.pi * share),
        "two stages": np.where(step < 8000, 1.0, 0.3),
        "wsd": np.minimum(1.0, 0.1 + 4.5 * (1 - share)),
    }[name]
    return Curve(name, step, PEAK * lr, np.full(points, np.nan))


def run(name: str, noise: float = 0.0, **options: float) -> Curve:
    """Return a schedule with the losses of the law and their noise."""
    plain = schedule(name, **options)
    error = noise * np.random.default_rng(len(name)).standard_normal(len(plain.step))
    return Curve(name, plain.step, plain.lr, multipower(np.log(TRUTH), plain) * np.exp(error))


def test_three_schedules_give_the_law_back_and_predict_a_fourth():
    fitted = fit_curves([run(name, noise=3e-5) for name in ("constant", "cosine", "two stages")])
    assert list(fitted.theta.values()) == pytest.approx(TRUTH, rel=0.2)
    held = [low < true < high for (low, high), true in zip(fitted.intervals.values(), TRUTH, strict=True)]
    assert sum(held) >= 6, dict(zip(PARAMETERS, held, strict=True))
    tested = fitted.test(run("wsd", last=48000))
    assert tested.worst_error < 1e-3 and tested.r_squared > 0.999
    assert tested.final.low < tested.measured < tested.final.high
    assert fitted.test(schedule("wsd")).measured is None


def test_the_law_is_the_sum_over_drops_that_the_paper_has():
    """Term by term, for a rate that falls once."""
    curve = schedule("two stages")
    k = int(np.argmax(curve.lr < PEAK))
    L0, A, alpha, B, C, beta, gamma = TRUTH
    since = curve.lr_sum[-1] - curve.lr_sum[k]
    gain = B * 0.7 * PEAK * (1 - (C * (0.3 * PEAK) ** -gamma * since + 1) ** -beta)
    assert multipower(np.log(TRUTH), curve)[-1] == pytest.approx(L0 + A * curve.lr_sum[-1] ** -alpha - gain, rel=1e-12)
    assert multipower(np.log(TRUTH), curve)[k] == pytest.approx(L0 + A * curve.lr_sum[k] ** -alpha, rel=1e-12)


@given(st.floats(0.01, 100.0))
@settings(max_examples=10)
def test_the_unit_of_the_learning_rate_moves_no_loss(factor: float):
    plain = schedule("cosine")
    scaled = Curve("cosine", plain.step, plain.lr * factor, plain.loss)
    _, _, alpha, _, _, _, gamma = TRUTH
    theta = TRUTH * np.array([1, factor**alpha, 1, 1 / factor, factor ** (gamma - 1), 1, 1])
    np.testing.assert_allclose(multipower(np.log(theta), scaled), multipower(np.log(TRUTH), plain), rtol=1e-9)


def test_the_points_of_the_warm_up_are_summed_and_not_fitted():
    curve = Curve("warm", np.arange(1.0, 101), PEAK * np.minimum(np.arange(1, 101) / 10, 1.0), np.full(100, 3.0))
    assert curve.peak == 9 and curve.fitted.sum() == 91
    assert curve.lr_sum[-1] == pytest.approx(PEAK * (90 + 4.5 + 0.5), rel=0.01)


def test_a_schedule_that_never_falls_is_refused():
    with pytest.raises(UserError, match="no learning rate falls"):
        fit_curves([run("constant")])


def test_the_curve_of_a_run_takes_its_learning_rate_where_it_was_logged(tmp_path: Path):
    points = [{"step": i, "lr": PEAK, "train_loss": 4 - i / 100} for i in range(1, 51)]
    points += [{"step": i, "loss": 3.5 - i / 100} for i in range(1, 51, 2)]
    file = tmp_path / "metrics.jsonl"
    file.write_text("\n".join(map(json.dumps, points)) + '\n{"step": 51, "l')
    curve = curve_of_file(file)
    assert curve.fitted.sum() == 25 and (curve.lr == PEAK).all() and np.nanmax(curve.loss) == 3.49
    assert curve_of_file(file, "train_loss").fitted.sum() == 50


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step,loss\n1,3\n", "has no column 'lr'"),
        ("step,lr,loss\n1,much,3\n", "point 1: lr is 'much'"),
        ("step,lr,loss\n2,1e-3,3\n1,1e-3,3\n", "steps do not increase"),
        ("step,lr,loss\n", "has no points"),
        ("step,lr,loss\n1,0,3\n", "learning rate is 0"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(text: str, message: str, tmp_path: Path):
    (tmp_path / "curve.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        curve_of_file(tmp_path / "curve.csv")

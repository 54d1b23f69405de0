"""What tokens and parameters are worth with another optimizer, or with repeated data, is recovered from runs."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.analysis.scaling.effective import BEST_PARAMS_PER_TOKEN, Repeated
from lmexp.analysis.scaling.fit import fit_law
from lmexp.analysis.scaling.law_fit import LawFit
from lmexp.analysis.scaling.laws import optimizers, repeated
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.readers import points_of_frame
from lmexp.errors import UserError

PARAMS, TOKENS = (axis.ravel() for axis in np.meshgrid(np.geomspace(2e7, 3e9, 6), np.geomspace(2e9, 2e11, 6)))
NOISE = 1e-4 * np.random.default_rng(0).standard_normal(36)
UNITS = np.arange(36).astype(str)


def points(loss: np.ndarray, **columns: np.ndarray) -> Points:
    return Points(PARAMS, TOKENS, 6 * PARAMS * TOKENS, loss * np.exp(NOISE), UNITS, **columns)


def test_the_speedup_of_an_optimizer_is_a_factor_on_the_tokens():
    theta, names = [1.8, 480.0, 2000.0, 0.35, 0.37], np.resize(["adamw", "muon", "muon", "adamw", "sgd"], 36)
    speed = np.select([names == "muon", names == "sgd"], [1.3, 0.5], 1.0)
    fitted = fit_law(points(optimizers.loss(theta, PARAMS, TOKENS * speed), optimizer=names), optimizers)
    assert isinstance(fitted, LawFit)
    for name, factor in (("muon", 1.3), ("sgd", 0.5)):
        low, high = np.exp(fitted.intervals[f"ln_factor_{name}"])
        assert low < factor < high < 1.05 * low
        known = float(optimizers.loss(theta, 1e9, 1e11 * factor))
        assert float(fitted.prediction(1e9, 1e11, optimizer=name).value) == pytest.approx(known, rel=1e-3)
    with pytest.raises(UserError, match=r"no point has optimizer 'moun'\. Did you mean 'muon'"):
        fitted.loss(1e9, 1e11, optimizer="moun")
    with pytest.raises(UserError, match="unique_tokens is not an axis"):
        fitted.loss(1e9, 1e11, unique_tokens=1e10)


def test_the_worth_of_repeated_tokens_is_recovered():
    """Muennighoff's constants: 1 to 40 passes, sizes up to 30 times the best one for the unique tokens."""
    unique = TOKENS / np.resize([1, 1, 3, 8, 40], 36)
    r_d, r_n = TOKENS / unique - 1, np.maximum(PARAMS / (BEST_PARAMS_PER_TOKEN * unique) - 1, 0)
    worth = unique * (1 + 15.39 * (1 - np.exp(-r_d / 15.39)))
    size = PARAMS / (1 + r_n) * (1 + 5.31 * (1 - np.exp(-r_n / 5.31)))
    theta = [1.87, 521.0, 1488.0, 0.353]
    fitted = fit_law(points(repeated.loss(theta, size, worth), unique_tokens=unique), repeated)
    assert isinstance(fitted, LawFit)
    truth = dict(zip(repeated.parameters, theta, strict=True)) | {"ln_R_D": np.log(15.39), "ln_R_N": np.log(5.31)}
    for name, (low, high) in fitted.intervals.items():
        assert low < truth[name] < high, name
    np.testing.assert_allclose(fitted.fitted(points(np.ones(36), unique_tokens=unique)) * np.exp(NOISE), points(
        repeated.loss(theta, size, worth)).loss, rtol=2e-3)  # fmt: skip
    assert fitted.loss(1e9, 2e10, unique_tokens=2e10) == pytest.approx(fitted.loss(1e9, 2e10))
    assert fitted.loss(1e9, 2e10, unique_tokens=2e9).value > fitted.loss(1e9, 2e10).value


@given(passes=st.floats(1.0, 1e4), rate=st.floats(0.5, 100.0))
def test_repeated_tokens_are_worth_less_than_new_ones_and_never_nothing(passes: float, rate: float):
    effect = Repeated(1, np.array([passes - 1]))
    worth = passes * np.exp(effect.shift(np.log([[rate]]))[0, 0])  # D'/U_D
    assert 1 - 1e-9 <= worth <= min(passes, 1 + rate) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("law", "columns", "reason"),
    [
        (optimizers, {}, "it takes a column 'optimizer'"),
        (optimizers, {"optimizer": np.full(36, "adamw")}, "two at least"),
        (repeated, {}, "takes a column 'unique_tokens' or 'epochs'"),
        (repeated, {"unique_tokens": TOKENS}, "no run has 1.5 passes"),
    ],
)
def test_a_law_says_what_it_lacks(law, columns, reason):
    (said,) = fit_law(points(np.ones(36), **columns), law)
    assert reason in said


def test_passes_and_optimizers_are_read_from_their_usual_columns():
    frame = pd.DataFrame({"params": PARAMS, "tokens": TOKENS, "loss": 3.0 - np.log10(TOKENS) / 10})
    frame["Optimizer"], frame["epochs"] = np.resize(["adamw", "muon"], 36), np.resize([0.5, 4.0], 36)
    read = points_of_frame(frame)
    assert read.optimizer.tolist()[:2] == ["adamw", "muon"]
    np.testing.assert_allclose(read.unique_tokens / TOKENS, np.resize([1.0, 0.25], 36))
    assert points_of_frame(frame.drop(columns=["Optimizer", "epochs"])).unique_tokens is None

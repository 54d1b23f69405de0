"""A precision shrinks a model: a gamma where widths identify it, else a factor for each precision."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lmexp.analysis.scaling.fit import fit_law
from lmexp.analysis.scaling.law_fit import LawFit
from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, chinchilla
from lmexp.analysis.scaling.precision import Precisions
from lmexp.analysis.scaling.readers import points_of_frame
from lmexp.errors import UserError

EPOCH = PUBLISHED_LAWS["epoch"].theta
GAMMA_W, GAMMA_A = 2.6, 2.2


def of(*names: str) -> Precisions | None:
    return Precisions.of(np.array(names))


def test_one_precision_shifts_nothing():
    assert of("fp32", "fp32") is None and Precisions.of(None) is None


def test_the_widest_is_the_reference():
    found = of("int4", "fp32", "bf16", "int4")
    assert found.names == ("fp32", "bf16", "int4") and found.of_point.tolist() == [2, 0, 1, 2]


def test_gamma_takes_three_widths_and_two_where_it_bends():
    assert of("bf16", "int8", "int4").parameters == ("ln_gamma_bits",)
    assert of("fp32", "bf16", "int8").parameters == ("ln_factor_bf16", "ln_factor_int8")
    assert of("fp32", "int8", "homemade").bits is None, "its width is not known"


def test_the_factor_is_that_of_kumar():
    found, gamma = of("bf16", "int8", "int4"), 2.7
    assert found.log_factor(np.log([gamma]), "int4") == pytest.approx(np.log(1 - np.exp(-4 / gamma)))


def test_a_factor_of_its_own_is_relative_to_the_reference():
    found = of("fp32", "bf16")
    assert found.log_factor(np.array([-0.1])) == 0 and found.log_factor(np.array([-0.1]), "bf16") == -0.1
    assert found.shift(np.array([[-0.1]])).tolist() == [[0.0, -0.1]]


@pytest.mark.parametrize("names", [("bf16", "int8", "int4"), ("fp32", "bf16")])
def test_derivatives_are_those_of_the_shift(names: tuple[str, ...]):
    found, step = of(*names), 1e-4
    at = found.start + 0.3
    up, middle, down = (found.shift((at + sign * step)[None])[0] for sign in (1, 0, -1))
    first, second = found.derivatives(at[None])
    np.testing.assert_allclose(first[0][0], (up - down) / (2 * step), atol=1e-6)
    np.testing.assert_allclose(second[0][0], (up - 2 * middle + down) / step**2, atol=1e-5)


def test_a_precision_that_no_point_has_gets_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'bf16'"):
        of("fp32", "bf16").log_factor(np.array([0.0]), "bf61")


def test_a_precision_of_the_users_own_is_as_wide_as_its_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "conf" / "precision").mkdir(parents=True)
    (tmp_path / "conf" / "precision" / "mine.yaml").write_text("name: mine\ncompute: fp8\n")
    monkeypatch.chdir(tmp_path)
    assert of("mine", "bf16_true", "int4").widths == (16, 8, 4)
    assert of("mine", "bf16_true", "int4").names == ("bf16_true", "mine", "int4")


def table(widths: list[int], noise: float = 0.0) -> pd.DataFrame:
    """Return 8 sizes at 9 budgets with separate bits of weights and activations, and Chinchilla's loss at N_eff."""
    draw = np.random.default_rng(1)
    params, tokens = (axis.ravel() for axis in np.meshgrid(np.geomspace(3e7, 3e9, 8), np.geomspace(1e9, 1e11, 9)))
    weights, activations = (draw.choice(widths, len(params)) for _ in range(2))
    effective = params * (1 - np.exp(-weights / GAMMA_W)) * (1 - np.exp(-activations / GAMMA_A))
    loss = chinchilla.loss(EPOCH, effective, tokens) * np.exp(noise * draw.standard_normal(len(params)))
    return pd.DataFrame(
        {"N": params, "D": tokens, "weight_bits": weights, "a_bits": activations, "kv_bits": 16, "loss": loss}
    )


def test_weights_and_activations_have_a_gamma_each():
    fitted = fit_law(points_of_frame(table([3, 4, 6, 8, 16])), chinchilla, bootstraps=100)
    assert isinstance(fitted, LawFit)
    assert np.exp(fitted.theta["ln_gamma_weight_bits"]) == pytest.approx(GAMMA_W, rel=1e-6)
    assert np.exp(fitted.theta["ln_gamma_activation_bits"]) == pytest.approx(GAMMA_A, rel=1e-6)
    assert not any("kv" in name for name in fitted.theta), "its bits do not vary"
    effective = 1e9 * (1 - np.exp(-5 / GAMMA_W)) * (1 - np.exp(-4 / GAMMA_A))
    predicted = fitted.loss(1e9, 1e10, weight_bits=5, activation_bits=4).value  # no run has weights of 5 bits
    assert predicted == pytest.approx(chinchilla.loss(EPOCH, effective, 1e10))
    with pytest.raises(UserError, match="kv_bits is not an axis of this fit"):
        fitted.loss(1e9, 1e10, kv_bits=8)


def test_the_intervals_of_both_gammas_hold_the_truth():
    fitted = fit_law(points_of_frame(table([3, 4, 6, 8, 16], noise=0.003)), chinchilla, bootstraps=100)
    assert isinstance(fitted, LawFit)
    for name, truth in (("ln_gamma_weight_bits", GAMMA_W), ("ln_gamma_activation_bits", GAMMA_A)):
        low, high = np.exp(fitted.intervals[name])
        assert low < truth < high and high / low < 1.5, name


def test_two_widths_give_factors_instead_of_a_gamma_and_say_so():
    fitted = fit_law(points_of_frame(table([4, 16])), chinchilla, bootstraps=100)
    assert isinstance(fitted, LawFit)
    truth = np.log((1 - np.exp(-4 / GAMMA_W)) / (1 - np.exp(-16 / GAMMA_W)))
    assert fitted.theta["ln_factor_weight_bits_4"] == pytest.approx(truth, abs=1e-4)
    assert "for each number of weight_bits, relative to 16: too few widths for gamma" in fitted.warnings[0]
    with pytest.raises(UserError, match="no point has weight_bits '5'"):
        fitted.loss(1e9, 1e10, weight_bits=5)


def test_bits_that_are_missing_in_a_row_are_an_error_with_its_line():
    wrong = table([4, 8, 16]).astype({"weight_bits": float})
    wrong.loc[3, "weight_bits"] = np.nan
    with pytest.raises(UserError, match="line 4: weight_bits is no number of bits above 0"):
        points_of_frame(wrong)

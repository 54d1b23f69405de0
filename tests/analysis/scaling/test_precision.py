"""A precision shrinks a model: a gamma where widths identify it, else a factor for each precision."""

from pathlib import Path

import numpy as np
import pytest

from lmexp.analysis.scaling.precision import Precisions
from lmexp.errors import UserError


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

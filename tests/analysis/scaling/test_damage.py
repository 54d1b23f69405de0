"""The law of rounded weights: the fit finds its constants again, and names those that the points do not identify."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from lmexp.analysis.scaling.damage import _regress, damage_of_csv, damage_of_frame, fit_damage
from lmexp.errors import UserError

PUBLISHED = {"C_T": 0.05, "gamma_D": 0.5068, "gamma_N": 0.3439, "gamma_post": 0.5907}


def runs(truth: dict[str, float], bits: tuple[float, ...] = (3, 4, 5, 6), noise: float = 0.0, seed: int = 0):
    """Return a table of 5 sizes at 4 budgets, each run rounded to several widths; a run shares half of its noise."""
    draw = np.random.default_rng(seed)
    rows = []
    for params in np.geomspace(3e7, 2.2e8, 5):
        for tokens in np.geomspace(1.5e9, 2.6e10, 4):
            shared = draw.standard_normal()
            for width in bits:
                law = truth["C_T"] * tokens ** truth["gamma_D"] / params ** truth["gamma_N"]
                error = noise * (shared + draw.standard_normal()) / np.sqrt(2)
                damage = law * np.exp(-width / truth["gamma_post"] + error)
                rows.append((params, tokens, width, damage, f"run {len(rows) // len(bits)}"))
    return pd.DataFrame(rows, columns=["params", "tokens", "bits", "damage", "run_id"])


@settings(max_examples=6, deadline=None)
@given(st.floats(0.1, 1.5), st.floats(-0.3, 1), st.floats(0.4, 3))
def test_without_noise_the_constants_come_back_exactly(gamma_D: float, gamma_N: float, gamma_post: float):
    truth = {"C_T": 0.05, "gamma_D": gamma_D, "gamma_N": gamma_N, "gamma_post": gamma_post}
    fitted = fit_damage(damage_of_frame(runs(truth)))
    assert fitted.theta == pytest.approx(truth, rel=1e-6, abs=1e-8)
    assert fitted.damage(1e8, 1e10, 8).value == pytest.approx(
        0.05 * 1e10**gamma_D / 1e8**gamma_N * np.exp(-8 / gamma_post)
    )


def test_the_intervals_hold_the_published_constants_and_are_not_wide():
    fitted = fit_damage(damage_of_frame(runs(PUBLISHED, noise=0.2)))
    for name, (low, high) in fitted.intervals.items():
        assert low < PUBLISHED[name] < high, name
    low, high = fitted.intervals["gamma_D"]
    assert high - low < 0.12


@pytest.mark.slow
def test_the_intervals_hold_the_published_constants_in_most_of_100_simulated_studies():
    held = dict.fromkeys(PUBLISHED, 0)
    for seed in range(100):
        fitted = fit_damage(damage_of_frame(runs(PUBLISHED, noise=0.2, seed=seed)))
        for name, (low, high) in fitted.intervals.items():
            held[name] += low < PUBLISHED[name] < high
    assert min(held.values()) >= 88 and max(held.values()) < 100, held  # 95 are expected, give or take 2.2


def test_the_regression_is_that_of_hubers_loss():
    """Against scipy's solver, which minimises the same loss by another method."""
    draw = np.random.default_rng(3)
    design = np.stack([np.ones(40), draw.standard_normal(40)], axis=1)
    target = design @ [1.0, 2.0] + 0.1 * draw.standard_t(2, 40)
    ours = _regress(design, target, np.ones((1, 40)), 0.1)[0]
    theirs = least_squares(lambda b: design @ b - target, [0, 0], loss="huber", f_scale=0.1, xtol=1e-15, ftol=1e-15)
    assert ours == pytest.approx(theirs.x, abs=1e-6)


def test_one_outlier_hardly_moves_the_exponents():
    table = runs(PUBLISHED, noise=0.05)
    table.loc[7, "damage"] *= 50
    fitted = fit_damage(damage_of_frame(table))
    assert fitted.theta["gamma_D"] == pytest.approx(PUBLISHED["gamma_D"], abs=0.03)


def test_what_the_points_do_not_identify_is_left_out_and_said():
    one = fit_damage(damage_of_frame(runs(PUBLISHED, bits=(4,))))
    assert set(one.theta) == {"C_T", "gamma_D", "gamma_N"} and "gamma_post is not identified" in one.warnings[0]
    with pytest.raises(UserError, match="all points have 4 bits, so they say nothing about 8"):
        one.damage(1e8, 1e10, 8)
    two = fit_damage(damage_of_frame(runs(PUBLISHED, bits=(4, 8))))
    assert "no test of whether the damage falls exponentially" in two.warnings[0]
    table = runs(PUBLISHED)
    size = fit_damage(damage_of_frame(table[table["params"] == table["params"].iloc[0]].assign(run_id=range(16))))
    assert "gamma_N" not in size.theta and size.theta["gamma_D"] == pytest.approx(PUBLISHED["gamma_D"])
    with pytest.raises(UserError, match="vary parameters, tokens and bits independently"):
        fit_damage(damage_of_frame(table.assign(tokens=20 * table["params"])))
    with pytest.raises(UserError, match="the damage does not fall with more bits"):
        fit_damage(damage_of_frame(table.assign(bits=-table["bits"] + 9)))
    with pytest.raises(UserError, match="3 runs are too few"):
        fit_damage(damage_of_frame(table[table["run_id"].isin(["run 0", "run 1", "run 6"])]))


def test_a_file_may_name_types_and_have_damage_below_0(tmp_path: Path):
    table = runs(PUBLISHED, bits=(4, 8)).assign(precision=lambda rows: rows["bits"].map({4: "int4", 8: "int8"}))
    table.loc[[1, 3], "damage"] = [-1e-5, 0.0]
    table.drop(columns="bits").to_csv(tmp_path / "d.csv", index=False)
    fitted = fit_damage(damage_of_csv(tmp_path / "d.csv"))
    assert fitted.theta == pytest.approx(PUBLISHED, rel=1e-6)
    assert fitted.points.left_out == {"damage of 0 or below": 2} and "has no logarithm: 2" in fitted.warnings[-1]
    assert len(fit_damage(damage_of_csv(tmp_path / "d.csv", where="precision == 'int4'")).points) == 20
    assert fitted.of_run({"params": 1e8, "tokens": 1e10, "precision": "int4"}) == fitted.damage(1e8, 1e10, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"damage": "loss_rise"}, "no column 'damage' with the rise of the loss"),
        ({"bits": "width"}, "no column 'bits'"),
        ({"tokens": "examples"}, "two of params, tokens and flops"),
    ],
)
def test_a_column_that_is_missing_is_named(change: dict[str, str], said: str):
    with pytest.raises(UserError, match=said):
        damage_of_frame(runs(PUBLISHED).rename(columns=change))


def test_bits_are_numbers_or_types():
    with pytest.raises(UserError, match="'four' is no number of bits and no type such as int4"):
        fit_damage(damage_of_frame(runs(PUBLISHED).assign(bits="four")))
    with pytest.raises(UserError, match="no damage is above 0"):
        damage_of_frame(runs(PUBLISHED).assign(damage=-1.0))

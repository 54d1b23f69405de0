"""A speedup is exact where there is no noise, symmetric, and free of units; where the runs say nothing, it says so."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lmexp.analysis.effects.effects import effects
from lmexp.analysis.versus.arms import Arm, arms_by_words
from lmexp.analysis.versus.paired import mean_over_seeds, mean_over_strata
from lmexp.analysis.versus.versus import CostVersus, versus
from lmexp.errors import UserError
from lmexp.report.terminal.versus import notes_of
from tests.analysis.versus.simulated import budgets_study, compared, flops_at, law, milestones_study, row, study_of

BUDGETS = np.geomspace(1e15, 1e18, 8)
DRAWN = settings(max_examples=4, deadline=None)


def flops_of(study: Any, **options: Any) -> CostVersus:
    return compared(study, costs=["flops"], **options).arms[0].costs["flops"]


@DRAWN
@given(st.floats(0.5, 3.0))
def test_without_noise_pairs_give_the_factor_on_compute_exactly(speedup: float):
    one = flops_of(budgets_study(speedup, BUDGETS))
    assert one.overall.value == pytest.approx(speedup, rel=1e-6) and one.overall.method == "pairs by law"
    assert [scale.value for scale in one.scales] == pytest.approx([speedup] * 8, rel=1e-6)


@DRAWN
@given(st.floats(0.5, 3.0))
def test_without_noise_and_shared_cells_the_law_gives_it_exactly(speedup: float):
    one = flops_of(budgets_study(speedup, BUDGETS, arm_budgets=[3e15, 2e17]))
    assert one.overall.value == pytest.approx(speedup, rel=1e-6) and one.overall.method == "law"
    assert one.overall.low == pytest.approx(speedup, rel=1e-3)


def test_an_arm_with_another_curve_has_the_speedups_of_the_closed_form():
    """The arm's loss is that of the law less 0.02, so its speedup grows with the budget."""
    rows = [row("adamw", flops, 0, law(flops), **{"budget.flops": float(flops)}) for flops in BUDGETS]
    rows += [row("muon", flops, 0, law(flops) - 0.02, **{"budget.flops": float(flops)}) for flops in (5e15, 5e17)]
    one = flops_of(study_of(rows, ("optim", "budget.flops", "seed")))
    expected = [flops_at(law(flops) - 0.02) / flops for flops in (5e15, 5e17)]
    assert [scale.value for scale in one.scales] == pytest.approx(expected, rel=1e-5)
    assert one.overall.value == pytest.approx(np.sqrt(np.prod(expected)), rel=1e-5)


@DRAWN
@given(st.integers(0, 1000))
def test_exchanging_the_arms_inverts_it(seed: int):
    study = milestones_study(1.2, 3, 0.002, random=np.random.default_rng(seed))
    there, back = (flops_of(study, arms=arms) for arms in (["optim=adamw,muon"], ["optim=muon,adamw"]))
    for one, other in zip((there.overall, *there.scales), (back.overall, *back.scales), strict=True):
        assert one.value == pytest.approx(1 / other.value)
        assert (one.low, one.high) == pytest.approx((1 / other.high, 1 / other.low))


@DRAWN
@given(st.integers(0, 1000), st.floats(1e-9, 1e9))
def test_the_unit_of_the_cost_does_not_matter(seed: int, unit: float):
    study = milestones_study(1.2, 2, 0.002, random=np.random.default_rng(seed))
    before = flops_of(study).overall
    study.table["train_flops"] = study.table["train_flops"] * unit
    after = flops_of(study).overall
    assert (after.value, after.low, after.high) == pytest.approx((before.value, before.low, before.high))


def test_nor_does_it_matter_to_a_law():
    study = budgets_study(1.2, BUDGETS, 1, 0.002, arm_budgets=[2e16])
    before = flops_of(study).overall
    study.table["train_flops"] = study.table["train_flops"] / 3.6e18
    after = flops_of(study).overall
    assert (after.value, after.low, after.high) == pytest.approx((before.value, before.low, before.high), rel=1e-4)


def test_an_arm_against_itself_has_a_speedup_of_1():
    for study in (milestones_study(1.0, 3, 0.01), budgets_study(1.0, BUDGETS, 2, 0.01)):
        (arm, _) = arms_by_words(study, ["optim"])
        result = versus(study, [arm, Arm("the same", arm.rows)], costs=["flops"])
        overall = result.arms[0].costs["flops"].overall
        assert (overall.value, overall.low, overall.high) == (1, 1, 1)
        assert "at once" in result.notes[0]


def test_with_one_size_the_interval_is_scipys_of_the_pairs_logarithms():
    study = milestones_study(1.3, 4, 0.003).where("model.d_model == 32")
    alone = [flops_of(study.where(f"seed == {seed}")).overall.value for seed in range(4)]
    expected = np.exp(stats.ttest_1samp(np.log(alone), 0).confidence_interval(0.9))
    overall = flops_of(study, confidence=0.9).overall
    assert overall.value == pytest.approx(np.exp(np.mean(np.log(alone)))) and overall.n == 4
    assert (overall.low, overall.high) == pytest.approx(tuple(expected))


def test_noise_that_a_seed_has_in_both_arms_does_not_widen_the_interval():
    narrow = flops_of(budgets_study(1.3, BUDGETS, 3, 0.0002, shared_noise=0.01)).scales[3]
    wide = flops_of(budgets_study(1.3, BUDGETS, 3, 0.01)).scales[3]
    assert np.log(narrow.high / narrow.low) < np.log(wide.high / wide.low) / 5


def beyond_the_law(noise: float) -> Any:
    """An arm whose loss lies below the asymptote of the baseline's law at each of five budgets, with three seeds."""
    random = np.random.default_rng(0)
    rows = [
        row(arm, flops, seed, law(flops) - less + noise * random.normal(), **{"budget.flops": float(flops)})
        for arm, less in (("adamw", 0.0), ("muon", 1.2))
        for flops in BUDGETS[:5]
        for seed in range(3)
    ]
    return study_of(rows, ("optim", "budget.flops", "seed"))


def test_the_change_of_the_quality_is_known_where_no_speedup_is_and_is_that_of_the_report():
    study = beyond_the_law(0.01)
    arm = compared(study, costs=["flops"]).arms[0]
    (of_report,) = effects(study, "optim", "loss", "train_flops")
    assert arm.costs["flops"].overall.value is None
    assert arm.effect.mean == pytest.approx(of_report.mean) and arm.effect.half == pytest.approx(of_report.half)
    assert arm.effect.mean == pytest.approx(-1.2, abs=0.02) and arm.effect.is_within_noise is False


def test_a_speedup_that_is_unknown_says_of_which_cost_and_scale():
    said = notes_of(compared(beyond_the_law(0.0), costs=["flops"]).arms[0])
    bounds = [note for note in said if "the speedup is above" in note]
    assert [note.partition(":")[0] for note in bounds] == [f"flops, flops {flops:g}" for flops in BUDGETS[:5]]


def test_raw_speed_stands_beside_that_at_equal_loss():
    """The arm is 17 % faster, and needs more tokens: 5 % faster at equal loss."""
    study = budgets_study(1.05 / 1.17, BUDGETS)
    is_muon = (study.table["optim"] == "muon").to_numpy()
    study.table.loc[is_muon, "train_seconds"] = study.table.loc[is_muon, "train_seconds"] / 1.17
    overall = compared(study, costs=["seconds"]).arms[0].costs["seconds"].overall
    assert overall.raw == pytest.approx(1.17)
    assert overall.value == pytest.approx(1.05, rel=1e-3)


def test_seeds_that_the_arms_do_not_share_are_compared_each_with_each():
    study = milestones_study(1.3, 4, 0.003)
    words = ["optim == 'adamw' and seed < 2", "optim == 'muon' and seed >= 2"]
    one = versus(study, arms_by_words(study, words), costs=["flops"]).arms[0].costs["flops"]
    assert [scale.n for scale in one.scales] == [4, 4] and one.overall.low < 1.3 < one.overall.high


def test_each_arm_can_have_its_best_learning_rate():
    rows = [
        row(arm, flops, seed, law(flops * factor) + 0.1 * (rate != best), **{"budget.flops": flops, "optim.lr": rate})
        for arm, factor, best in (("adamw", 1.0, 1e-3), ("muon", 1.3, 4e-3))
        for flops in BUDGETS.tolist()
        for rate in (1e-3, 4e-3)
        for seed in (0, 1)
    ]
    study = study_of(rows, ("optim", "optim.lr", "budget.flops", "seed"))
    assert flops_of(study, best="optim.lr").overall.value == pytest.approx(1.3, rel=1e-5)


def test_scales_can_be_put_together_by_an_axis():
    study = milestones_study(1.3, 2, 0.001)
    study = study_of(
        [one | {"depth": depth, "run_id": f"{one['run_id']}-{depth}"}
         for one in study.table.to_dict("records") for depth in (1, 2)],
        ("optim", "model.d_model", "depth", "seed"),
    )  # fmt: skip
    names = [scale.scale for scale in flops_of(study, scale="model.d_model").scales]
    assert names == ["d_model 32", "d_model 64"]
    assert len(flops_of(study).scales) == 4


def test_a_sentence_says_when_one_arm_never_was_as_bad_as_the_other_and_gives_the_bound():
    rows = [
        row(arm, share, 0, loss, run_id=arm)
        for arm, losses in (("adamw", (4.0, 3.5)), ("muon", (3.0, 2.5)))
        for share, loss in zip((5e15, 1e16), losses, strict=True)
    ]
    overall = flops_of(study_of(rows, ("optim", "seed"))).overall
    assert overall.value is None and "the speedup is above 2." in overall.why and "milestones" in overall.why


def test_one_pair_has_no_interval_and_a_sentence_says_what_would_give_one():
    overall = flops_of(milestones_study(1.3, 1).where("model.d_model == 32")).overall
    assert overall.value == pytest.approx(1.3, rel=0.01)
    assert (overall.low, overall.high) == (None, None) and "three seeds" in overall.why


def test_a_loss_below_the_baselines_law_is_out_of_reach():
    study = budgets_study(1.0, BUDGETS, arm_budgets=[5e17])
    study.table.loc[(study.table["optim"] == "muon").to_numpy(), "loss"] = 1.5
    overall = flops_of(study).overall
    assert overall.value is None and "never reaches it. Runs of optim=adamw with larger budgets" in overall.why


def test_a_law_that_does_not_fit_is_said_and_still_goes_through_the_points():
    random = np.random.default_rng(0)
    rows = [
        row(arm, flops, seed, (law(flops) + bump) * float(np.exp(1e-4 * random.normal())), **{"budget.flops": flops})
        for arm, of_arm in (("adamw", BUDGETS.tolist()), ("muon", [float(BUDGETS[2] * 1.000001)]))
        for flops in of_arm
        for bump in [0.05 * (abs(flops / BUDGETS[2] - 1) < 1e-3)]
        for seed in (0, 1)
    ]
    one = flops_of(study_of(rows, ("optim", "budget.flops", "seed")))
    assert any("does not fit" in note for note in one.notes)
    assert one.overall.value == pytest.approx(1, rel=0.01)


def test_a_baseline_of_several_sizes_is_taken_at_its_best():
    """The baseline is a grid of sizes and budgets under Chinchilla's law; the arm has the best loss of 1.5 times C."""

    def chinchilla(params: float, tokens: float) -> float:
        return float(1.7 + 400 * params**-0.34 + 400 * tokens**-0.28)

    def best_loss(flops: float) -> float:
        return min(chinchilla(params, flops / 6 / params) for params in np.geomspace(1e4, 1e10, 2000))

    rows = [
        row("adamw", flops, 0, chinchilla(params, flops / 6 / params), n_params=int(params), tokens=flops / 6 / params)
        | {"budget.flops": flops, "size": int(params)}
        for flops in BUDGETS.tolist()
        for params in np.geomspace(3e6, 6e8, 12).tolist()
    ]
    of_arm = {"n_params": 10_000, "tokens": 1e9, "budget.flops": 3e16, "size": 10_000}
    rows.append(row("muon", 3e16, 0, best_loss(1.5 * 3e16)) | of_arm)
    one = flops_of(study_of(rows, ("optim", "budget.flops", "size", "seed")))
    assert one.overall.value == pytest.approx(1.5, rel=0.02) and one.overall.method == "law"


def test_costs_that_do_not_compare_are_left_out_with_the_reason():
    study = milestones_study(1.3, 2)
    study.table.loc[(study.table["optim"] == "muon").to_numpy(), "device_name"] = "b"
    arm = compared(study).arms[0]
    assert set(arm.costs) == {"flops", "tokens"}
    assert "different devices" in arm.left_out["seconds"] and arm.left_out["kwh"] == "optim=adamw has no energy_kwh"
    with pytest.raises(UserError, match="seconds cannot be compared: the runs are on different devices"):
        compared(study, costs=["seconds"])


def test_a_slowed_device_marks_the_costs_that_depend_on_it():
    study = milestones_study(1.3, 2)
    study.table["exclusive"] = False
    costs = compared(study).arms[0].costs
    assert costs["seconds"].is_slowed and not costs["flops"].is_slowed


def test_losses_of_several_tokenizers_do_not_compare_and_bits_per_byte_do():
    study = milestones_study(1.3, 2)
    names = np.where(study.table["optim"] == "muon", "b", "a")
    study = study_of(
        [one | {"tokenizer_fingerprint": str(name), "bits_per_byte": one["loss"] / 2}
         for one, name in zip(study.table.to_dict("records"), names, strict=True)],
        ("optim", "model.d_model", "seed"),
    )  # fmt: skip
    assert compared(study, costs=["tokens"]).quality == "bits_per_byte"
    with pytest.raises(UserError, match=r"do not compare by loss.*--quality bits_per_byte"):
        compared(study, quality="loss")


def test_runs_that_no_axis_tells_apart_are_left_out():
    rows = milestones_study(1.3, 3).table.to_dict("records")
    again = [one | {"run_id": "again"} for one in rows if one["run_id"] == "muon-32-0"]
    arm = compared(study_of([*rows, *again], ("optim", "model.d_model", "seed")), costs=["flops"]).arms[0]
    assert arm.notes == ("2 runs are left out: no axis or seed tells them from another run.",)
    assert arm.costs["flops"].overall.n == 5


def test_the_table_has_a_row_for_each_cost_and_scale():
    table = compared(milestones_study(1.3, 2)).table
    assert table["scale"].tolist() == ["overall", "d_model 32", "d_model 64"] * 3
    assert table["cost"].unique().tolist() == ["train_flops", "train_seconds", "tokens"]
    assert str(table["speedup"].dtype) == "Float64" and table["speedup"].notna().all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quality": "accuracy"}, "no run of optim=adamw has accuracy"),
        ({"costs": ["flop"]}, "'flop' is no cost. Did you mean 'flops'?"),
        ({"scale": "seed"}, "--scale seed: this is no axis that varies within an arm"),
        ({"best": "optim"}, "--best optim: this is no axis that varies within an arm"),
        ({"confidence": 1.5}, "a confidence of 1.5"),
    ],
)
def test_a_wrong_option_is_one_message(options: dict[str, Any], said: str):
    with pytest.raises(UserError, match=said.replace(".", r"\.").replace("?", r"\?")):
        compared(milestones_study(1.3, 2), **options)


def test_variances_of_cells_add_as_welch_and_scipy_have_it():
    """Minus one group of another is Welch's test; the mean of two has the same variance, but for a factor of 4."""
    one, other = [0.1, 0.3, 0.2, 0.5], [0.4, 0.45, 0.5]
    groups = [mean_over_seeds({(i, i): value for i, value in enumerate(group)}) for group in (one, other)]
    mean = mean_over_strata(groups)
    welch = stats.ttest_ind(one, other, equal_var=False)
    low, high = welch.confidence_interval()
    assert mean.freedom == pytest.approx(welch.df)
    assert 2 * stats.t.ppf(0.975, mean.freedom) * np.sqrt(4 * mean.variance) == pytest.approx(high - low)


def test_the_noise_of_the_arms_own_runs_widens_the_interval_of_a_law():
    """Only the arm's seeds differ: the baseline has no noise, so its law is exact."""
    study = budgets_study(1.3, BUDGETS, 2, arm_budgets=[2e16])
    rows = (study.table["optim"] == "muon").to_numpy()
    study.table.loc[rows, "loss"] = study.table.loc[rows, "loss"] * [1.004, 0.996]
    overall = flops_of(study).overall
    assert overall.low < 1.27 and overall.high > 1.33

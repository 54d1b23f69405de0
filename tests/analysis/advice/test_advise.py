"""Advice held against a law that is known in closed form, and against input that it must refuse."""

import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lmexp.analysis.advice.advise import Ask, FittedStudy, advise, learn
from lmexp.analysis.effects.effects import noise_floor
from lmexp.analysis.scaling.answers import answer
from lmexp.analysis.scaling.checks import MAX_BEYOND
from lmexp.analysis.scaling.readers import points_of_study
from lmexp.analysis.table import Study, load_study
from lmexp.config.compose import Composer
from lmexp.config.paths import shipped_root
from lmexp.cost.hardware import known_hardware
from lmexp.errors import UserError
from lmexp.report.terminal.advise import print_advice
from lmexp.terminal import Terminal
from tests.analysis import lawful

ROOTS = [shipped_root()]
H100 = known_hardware()["h100_sxm"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FittedStudy:
    """Two arms; bf16 is 0.005 nats worse and twice as fast."""
    return learn(load_study([lawful.lawful_study(tmp_path_factory.mktemp("two"))]))


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> FittedStudy:
    """One arm, next to without noise."""
    return learn(load_study([lawful.lawful_study(tmp_path_factory.mktemp("one"), arms=[("gpt", "fp32")], noise=1e-4)]))


def best(study: FittedStudy, **ask: Any) -> dict[str, Any]:
    return advise(study, Ask(**ask), ROOTS)["advice"]


def test_next_to_without_noise_advice_is_the_closed_form(exact: FittedStudy):
    params, tokens, loss = lawful.best(1e16)
    found = best(exact, flops=1e16)
    assert found["params"]["value"] == pytest.approx(params, rel=1e-2)
    assert found["tokens"]["value"] == pytest.approx(tokens, rel=1e-2)
    assert found["loss"]["value"] == pytest.approx(loss, rel=1e-3)
    seconds = 1e16 * lawful.seconds_per_flop("fp32")
    assert found["train_hours"] == pytest.approx(seconds / 3600, rel=1e-6)
    assert found["train_dollars"] == pytest.approx(lawful.DOLLARS_PER_HOUR * seconds / 3600, rel=1e-6)
    assert found["peak_memory_gb"] == pytest.approx(16 * params / 1e9, rel=1e-2)


def test_hours_and_dollars_buy_what_their_flops_buy(exact: FittedStudy):
    hours = 1e16 * lawful.seconds_per_flop("fp32") / 3600
    by_flops, by_hours = best(exact, flops=1e16), best(exact, hours=hours)
    by_dollars = best(exact, dollars=hours * lawful.DOLLARS_PER_HOUR)
    for other in (by_hours, by_dollars):
        assert other["params"]["value"] == pytest.approx(by_flops["params"]["value"], rel=1e-6)
        assert other["loss"]["value"] == pytest.approx(by_flops["loss"]["value"], rel=1e-9)


def test_fit_and_advise_give_one_best_size_where_flops_per_token_are_no_multiple_of_the_size(tmp_path: Path):
    study = load_study([lawful.lawful_study(tmp_path, arms=[("gpt", "fp32")])])
    flops = study.table["train_flops"] * (study.table["n_params"] / 1e5) ** -0.1  # as attention does it
    study = replace(study, table=study.table.assign(train_flops=flops))
    advised = best(learn(study), flops=1e16)
    fitted = answer(points_of_study(study), [1e16], bootstraps=100)
    (row,) = (row for row in fitted.best if row.by == fitted.trusted.law.name)
    assert advised["law"] == row.by
    assert advised["params"]["value"] == pytest.approx(float(row.params.value), rel=1e-9)
    assert advised["tokens"]["value"] == pytest.approx(float(row.tokens.value), rel=1e-9)
    size, tokens = float(row.params.value), float(row.tokens.value)
    others = fitted.trusted.loss(size * np.array([0.9, 1.1]), tokens * np.array([0.9, 1.1]) ** -0.9)
    assert (others.value > float(row.loss.value)).all()  # no other split of the budget is better
    assert str(fitted.price) == "C = 19 N^0.9 D"


def test_a_larger_budget_never_gives_a_worse_loss(study: FittedStudy):
    losses = [best(study, flops=flops)["loss"]["value"] for flops in (1e15, 1.1e15, 1e16, 9e16)]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("served", [0.0, 1e8])
def test_the_way_to_a_loss_inverts_the_way_of_a_budget(study: FittedStudy, served: float):
    there = advise(study, Ask(flops=1e16, served=served), ROOTS)
    for arm in there["arms"]:
        back = advise(study, Ask(loss=arm["loss"]["value"], by="flops", served=served), ROOTS)
        (same,) = [other for other in back["arms"] if other["precision"] == arm["precision"]]
        assert same["cost"]["value"] == pytest.approx(1e16, rel=1e-6)
        assert same["params"]["value"] == pytest.approx(arm["params"]["value"], rel=1e-4)


def test_serving_asks_for_a_smaller_model_on_more_tokens(exact: FittedStudy):
    plain, served = best(exact, loss=2.9, by="flops"), best(exact, loss=2.9, by="flops", served=1e9)
    assert served["params"]["value"] < plain["params"]["value"]
    assert served["tokens"]["value"] > plain["tokens"]["value"]
    assert served["train_flops"] + served["serve_flops"] == pytest.approx(served["cost"]["value"], rel=1e-9)
    assert served["train_flops"] + served["serve_flops"] < plain["train_flops"] + 2 * plain["params"]["value"] * 1e9


def test_in_flops_the_better_arm_leads_and_in_hours_the_faster(study: FittedStudy):
    assert best(study, flops=1e16)["precision"] == "fp32"
    assert best(study, hours=30)["precision"] == "bf16"
    assert best(study, loss=2.9)["precision"] == "bf16"  # dollars are known, so they are what is least


def test_how_far_it_goes_beyond_the_rows_is_said(exact: FittedStudy):
    found = best(exact, flops=1e16)
    params, tokens, _ = lawful.best(1e16)
    flops, sizes = (exact.study.table[name].astype(float).max() for name in ("train_flops", "n_params"))
    assert found["beyond"]["compute"] == pytest.approx(1e16 / flops, rel=1e-6)
    assert found["beyond"]["params"] == pytest.approx(params / sizes, rel=1e-2)
    assert found["beyond"]["tokens"] == pytest.approx(tokens / 6.4e7, rel=1e-2)


def test_beyond_the_rule_it_refuses_and_says_which_runs_would_do(exact: FittedStudy):
    most = float(exact.study.table["train_flops"].astype(float).max()) * MAX_BEYOND
    assert best(exact, flops=0.99 * most)["beyond"]["compute"] == pytest.approx(99, rel=1e-6)
    with pytest.raises(UserError, match=r"times beyond its largest run .* runs of about .* would make it answerable"):
        best(exact, flops=1.01 * most)


def test_a_loss_below_the_floor_is_refused_with_the_floor(exact: FittedStudy):
    with pytest.raises(UserError, match=r"never reaches a loss of 1\.4: .* floor of 1\.5"):
        best(exact, loss=1.4)


def test_on_another_device_the_speed_is_an_assumption_with_its_source(exact: FittedStudy):
    peak = 67e12  # fp32 of the datasheet
    found = best(exact, flops=1e16, device=H100)
    assert found["speed_source"].startswith(f"assumed: MFU {lawful.MFU}") and "datasheet" in found["speed_source"]
    assert found["train_hours"] == pytest.approx(1e16 / (lawful.MFU * peak) / 3600, rel=1e-6)
    assert found["peak_memory_gb"] is None
    assert found["dollars_per_hour"] == H100.dollars_per_hour


def test_the_command_composes_to_the_model_the_tokens_and_the_precision(study: FittedStudy):
    found = advise(study, Ask(flops=1e16), ROOTS)
    for arm in found["arms"]:
        config = Composer(ROOTS, words=shlex.split(shlex.join(arm["command"]))).config({})
        assert config.precision.name == arm["precision"] and config.model.family == "gpt"
        assert config.budget.tokens == pytest.approx(arm["tokens"]["value"], rel=1e-3)
        assert (config.model.n_layers, config.model.d_model) == (arm["shape"]["n_layers"], arm["shape"]["d_model"])
        assert config.model.context == 64  # as in the study
        assert abs(math.log(arm["shape"]["n_params"] / arm["params"]["value"])) < 0.15


def test_the_law_that_predicts_best_speaks_and_the_others_are_shown(study: FittedStudy):
    found = best(study, flops=1e16)
    errors = {law["law"]: law["holdout_error"] for law in found["laws"]}
    assert len(errors) >= 2 and errors[found["law"]] == min(errors.values()) == found["holdout_error"]


def test_advice_is_plain_json(study: FittedStudy):
    import json

    json.dumps(advise(study, Ask(loss=2.9, served=1e8), ROOTS), allow_nan=False)


def test_a_design_at_one_ratio_is_refused(tmp_path: Path):
    lawful.lawful_study(tmp_path, "line", arms=[("gpt", "fp32")], tokens=[1e6])
    with pytest.raises(UserError, match="line cannot answer"):
        learn(load_study([tmp_path / "line"]))


def test_one_run_and_failed_runs_have_no_advice(tmp_path: Path):
    lawful.lawful_study(tmp_path, "single", arms=[("gpt", "fp32")], widths=[64], tokens=[1e6])
    with pytest.raises(UserError, match="single cannot answer"):
        learn(load_study([tmp_path / "single"]))
    lawful.lawful_study(tmp_path, "broken", arms=[("gpt", "fp32")], state="failed")
    with pytest.raises(UserError, match="broken has no finished run"):
        learn(load_study([tmp_path / "broken"]))


def test_without_a_price_dollars_are_refused_with_the_way_to_one(tmp_path: Path):
    lawful.lawful_study(tmp_path, "free", arms=[("gpt", "fp32")], dollars=None, dollars_per_hour=None)
    study = learn(load_study([tmp_path / "free"]))
    with pytest.raises(UserError, match="has no price: give --dollars-per-hour"):
        advise(study, Ask(dollars=50), ROOTS)
    hours = best(study, hours=20)
    priced = best(study, dollars=40, dollars_per_hour=2.0)
    assert priced["params"]["value"] == pytest.approx(hours["params"]["value"], rel=1e-9)


def test_speeds_of_shared_devices_are_no_speeds(tmp_path: Path):
    lawful.lawful_study(tmp_path, "shared", arms=[("gpt", "fp32")], exclusive=False)
    study = learn(load_study([tmp_path / "shared"]))
    assert best(study, flops=1e16)["train_hours"] is None
    with pytest.raises(UserError, match="no run of it was measured alone"):
        advise(study, Ask(hours=10), ROOTS)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["flops", "hours", "dollars", "loss"])
def test_a_budget_is_a_number_above_0(name: str, wrong: float):
    with pytest.raises(UserError, match=f"--{name} .*: a number above 0"):
        Ask(**{name: wrong})


def test_contradictory_questions_are_refused():
    for ask in ({}, {"flops": 1.0, "hours": 1.0}, {"flops": 1.0, "loss": 3.0}):
        with pytest.raises(UserError, match="give one of --flops, --dollars, --hours, or --loss"):
            Ask(**ask)
    with pytest.raises(UserError, match=r"--by .* needs --loss"):
        Ask(flops=1.0, by="hours")
    with pytest.raises(UserError, match="--serve -1"):
        Ask(flops=1.0, served=-1.0)


def test_intervals_hold_the_truth(study: FittedStudy):
    found = best(study, flops=1e16)
    for name, truth in zip(("params", "tokens", "loss"), lawful.best(1e16), strict=True):
        low, high = found[name]["low"], found[name]["high"]
        assert low < found[name]["value"] < high and low < truth < high
        assert np.log(high / low) < 0.5


def with_seeds(study: Study, sd: float) -> Study:
    """Return a study with a second seed of each run, whose loss differs by chance with this standard deviation."""
    draw = np.random.default_rng(0)
    first = study.table.assign(seed=0)
    loss = first["loss"] + sd * math.sqrt(2) * draw.normal(size=len(first))
    second = first.assign(seed=1, run_id=first["run_id"] + "-1", unit=first["run_id"] + "-1", loss=loss)
    table = pd.concat([first, second], ignore_index=True)
    return replace(study, table=table, axes=study.axes | {"seed": [0, 1]}, members={"s": frozenset(table["run_id"])})


def test_sizes_within_noise_cost_by_the_law_what_seeds_move_the_loss(exact: FittedStudy):
    known = replace(exact, study=with_seeds(exact.study, 0.003))
    found = advise(known, Ask(flops=1e16), ROOTS)
    floor = noise_floor(known.study, "loss")
    assert found["noise"] == {"sd": floor.sd, "df": floor.df} and found["noise_unknown"] == []
    sizes = found["tied_sizes"]
    margin = stats.t.ppf(0.975, floor.df) * floor.sd * math.sqrt(2)
    assert sizes["low"] < found["advice"]["params"]["value"] < sizes["high"]
    for size in (sizes["low"], sizes["high"]):  # the study follows its law to about a part in a hundred
        above = lawful.law(size, 1e16 / 6 / size) - lawful.best(1e16)[2]
        assert above == pytest.approx(margin, rel=0.05)
    assert advise(known, Ask(loss=2.9, by="flops"), ROOTS)["tied_sizes"] is None


def test_arms_whose_predicted_losses_differ_by_less_than_two_runs_of_one_setting_are_tied(study: FittedStudy):
    noisy, quiet = (replace(study, study=with_seeds(study.study, sd)) for sd in (0.05, 1e-9))
    assert advise(noisy, Ask(flops=1e16), ROOTS)["not_told_apart"] == [{"family": "gpt", "precision": "bf16"}]
    wide = advise(quiet, Ask(flops=1e16), ROOTS)
    overlap = wide["arms"][0]["loss"]["high"] >= wide["arms"][1]["loss"]["low"]
    assert bool(wide["not_told_apart"]) == overlap


def test_without_repeated_seeds_the_advice_is_followed_by_what_it_takes_to_know_the_noise(
    exact: FittedStudy, capsys: pytest.CaptureFixture[str]
):
    found = advise(exact, Ask(flops=1e16), ROOTS)
    assert found["noise"] is None and found["tied_sizes"] is None
    (said,) = found["noise_unknown"]
    assert said.startswith("No cell has two finished seeds") and said.endswith("`lmexp report lawful --all`.")
    print_advice(found, Terminal(width=1000))
    printed = capsys.readouterr().out
    assert printed.index("Train gpt") < printed.index(said) < printed.index("Expected loss")

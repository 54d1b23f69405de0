"""Advice held against a law that is known in closed form, and against input that it must refuse."""

import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmexp.analysis.advice.advise import Ask, FittedStudy, advise, learn
from lmexp.analysis.scaling.answers import answer
from lmexp.analysis.scaling.checks import MAX_BEYOND
from lmexp.analysis.scaling.readers import points_of_study
from lmexp.analysis.table import load_study
from lmexp.config.compose import Composer
from lmexp.config.paths import shipped_root
from lmexp.cost.hardware import known_hardware
from lmexp.errors import UserError
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

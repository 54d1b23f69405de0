"""Budgets: how many steps they pay for."""

from collections.abc import Callable

import pytest

from lmexp.config.checks import check_config
from lmexp.config.schema import RunConfig
from lmexp.cost.flops import count_model, count_shared
from lmexp.cost.horizon import Milestone, horizon
from lmexp.errors import UserError


@pytest.fixture
def resolved(config: Callable[..., RunConfig]) -> Callable[..., RunConfig]:
    return lambda *words: config("model.vocab_size=257", "budget.tokens=null", *words)


def test_each_budget_pays_for_the_whole_steps_within_it(resolved: Callable[..., RunConfig]):
    count = count_model(resolved().model)
    assert horizon(resolved("budget.tokens=5375"), 0).steps == 20  # 256 tokens a step; 21 would be 5376
    assert horizon(resolved(f"budget.flops={count.flops_per_token * 256 * 7.5}"), 0).steps == 7
    assert horizon(resolved("budget.tokens_per_param=2"), 0).steps == 2 * count.n_params // 256
    assert horizon(resolved("budget.epochs=1.5"), 1000).steps == 5


def test_no_budget_is_a_million_tokens(resolved: Callable[..., RunConfig]):
    assert horizon(resolved(), 0).tokens == 1_000_000 // 256 * 256


def test_flops_are_tokens_times_the_models_own(resolved: Callable[..., RunConfig]):
    config = resolved("budget.tokens=5120")
    assert horizon(config, 0).flops == 5120 * count_model(config.model).flops_per_token


def test_a_budget_of_flops_buys_more_steps_where_examples_share_sequences(resolved: Callable[..., RunConfig]):
    parts = {1: 1, 4: 3}
    each = count_shared(resolved(), parts).flops_per_token
    assert each < count_model(resolved().model).flops_per_token
    length = horizon(resolved(f"budget.flops={each * 256 * 300.5}"), 0, parts=parts)
    assert (length.steps, length.flops) == (300, each * 256 * 300)


def test_a_budget_below_one_step_is_refused(resolved: Callable[..., RunConfig]):
    with pytest.raises(UserError, match=r"less than one step of batch\.tokens=256"):
        horizon(resolved("budget.tokens=255"), 0)


def test_milestones_share_the_trunk_up_to_the_cool_down(resolved: Callable[..., RunConfig]):
    words = ["budget.tokens=25600", "schedule=wsd", "schedule.warmup=0.05", "schedule.cooldown=0.2"]  # 100 steps
    length = horizon(resolved(*words, "budget.milestones=[0.5, 0.25]"), 0)
    assert length.milestones == (Milestone(25, 0, 19), Milestone(50, 19, 39), Milestone(100, 39, None))
    assert length.spent_steps == 25 + (50 - 19) + (100 - 39) and length.spent_tokens == 256 * length.spent_steps
    assert length.spent_flops == pytest.approx((length.flops or 0) * 1.17)
    assert horizon(resolved(*words, "budget.milestones=[6400, 12800]"), 0).milestones == length.milestones
    constant = horizon(resolved(words[0], "schedule=constant", "budget.milestones=[0.25]"), 0)
    assert (constant.milestones, constant.spent_steps) == ((Milestone(25, 0, 25), Milestone(100, 25, None)), 100)
    plain = horizon(resolved(*words), 0)
    assert (plain.milestones, plain.spent_steps, plain.spent_flops) == ((), 100, plain.flops)


def test_a_milestone_is_as_long_as_a_run_of_that_budget(resolved: Callable[..., RunConfig]):
    words = ["schedule=wsd", "schedule.warmup=0.01"]
    for share in (0.1, 0.7):
        length = horizon(resolved(*words, "budget.flops=1e11", f"budget.milestones=[{share}]"), 0)
        assert length.milestones[0].steps == horizon(resolved(*words, f"budget.flops={share}e11"), 0).steps


@pytest.mark.parametrize(
    ("milestones", "why"),
    [
        ("[30000]", r"budget\.milestones: 30000 is not before the end of the run, which is 25600 tokens"),
        ("[0.5, 0.504]", "at the same step as the milestone before it"),
        ("[0.06]", r"leave no step between the warm-up \(schedule\.warmup=0\.05, 5 steps\) and the cool-down"),
    ],
)
def test_milestones_that_cannot_be_reached_are_refused(resolved: Callable[..., RunConfig], milestones: str, why: str):
    words = ["budget.tokens=25600", "schedule=wsd", "schedule.warmup=0.05", f"budget.milestones={milestones}"]
    with pytest.raises(UserError, match=why):
        horizon(resolved(*words), 0)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ["schedule=cosine"],
            "schedule=wsd or wsd_linear, whose cool-down branches off at each milestone, or schedule=constant",
        ),
        (["schedule=wsd", "budget.tokens=null", "budget.seconds=10"], r"budget\.seconds is not: set tokens, flops"),
        (["schedule=wsd", "evaluation.patience=2"], r"evaluation\.patience may end a run at any evaluation"),
    ],
)
def test_milestones_that_no_trunk_can_have_are_refused(config: Callable[..., RunConfig], words: list[str], why: str):
    with pytest.raises(UserError, match=why):
        check_config(config(*words, "budget.milestones=[0.5]"))

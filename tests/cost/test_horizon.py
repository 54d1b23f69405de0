"""Budgets: how many steps they pay for."""

from collections.abc import Callable

import pytest

from lmexp.config.schema import RunConfig
from lmexp.cost.flops import count_model, count_shared
from lmexp.cost.horizon import horizon
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

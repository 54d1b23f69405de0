"""Learning rates by rule: the published numbers, and what a sweep shows where `optim.lr=auto` is set."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from lmexp.config.models.llama import LlamaConfig
from lmexp.config.schema import RunConfig
from lmexp.config.step_law import step_law_batch, step_law_rate
from lmexp.cost.flops import count_model
from lmexp.errors import UserError
from lmexp.planning.plan import CostedRun, plan
from lmexp.resolve.learning_rate import with_learning_rate
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.record import identity_columns


@pytest.mark.parametrize("params", [214_663_680, 1_073_741_824])
@pytest.mark.parametrize("tokens", [4e9, 1e11])
def test_the_rate_is_that_of_the_authors_own_calculator(params: int, tokens: float):
    # step-law.github.io computes it from these coefficients, which the paper rounds.
    published = math.exp(0.5863 - 0.7129 * math.log(params) + 0.3075 * math.log(tokens))
    assert step_law_rate(params, tokens) == pytest.approx(published, rel=0.02)


def test_the_batch_is_that_of_the_paper():
    assert step_law_batch(1e11) == pytest.approx(0.58 * 10 ** (11 * 0.571))


def test_the_parameters_that_the_rule_counts_are_those_of_the_published_model():
    model = LlamaConfig(
        target="lmexp.models.llama.Llama", name="smallest", n_layers=7, d_model=960, n_heads=15, d_ff=9368,
        context=2048, vocab_size=65536,
    )  # fmt: skip
    assert count_model(model).conventions()["flops_per_token_kaplan"] == 6 * 214_663_680


def test_a_sweep_shows_the_numbers_and_trains_the_runs_that_numbers_name(small: list[str], tmp_path: Path):
    words = [*small, "model.d_model=16,32"]
    sweep = resolve_sweep(None, [*words, "optim.lr=auto,3e-4"], tmp_path)
    rates = [run.config.optim.peak_lr for run in sweep.runs]
    assert [run.values["optim.lr"] for run in sweep.runs] == rates
    # Two layers of 12 d_model^2 parameters each, and 5120 tokens.
    by_rule = [float(f"{1.79 * (24 * width**2) ** -0.713 * 5120**0.307:.3g}") for width in (16, 32)]
    assert rates == [by_rule[0], 3e-4, by_rule[1], 3e-4] and sweep.axes["optim.lr"] == [3e-4, *by_rule]
    assert [run.config.optim.lr_rule for run in sweep.runs] == ["step_law", None] * 2
    costed = [CostedRun(run.values, run.config, run.horizon, run.device) for run in sweep.runs]
    assert [row["lr_by_rule"] for row in plan(costed)] == [by_rule[0], None, by_rule[1], None]
    assert identity_columns(sweep.runs[0].config)["lr_rule"] == "step_law"
    assert f"lr{rates[0]}" in sweep.runs[0].run.name
    assert any("extrapolation" in warning for warning in sweep.warnings)
    assert sum("batch.tokens=256 is more than twice that" in warning for warning in sweep.warnings) == 1
    by_number = resolve_sweep(None, [*words, f"optim.lr={rates[0]},3e-4"], tmp_path)
    assert by_number.runs[0].identity == sweep.runs[0].identity


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optim=muon"], "Step Law was fitted with AdamW, not torch.optim.Muon"),
        (["model=moe_nano"], "dense decoders"),
        (["model=bert_nano", "task=masked_lm"], "dense decoders"),
        (["model.mup_base_width=16"], "muP would scale it again"),
        (["budget.tokens=null", "budget.seconds=5"], "a budget in seconds or dollars"),
        (["schedule=wsd", "budget.milestones=[0.5]"], "all milestones of a run share one"),
    ],
)
def test_runs_that_the_rule_does_not_cover_are_refused(config: Callable[..., RunConfig], words: list[str], said: str):
    settings = config("optim.lr=auto", "model.vocab_size=257", *words)
    with pytest.raises(UserError, match=said):
        with_learning_rate(settings, None if "budget.seconds=5" in words else 10_000, print)

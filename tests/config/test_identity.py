"""Identity: a hash of what determines the result, and of nothing else."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.config.identity import SLUG_LENGTH, ids_of, run_id, slug
from lmexp.config.schema import RunConfig

Config = Callable[..., RunConfig]
EARLIER = "b54b92315aae"
"""The id that versions up to 0.2.0 gave the config below, of which the default budget is written out."""


@pytest.mark.parametrize(
    "word",
    ["logger=wandb", "launcher.slots=3", "hardware.dollars_per_hour=2", "data.path=elsewhere.txt", "model.name=x",
     "checkpoint.every=0.1", "divergence.multiple=1.5", "trainer.log_every=3", "trainer.profiler=simple",
     "trainer.compile=false", "trainer.activation_checkpointing=none"],
)  # fmt: skip
def test_what_cannot_change_the_result_is_not_in_it(config: Config, word: str):
    assert run_id(config()) == run_id(config(word))


@pytest.mark.parametrize(
    "word",
    ["seed=1", "model.n_layers=3", "precision=bf16", "optim.lr=2e-3", "budget.tokens=9999", "data.fingerprint=abc",
     "tokenizer=char", "batch.tokens=512", "trainer.devices=2", "data.split=tail", "schedule=wsd",
     "divergence.multiple=2", "divergence.multiple=null", "divergence.share=0.1",
     "trainer.compile=true", "trainer.activation_checkpointing=full"],
)  # fmt: skip
def test_what_can_change_the_result_is_in_it(config: Config, word: str):
    assert run_id(config()) != run_id(config(word))


def test_a_value_written_out_that_equals_its_default_changes_nothing(config: Config):
    plain = config()
    short = plain.model_dump(by_alias=True, exclude_defaults=True, exclude={"launcher"})  # its name tells its kind
    assert "dropout" in plain.model_dump()["model"] and "dropout" not in short["model"]
    assert run_id(RunConfig.model_validate(short)) == run_id(plain)


def test_an_identity_is_the_same_on_every_machine_and_in_every_later_version(config: Config):
    # If this fails, finished runs are lost to their users: a default changed its value, or a key its name.
    assert run_id(config("data.fingerprint=abc", "model.vocab_size=257")) == "6535eb19d8d8"


def test_the_default_budget_written_out_is_the_same_run_and_one_of_an_earlier_version_is_found(config: Config):
    words = ["data.fingerprint=abc", "model.vocab_size=257"]
    assert run_id(config(*words, "budget.tokens=1000000")) == run_id(config(*words, "budget.tokens=null"))
    assert ids_of(config(*words, "budget.tokens=1000000")) == (run_id(config(*words, "budget.tokens=null")), EARLIER)
    assert len(ids_of(config(*words, "budget.tokens=999999"))) == 1


def test_milestones_change_the_result_but_the_end_is_one_anyway(config: Config):
    one, same = config("budget.milestones=[0.5]"), config("budget.milestones=[1, 0.5, 0.5]")
    assert run_id(one) == run_id(same) != run_id(config())
    assert run_id(config("budget.milestones=[1.0]")) == run_id(config())
    written = ids_of(config("budget.tokens=1000000", "budget.milestones=[0.5]"))
    assert written[0] == run_id(config("budget.tokens=null", "budget.milestones=[0.5]"))


@given(st.dictionaries(st.text(min_size=1), st.text() | st.integers() | st.floats() | st.none() | st.booleans()))
def test_a_slug_is_short_and_plain(values: dict):
    assert re.fullmatch(rf"[a-z0-9._-]{{1,{SLUG_LENGTH}}}", slug(values))


@pytest.mark.parametrize(
    ("value", "word"),
    [(4e10, "4e10"), (3.5e11, "3.5e11"), (1e-5, "1e-5"), (0.003, "0.003"), (2.0, "2"), (1e8, "100000000"), (0.0, "0")],
)
def test_a_slug_has_numbers_as_people_write_them(value: float, word: str):
    assert slug({"budget.flops": value}) == f"flops{word}"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_in_a_slug_is_exact(value: float):
    assert float(slug({"x": value})[1:]) == value


def test_a_slug_says_what_was_swept():
    assert slug({"model": "gpt_nano", "model.n_layers": 4, "precision": "bf16", "seed": 1}) == (
        "gpt_nano-n_layers4-bf16-seed1"
    )

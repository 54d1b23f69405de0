"""What private training cannot do is refused before anything runs, in one sentence."""

from collections.abc import Callable

import pytest

from lmexp.config import paths, privacy_checks
from lmexp.config.checks import accumulation, check_config, may_be_compiled
from lmexp.config.compose import Composer
from lmexp.config.identity import run_id
from lmexp.config.privacy_checks import check_samples
from lmexp.config.schema import RunConfig
from lmexp.errors import UserError

Config = Callable[..., RunConfig]
PRIVATE = "privacy.epsilon=2"
REFUSED = {
    "moe": (["model=moe_nano"], "works for models of bert, gpt, llama, lstm, and moe_nano is of moe"),
    "mingru": (["model=mingru_nano"], "works for models of bert, gpt, llama, lstm"),
    "labels": (["task=classify", "data=sentiment", "model=bert_nano"], "works for task=causal_lm and masked_lm"),
    "pairs": (["task=seq2seq", "data=reverse", "model=encdec_nano"], "works for models of bert, gpt, llama, lstm"),
    "devices": (["trainer.devices=2"], "works on one device"),
    "nodes": (["trainer.num_nodes=2"], "works on one device"),
    "fsdp": (["trainer.strategy=fsdp", "trainer.devices=2"], "works on one device"),
    "compile": (["trainer.compile=true"], "does not work with trainer.compile=true"),
    "recompute": (["trainer.activation_checkpointing=full"], "does not work with activation checkpointing"),
    "fp16": (["precision=fp16"], "works with precision=fp32, tf32, bf16, and not with fp16"),
    "narrow weights": (["precision=bf16_true"], "and not with bf16_true"),
    "fp8": (["precision=fp8"], "and not with fp8"),
    "time": (["budget=seconds", "budget.seconds=10"], "needs a number of steps that is known from the start"),
    "milestones": (["schedule=wsd", "budget.milestones=[0.5]"], "does not work with budget.milestones"),
}


@pytest.mark.parametrize("words, said", REFUSED.values(), ids=REFUSED)
def test_what_private_training_cannot_do_is_refused(words: list[str], said: str):
    with pytest.raises(UserError, match=said):
        check_config(Composer(paths.search_roots(), words=[*words, PRIVATE]).config({}))


@pytest.mark.parametrize("model", ["gpt_nano", "llama_nano", "lstm_nano"])
def test_what_it_can_do_is_not(config: Config, model: str):
    check_config(config(f"model={model}", PRIVATE))


def test_without_opacus_the_message_has_the_command_that_installs_it(config: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(privacy_checks, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'lmexp\[privacy\]'"):
        check_config(config(PRIVATE))


def test_a_text_must_have_more_sequences_than_a_step_and_delta_must_be_small(config: Config):
    with pytest.raises(UserError, match="is 8 sequences, and privacy needs a sample of the training text, which has 8"):
        check_samples(config(PRIVATE), 8, 8)
    with pytest.raises(UserError, match="must be less than 1 / 100"):
        check_samples(config(PRIVATE, "privacy.delta=0.01"), 100, 8)
    check_samples(config("privacy.delta=0.01"), 8, 8)  # without an epsilon nothing is asked
    assert config(PRIVATE).privacy.delta_for(1000) == pytest.approx(1000**-1.1)


@pytest.mark.parametrize("clip", ["1e-300", "1e300"])
def test_a_clip_with_which_the_noise_would_be_zero_or_infinite_is_refused(config: Config, clip: str):
    with pytest.raises(UserError, match=r"privacy.clip=1e.300: input should be (greater|less) than or equal to"):
        config(PRIVATE, f"privacy.clip={clip}")


def test_identities_change_with_privacy_and_only_with_it(config: Config):
    plain = run_id(config())
    assert run_id(config("privacy.clip=0.1", "privacy.delta=1e-6")) == plain, "without an epsilon nothing reads them"
    private = {
        run_id(config(PRIVATE)),
        run_id(config("privacy.epsilon=8")),
        run_id(config(PRIVATE, "privacy.clip=0.1")),
    }
    assert len(private) == 3 and plain not in private


def test_a_private_step_is_one_batch_and_is_not_compiled(config: Config):
    assert accumulation(config("batch.micro=2")) == 4 and accumulation(config("batch.micro=2", PRIVATE)) == 1
    assert may_be_compiled(config(), "cuda") and not may_be_compiled(config(PRIVATE), "cuda")

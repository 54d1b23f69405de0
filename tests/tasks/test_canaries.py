"""Exposure and extraction, against closed forms and against models whose probabilities are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from lmexp.config.data import CanariesConfig
from lmexp.data.canaries import canaries_of, references_of
from lmexp.data.tokenizers.lossless import ByteTokenizer
from lmexp.models.build import build_model
from lmexp.tasks.canaries import exposure, is_extracted, rank_of, score_canaries
from lmexp.tasks.causal_lm import CausalLM
from lmexp.tasks.token_scores import TokenScores, token_scores


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9), st.integers(-4, 4))
def test_the_rank_counts_all_that_are_at_least_as_likely_as_scipy_does(references, canary):
    ranks = rankdata([-each for each in [canary, *references]], method="max")
    assert rank_of(canary, np.array(references)) == ranks[0]


def test_the_exposure_of_a_text_that_was_never_seen_is_1_44_bits_on_average():
    ranks = range(1, 1025)  # each as likely as the others
    mean = sum(exposure(rank, 1024) for rank in ranks) / 1024
    closed_form = 10 - math.log2(math.factorial(1024)) / 1024
    assert mean == pytest.approx(closed_form, rel=1e-12)
    assert mean == pytest.approx(1 / math.log(2), abs=0.01)
    assert (exposure(1, 1024), exposure(512, 1024), exposure(1024, 1024)) == (10, 1, 0)


def task_of(config, family: str = "gpt_nano") -> CausalLM:
    """Return a causal task with fresh weights, over bytes."""
    config = config(f"model={family}", "model.vocab_size=257")
    return CausalLM(build_model(config.model, 0), config)


@pytest.mark.parametrize("family", ["gpt_nano", "llama_nano", "moe_nano", "lstm_nano", "mingru_nano"])
def test_tokens_have_the_probabilities_that_the_model_gives_them_one_text_at_a_time(config, family):
    task, tokenizer = task_of(config, family).train(), ByteTokenizer()
    texts = tokenizer.encode_batch(["abcabc", "x", "zyx", "abcabd"])  # of unequal lengths
    scored = token_scores(task, texts, tokenizer.bos_id)
    assert task.training
    task.eval()
    for text, scores in zip(texts, scored, strict=True):
        inputs = torch.tensor([[tokenizer.bos_id, *text[:-1].tolist()]])
        logits = task.model(inputs)[0].detach().double().numpy()
        shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        mine = shares[np.arange(len(text)), text]
        assert scores.log_probability == pytest.approx(np.log(mine), rel=1e-5)
        assert scores.is_likeliest.tolist() == (mine == shares.max(-1)).tolist()


class Fixed(torch.nn.Module):
    """A model that finds one next byte likelier than the others, whatever came before; `likely` lists them in order."""

    def __init__(self, likely: bytes) -> None:
        super().__init__()
        self.scores = torch.zeros(257).scatter(0, torch.tensor(list(likely)), torch.arange(len(likely), 0.0, -1.0))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits (B, T, 257)."""
        return self.scores.expand(*tokens.shape, -1)


def test_exposure_is_the_rank_by_probability_of_a_model_that_only_counts_letters(config):
    """With likelier letters, a text is likelier: the scores can be counted by hand."""
    likely = b"etaoinshrdlucmfwypvbgkjqxz"
    task = task_of(config)
    task.model = Fixed(likely)
    some = CanariesConfig(count=3, repeats=[0, 2], seed=5)
    scored = score_canaries(task, some, ByteTokenizer())
    worth = {chr(byte): 26 - place for place, byte in enumerate(likely)}
    others = [sum(worth[letter] for letter in text) for text in references_of(some)]
    for row, canary in zip(scored.details["canaries"], canaries_of(some), strict=True):
        mine = sum(worth[letter] for letter in canary.text)
        normaliser = math.log(sum(math.exp(value) for value in worth.values()) + 231)
        assert row["log2_probability"] == pytest.approx((mine - 24 * normaliser) / math.log(2), rel=1e-6)
        above = sum(other > mine for other in others)
        ties = sum(other == mine for other in others)  # by rounding, a tie falls on either side
        assert 1 + above <= row["rank"] <= 1 + above + ties
        assert row["exposure"] == 10 - math.log2(row["rank"])
        assert not row["extracted"]
    each = [row["exposure"] for row in scored.details["canaries"]]
    means = {"exposure_0": np.mean(each[:3]), "exposure_2": np.mean(each[3:])}
    assert scored.scores == pytest.approx({**means, "extracted_0": 0, "extracted_2": 0})


def test_a_canary_is_extracted_if_each_token_after_the_first_half_is_the_likeliest():
    def scores(*likeliest: int) -> TokenScores:
        return TokenScores(np.zeros(len(likeliest)), np.array(likeliest, bool), np.zeros(len(likeliest)))

    assert is_extracted(scores(0, 0, 1, 1)) and not is_extracted(scores(1, 1, 1, 0))
    assert is_extracted(scores(0, 0, 0, 1, 1)) and not is_extracted(scores(1, 1, 1, 0, 1))


def test_without_canaries_nothing_is_scored(config):
    assert not score_canaries(task_of(config), CanariesConfig(), ByteTokenizer()).scores

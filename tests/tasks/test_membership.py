"""Membership inference, against sklearn, zlib, and distributions whose moments are known."""

import math
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from lmexp.data.membership import Texts
from lmexp.data.tokenizers.lossless import ByteTokenizer
from lmexp.models.build import build_model
from lmexp.tasks.causal_lm import CausalLM
from lmexp.tasks.membership import auc, compare, min_k, score_membership, true_positive_rate
from lmexp.tasks.token_scores import TokenScores, token_scores

NUMBERS = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)


@given(NUMBERS, NUMBERS)
def test_the_area_and_the_true_positives_are_those_of_sklearn(members, others):
    labels, numbers = [1] * len(members) + [0] * len(others), members + others
    assert auc(np.array(members), np.array(others)) == pytest.approx(roc_auc_score(labels, numbers), abs=1e-12)


@pytest.mark.parametrize("count", [20, 99, 100, 250, 1000])
def test_the_true_positives_at_one_percent_false_ones_are_those_of_sklearn(count: int):
    dice = np.random.default_rng(count)
    members, others = dice.normal(1, 1, 150).round(1), dice.normal(0, 1, count).round(1)  # rounded, so some are equal
    false, true, _ = roc_curve([1] * 150 + [0] * count, [*members, *others], drop_intermediate=False)
    assert true_positive_rate(members, others) == true[false <= 0.01].max()


def test_the_interval_of_the_area_is_as_wide_as_delongs_variance_says():
    """DeLong et al. 1988: the variance of the placements of each sample among the other."""
    dice = np.random.default_rng(0)
    members, others = dice.normal(0.5, 1, 300), dice.normal(0, 1, 200)
    of_members = np.array([(each > others).mean() for each in members])
    of_others = np.array([(members > each).mean() for each in others])
    error = math.sqrt(of_members.var(ddof=1) / 300 + of_others.var(ddof=1) / 200)
    value, (low, high) = compare(members, others)["auc"]
    assert value == pytest.approx(of_members.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_numbers_that_say_nothing_give_a_guess_within_their_interval():
    dice = np.random.default_rng(1)
    measured = compare(dice.normal(size=500), dice.normal(size=500))
    for name, guess in (("auc", 0.5), ("tpr", 0.01)):
        value, (low, high) = measured[name]
        assert low <= guess <= high and low <= value <= high


class Fixed(torch.nn.Module):
    """A model that gives the bytes a, b and c the probabilities 1/2, 1/4 and 1/4, whatever came before."""

    vocab_size = 257

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits (B, T, 257)."""
        scores = torch.full((257,), -torch.inf)
        scores[torch.tensor(list(b"abc"))] = torch.tensor([0.5, 0.25, 0.25]).log()
        return scores.expand(*tokens.shape, -1)


@pytest.fixture
def task(config) -> CausalLM:
    """A task with the fixed model."""
    small = config("model.vocab_size=257")
    task = CausalLM(build_model(small.model, 0), small)
    task.model = Fixed()
    return task


def test_tokens_are_standardised_by_the_moments_of_the_models_own_distribution(task):
    """Of log2 p the mean is -1.5 and the deviation 0.5, so that `a` is one deviation above, and `b` and `c` below."""
    (scores,) = token_scores(task, ByteTokenizer().encode_batch(["aabc"]), 256)
    assert scores.log_probability == pytest.approx(np.log([0.5, 0.5, 0.25, 0.25]))
    assert scores.standardised == pytest.approx([1, 1, -1, -1], abs=1e-5)


def test_min_k_is_the_mean_of_the_lowest_fifth():
    def of(*standardised: float) -> float:
        return min_k(
            TokenScores(np.zeros(len(standardised)), np.zeros(len(standardised), bool), np.array(standardised))
        )

    assert of(*range(10)) == 0.5 and of(*range(14, -1, -1)) == 1 and of(5, 4, 3) == 3


def test_attacks_are_compared_on_what_their_papers_say(task, monkeypatch):
    """Members are likelier by hand: the numbers of each attack can be written down."""
    texts = {"members": ["aaaaa", "aaaab"] * 10, "others": ["aabcb", "bcbcb"] * 10}
    tokens = {name: np.stack(ByteTokenizer().encode_batch(each)).astype(np.int64) for name, each in texts.items()}
    seen: dict[str, np.ndarray] = {}

    def keep(members: np.ndarray, others: np.ndarray):
        seen[f"{len(seen)}"] = np.concatenate([members, others])
        return compare(members, others)

    monkeypatch.setattr("lmexp.tasks.membership.compare", keep)
    scored = score_membership(task, Texts(**tokens), ByteTokenizer(), reference=task)
    every = texts["members"] + texts["others"]
    bits = np.array([sum(-1 if letter == "a" else -2 for letter in text) for text in every])
    loss, lowest, ratio, difference = seen.values()
    assert loss == pytest.approx(bits * math.log(2) / 5, rel=1e-6)
    assert lowest == pytest.approx([1 if text == "aaaaa" else -1 for text in every], abs=1e-5)
    assert ratio == pytest.approx(bits * math.log(2) / [len(zlib.compress(text.encode())) for text in every], rel=1e-6)
    assert difference == pytest.approx(np.zeros(40), abs=1e-7)
    assert scored.scores["auc_loss"] == 1 and scored.scores["tpr_loss"] == 1
    assert scored.scores["auc_min_k"] == 0.75  # half of the members tie with all others
    assert scored.scores["auc_reference"] == 0.5 and scored.scores["tpr_reference"] == 0
    assert scored.details["intervals"].keys() == scored.scores.keys()
    assert (scored.details["texts_of_each_kind"], scored.details["tokens"]) == (20, 5)

"""Masked language modelling: the loss is of hidden tokens alone, and sentences are scored a token at a time."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.schema import RunConfig
from lmexp.config.tasks.masked_lm import MaskedLMConfig
from lmexp.models.base import LanguageModel
from lmexp.models.build import build_model
from lmexp.tasks.base import IGNORED
from lmexp.tasks.masked_lm import MaskedLM, pseudo_log_likelihood
from tests.models.test_bert import disturbed, tiny

CONFIG: RunConfig = Composer([paths.shipped_root()]).config({})
MASK, BOS = 60, 59


def test_the_shipped_config_is_the_papers():
    task = Composer([paths.shipped_root()], words=["task=masked_lm"]).config({}).task
    assert isinstance(task, MaskedLMConfig) and task.share == 0.15


@torch.no_grad()
def test_the_loss_is_the_mean_over_hidden_tokens_alone():
    model = disturbed()
    task = MaskedLM(model, CONFIG).eval()
    tokens = torch.randint(59, (2, 16), generator=torch.Generator().manual_seed(0))
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[0, [3, 7]] = hidden[1, 15] = True
    batch = {"inputs": tokens.masked_fill(hidden, MASK), "targets": tokens.masked_fill(~hidden, IGNORED)}
    quality = task.evaluate([batch], None)
    assert quality.tokens == 3
    expected = F.cross_entropy(model(batch["inputs"])[hidden], tokens[hidden])
    assert quality.loss == pytest.approx(float(expected), abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 4, 64])
def test_each_token_is_scored_with_itself_hidden_and_all_others_shown(batch: int):
    model, sentence = disturbed(), [5, 17, 17, 3, 40, 2]
    expected = []
    for position in range(1, len(sentence) + 1):
        inputs = [BOS, *sentence]
        inputs[position] = MASK
        logits = model(torch.tensor([inputs]))[0, position]
        expected.append(float(logits.log_softmax(-1)[sentence[position - 1]]))
    assert pseudo_log_likelihood(model, sentence, MASK, BOS, batch) == pytest.approx(expected, abs=1e-5)


class Bigrams(LanguageModel):
    """Knows of a hidden token only what stands before it: the log-probabilities of a table, by that token."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__(tiny())
        self.table = torch.nn.Parameter(table)

    def hidden(self, tokens: torch.Tensor, cache: object = None, valid: torch.Tensor | None = None) -> torch.Tensor:
        return F.one_hot(tokens.roll(1, 1), len(self.table)).float()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden @ self.table


def test_the_scores_of_a_known_model_are_those_of_its_table():
    table = torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    sentence = [1, 4, 4, 2]
    expected = [float(table[before, token]) for before, token in pairwise([6, *sentence])]
    assert pseudo_log_likelihood(Bigrams(table), sentence, mask_id=7, bos_id=6) == pytest.approx(expected, abs=1e-6)


def test_scoring_is_without_dropout_and_leaves_the_model_as_it_was():
    model = build_model(tiny(dropout=0.5), 0).train()
    scores = [pseudo_log_likelihood(model, [1, 2, 3], MASK, BOS) for _ in range(2)]
    assert scores[0] == scores[1] and model.training


def test_a_sentence_longer_than_the_context_is_refused_and_one_without_words_has_no_scores():
    assert len(pseudo_log_likelihood(disturbed(), [1] * 15, MASK, BOS)) == 15
    with pytest.raises(ValueError, match="17 tokens are more than the model's context of 16"):
        pseudo_log_likelihood(disturbed(), [1] * 16, MASK, BOS)
    assert pseudo_log_likelihood(disturbed(), [], MASK, BOS) == []


def test_hidden_tokens_are_learnt():
    torch.manual_seed(0)
    model = build_model(tiny(dropout=0.0), 0)
    task = MaskedLM(model, CONFIG)
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    # Each token is the one before it and 1 more: what is hidden follows from either neighbour.
    tokens = (torch.arange(16) + torch.randint(50, (32, 1))) % 50
    hidden = torch.zeros(32, 16, dtype=torch.bool)
    hidden[:, 2::5] = True
    batch = {"inputs": tokens.masked_fill(hidden, MASK), "targets": tokens.masked_fill(~hidden, IGNORED)}
    batch["step_targets"] = hidden.sum()
    losses = []
    for step in range(150):
        loss = task.training_step(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.log(torch.tensor(61.0)).item(), abs=0.2)  # a guess among 61
    assert losses[-1] < 0.2
    assert task.evaluate([batch], None).accuracy > 0.95

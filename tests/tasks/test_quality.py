"""Quality: one number, however the validation split is cut."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.schema import RunConfig
from lmexp.runs.record import is_row
from lmexp.tasks.base import IGNORED, Quality, TaskScores
from lmexp.tasks.causal_lm import CausalLM

CONFIG: RunConfig = Composer([paths.shipped_root()]).config({})
CLASSES = 5


class Table(nn.Module):
    """A model that looks its logits up: the loss of each token is known."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Embedding(CLASSES, CLASSES)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.logits(tokens)


@pytest.fixture(scope="module")
def task() -> CausalLM:
    torch.manual_seed(0)
    return CausalLM(Table(), CONFIG)


@pytest.mark.parametrize("pieces", [1, 7, 1000])  # targets that are scored at a time
def test_the_loss_by_quarter_is_that_of_the_targets_at_these_places(
    task: CausalLM, pieces: int, monkeypatch: pytest.MonkeyPatch
):
    length = CONFIG.model.context
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randint(0, CLASSES, (2, 6, length), generator=generator)
    logits, rights = task.model.logits(inputs.flatten()), targets.flatten()
    split = lambda batch: zip(logits.split(pieces), rights.split(pieces), strict=True)  # noqa: E731
    monkeypatch.setattr(task, "_logits", split)
    quality = task.evaluate([{"inputs": inputs, "targets": targets}], None)
    nll = -task.model.logits.weight.detach().double().log_softmax(-1)[inputs, targets]
    assert quality.quarters == pytest.approx(nll.reshape(6, 4, -1).mean((0, 2)).tolist(), abs=1e-6)
    assert sum(quality.quarters) / 4 == pytest.approx(quality.loss, abs=1e-12)


def test_a_short_window_counts_by_its_places_and_a_quarter_without_targets_has_no_loss(task: CausalLM):
    inputs, targets = torch.randint(0, CLASSES, (2, CONFIG.model.context // 4 + 1))
    quality = task.evaluate([batch_of(inputs, targets)], None)
    nll = -task.model.logits.weight.detach().double().log_softmax(-1)[inputs, targets]
    expected = [pytest.approx(float(nll[:-1].mean()), abs=1e-6), pytest.approx(float(nll[-1]), abs=1e-6), None, None]
    assert list(quality.quarters) == expected


def test_the_perplexity_per_word_divides_the_same_sum_by_words():
    quality = Quality.from_sums(nll=60.0, tokens=30, correct=0, text_bytes=None, text_words=12)
    assert (quality.perplexity, quality.word_perplexity) == (math.exp(2), math.exp(5))
    assert Quality.from_sums(60.0, 30, 0, None).word_perplexity is None


def batch_of(inputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"inputs": inputs[None], "targets": targets[None]}


@given(
    cuts=st.lists(st.integers(1, 99), max_size=6, unique=True),
    ignored=st.sets(st.integers(0, 99), max_size=30),
    seed=st.integers(0, 9),
)
def test_the_loss_is_the_mean_over_all_targets_however_they_are_cut(
    task: CausalLM, cuts: list[int], ignored: set[int], seed: int
):
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = torch.randint(0, CLASSES, (2, 100), generator=generator)
    targets[list(ignored)] = IGNORED
    edges = [0, *sorted(cuts), 100]
    batches = [batch_of(inputs[a:b], targets[a:b]) for a, b in pairwise(edges)]
    quality = task.evaluate(batches, text_bytes=50)

    log_probabilities = task.model.logits.weight.detach().double().log_softmax(-1)
    kept = [i for i in range(100) if i not in ignored]
    nll = -sum(float(log_probabilities[inputs[i], targets[i]]) for i in kept)
    assert quality.tokens == len(kept)
    assert quality.loss == pytest.approx(nll / len(kept), abs=1e-6)
    assert quality.bits_per_byte == pytest.approx(nll / math.log(2) / 50, abs=1e-6)
    right = sum(int(log_probabilities[inputs[i]].argmax()) == int(targets[i]) for i in kept)
    assert quality.accuracy == right / len(kept)


def test_perplexity_is_the_exponential_of_the_loss_and_never_overflows():
    assert Quality.from_sums(2.0, 4, 0, None).perplexity == math.exp(0.5)
    assert Quality.from_sums(1e9, 1, 0, None).perplexity == math.inf


@pytest.mark.parametrize("nats", [695.0, 1e6])
def test_a_perplexity_that_no_record_holds_is_infinite_and_no_score(nats: float):
    """A paragraph without spaces is one word: exp of its loss is too large for a table, or even for a float."""
    quality = Quality.from_sums(nats, tokens=10_000, correct=0, text_bytes=None, text_words=1)
    scores = TaskScores().beside(quality).scores
    assert quality.word_perplexity == math.inf and "word_perplexity" not in scores
    assert is_row({"run_id": "a", **scores})


def test_a_text_of_unknown_bytes_has_no_bits_per_byte():
    assert Quality.from_sums(2.0, 4, 0, None).bits_per_byte is None


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_the_model_in_the_mode_it_was_in(task: CausalLM, training: bool):
    task.train(training)
    task.evaluate([batch_of(torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64))], 3)
    assert task.training is training


def test_weight_decay_is_on_matrices_only(config: Callable[..., RunConfig]):
    from lmexp.models.build import build_model

    resolved = config("model.vocab_size=257", "optim.weight_decay=0.3")
    groups = CausalLM(build_model(resolved.model, 0), resolved).configure_optimizers().param_groups
    assert {(group["weight_decay"], weight.ndim >= 2) for group in groups for weight in group["params"]} == {
        (0.3, True),
        (0.0, False),
    }

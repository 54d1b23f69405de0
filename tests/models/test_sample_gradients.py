"""The clipped gradients of sequences equal those of a loop that passes one sequence at a time through the model."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lmexp.config.models.bert import BertConfig
from lmexp.config.models.gpt import GPTConfig
from lmexp.config.models.llama import LlamaConfig
from lmexp.config.models.lstm import LSTMConfig
from lmexp.errors import UserError
from lmexp.models.base import LanguageModel
from lmexp.models.bert import Bert
from lmexp.models.gpt import GPT
from lmexp.models.llama import Llama
from lmexp.models.lstm import LSTM
from lmexp.models.sample_gradients import SampleGradients, unrolled

SIZES = {"name": "small", "n_layers": 2, "d_model": 16, "context": 12, "vocab_size": 23}
MODELS: dict[str, Callable[[], LanguageModel]] = {
    "gpt": lambda: GPT(GPTConfig(_target_="lmexp.models.gpt.GPT", n_heads=2, **SIZES)),
    "gpt, untied, no biases": lambda: GPT(
        GPTConfig(_target_="lmexp.models.gpt.GPT", n_heads=2, bias=False, tie_embeddings=False, **SIZES)
    ),
    "llama": lambda: Llama(LlamaConfig(_target_="lmexp.models.llama.Llama", n_heads=4, n_kv_heads=2, **SIZES)),
    "llama, tied, norms of queries": lambda: Llama(
        LlamaConfig(_target_="lmexp.models.llama.Llama", n_heads=2, qk_norm=True, tie_embeddings=True, **SIZES)
    ),
    "bert": lambda: Bert(BertConfig(_target_="lmexp.models.bert.Bert", n_heads=2, dropout=0.0, **SIZES)),
    "lstm": lambda: LSTM(LSTMConfig(_target_="lmexp.models.lstm.LSTM", **SIZES)),
    "lstm, tied by a projection": lambda: LSTM(LSTMConfig(_target_="lmexp.models.lstm.LSTM", d_embedding=10, **SIZES)),
}
LENGTHS = {"norms from products of positions": 3, "norms from the gradients": 12}
"""With few positions, products of positions are less work than gradients of matrices; with many, more."""


def made(name: str) -> LanguageModel:
    """Return a model with weights in which each layer, and each norm and bias, differs from the others."""
    torch.manual_seed(1)
    model = MODELS[name]()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def losses_of(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss of each sequence: (B,)."""
    logits = model(tokens)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(len(tokens), -1).mean(1)


def one_by_one(model: nn.Module, tokens: Tensor, targets: Tensor, bound: float) -> tuple[Tensor, list[Tensor]]:
    """Return the norm of each sequence's gradient, and the sum of the clipped ones, by plain autograd."""
    norms, sums = [], [torch.zeros_like(weight) for weight in model.parameters()]
    for row in range(len(tokens)):
        loss = losses_of(model, tokens[row : row + 1], targets[row : row + 1]).sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        norms.append(norm)
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient * min(1.0, bound / (float(norm) + 1e-6))
    return torch.stack(norms), sums


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("name", MODELS)
def test_norms_and_clipped_sums_equal_a_loop_over_sequences(name: str, length: int):
    model = made(name)
    tokens = torch.randint(0, 9, (5, length))  # few different tokens, so that each comes several times in a sequence
    targets = torch.randint(0, 23, (5, length))
    norms, _ = one_by_one(model, tokens, targets, 1.0)
    bound = float(norms.median())  # clips some of the sequences and leaves others as they are
    _, sums = one_by_one(model, tokens, targets, bound)

    gradients = SampleGradients(model)
    seen = []
    for rows in (slice(0, 3), slice(3, 5)):  # two micro-batches add up
        with gradients.recording(len(tokens[rows])):
            losses = losses_of(model, tokens[rows], targets[rows])
        seen.append(gradients.add_clipped(losses, bound))
    torch.testing.assert_close(torch.cat(seen), norms, rtol=1e-5, atol=1e-6)
    for (weight_name, weight), summed in zip(model.named_parameters(), sums, strict=True):
        torch.testing.assert_close(
            weight.grad, summed, rtol=1e-4, atol=1e-6, msg=lambda said, n=weight_name: f"{n}: {said}"
        )


def test_dropout_is_the_same_in_the_norm_and_in_the_clipped_sum():
    """One sequence, clipped to less than its norm, has exactly that norm, whatever dropout has drawn."""
    torch.manual_seed(2)
    model = GPT(GPTConfig(_target_="lmexp.models.gpt.GPT", n_heads=2, dropout=0.5, **SIZES)).train()
    gradients, tokens = SampleGradients(model), torch.randint(0, 23, (1, 12))
    for _ in range(3):
        model.zero_grad()
        with gradients.recording(1):
            losses = losses_of(model, tokens, tokens)
        gradients.add_clipped(losses, 0.01)
        norm = torch.stack([weight.grad.norm() for weight in model.parameters() if weight.grad is not None]).norm()
        assert float(norm) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("name, length", [("gpt", 3), ("llama", 12), ("lstm, tied by a projection", 12)])
def test_clipping_takes_at_most_one_more_product_for_each_matrix(name: str, length: int):
    with torch.device("meta"):
        model = MODELS[name]()
    tokens = torch.zeros(5, length, dtype=torch.int64, device="meta")
    gradients = SampleGradients(model)
    with FlopCounterMode(display=False) as counter, gradients.recording(5):
        gradients.add_clipped(losses_of(model, tokens, tokens), 1.0)
    a_token = counter.get_total_flops() / tokens.numel()
    count = model.config.model_copy(update={"context": length}).count(None)
    of_lookups = 4 * length * SIZES["d_model"]  # products of looked-up rows with each other, and with those of the head
    assert count.flops_per_token < a_token <= count.executed(False, clips_sequences=True) + of_lookups


def test_an_lstm_step_by_step_equals_torchs_own():
    torch.manual_seed(3)
    lstm, x = nn.LSTM(5, 7, num_layers=2, batch_first=True), torch.randn(4, 6, 5)
    (output, (hidden, cell)), (expected, (last, last_cell)) = unrolled(lstm, x, []), lstm(x)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(hidden, last)
    torch.testing.assert_close(cell, last_cell)


def test_a_layer_whose_gradients_are_not_known_is_refused_by_name():
    model = nn.Sequential(nn.Linear(3, 3), nn.Conv1d(3, 3, 1))
    with pytest.raises(UserError, match="does not know the layer 1 of the model, a Conv1d"):
        SampleGradients(model)

"""Keys and values kept: the same scores as reading everything again, with each token read once."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.config.models.gpt import GPTConfig
from lmexp.models.base import Decoder
from lmexp.models.build import build_model
from lmexp.models.gpt import GPT
from lmexp.models.sampling import sample
from tests.models.test_gpt import tiny

CONTEXT = 16


def model_of(seed: int = 0, config: GPTConfig | None = None) -> GPT:
    """A model whose weights are large enough for attention to look somewhere, and for a wrong mask to show."""
    model = build_model(config or tiny(), seed).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    assert isinstance(model, GPT)
    return model


def tokens_of(batch: int, length: int = CONTEXT) -> torch.Tensor:
    return torch.randint(61, (batch, length), generator=torch.Generator().manual_seed(7))


@settings(max_examples=30, deadline=None)
@given(cuts=st.sets(st.integers(1, CONTEXT - 1)), batch=st.integers(1, 3))
def test_a_text_read_in_any_pieces_gets_the_scores_of_one_reading(cuts: set[int], batch: int):
    model, tokens = model_of(), tokens_of(batch)
    edges = [0, *sorted(cuts), CONTEXT]
    with torch.no_grad():
        cache = model.new_cache(batch)
        pieces = [model(tokens[:, a:b], cache) for a, b in pairwise(edges)]
        torch.testing.assert_close(torch.cat(pieces, 1), model(tokens), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_last_position_alone_is_the_last_of_all():
    model, tokens = model_of(), tokens_of(2)
    torch.testing.assert_close(model(tokens, last_only=True), model(tokens)[:, -1:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_token_past_the_context_is_refused_and_harms_nothing():
    model, tokens = model_of(), tokens_of(1)
    cache = model.new_cache(1)
    model(tokens[:, :-1], cache)
    with pytest.raises(ValueError, match="17 tokens are more than the model's context of 16"):
        model(tokens[:, :2], cache)
    torch.testing.assert_close(model(tokens[:, -1:], cache), model(tokens)[:, -1:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_token_without_room_in_the_cache_is_refused_and_harms_nothing():
    model, tokens = model_of(), tokens_of(1)
    cache = model.new_cache(1, capacity=4)
    model(tokens[:, :3], cache)
    with pytest.raises(ValueError, match="5 tokens are more than the cache's 4"):
        model(tokens[:, 3:5], cache)
    expected = model(tokens[:, :4])[:, -1:]
    torch.testing.assert_close(model(tokens[:, 3:4], cache), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_buffers_are_made_once_in_the_weights_type_and_hold_two_numbers_a_channel():
    model = model_of().bfloat16()
    cache = model.new_cache(3, capacity=10)
    before = [layer.keys.data_ptr() for layer in cache]
    for token in tokens_of(3, 10).split(1, 1):
        model(token, cache)
    assert [layer.keys.data_ptr() for layer in cache] == before
    assert sum(layer.nbytes for layer in cache) == 2 * 2 * 3 * 10 * 24 * 2  # k and v, layers, B, T, C, bytes


# sampling


def sampled_by_recomputing(model: GPT, prompt: list[int], count: int, context: int, seed: int) -> list[int]:
    """What `sample` is to give, in its slowest form."""
    dice, tokens = torch.Generator().manual_seed(seed), list(prompt)
    with torch.no_grad():
        for _ in range(count):
            logits = model(torch.tensor([tokens[-context:]]))[0, -1]
            tokens.append(int(torch.multinomial((logits / 0.8).softmax(-1), 1, generator=dice)))
    return tokens[len(prompt) :]


@settings(max_examples=15, deadline=None)
@given(length=st.integers(1, CONTEXT + 4), seed=st.integers(0, 100))
def test_samples_are_those_of_recomputing_within_the_context_and_past_it(length: int, seed: int):
    model = model_of()
    prompt = tokens_of(1, length)[0].tolist()
    drawn = list(sample(model, prompt, 12, CONTEXT, 0.8, seed=seed))
    assert drawn == sampled_by_recomputing(model, prompt, 12, CONTEXT, seed)


def test_sampling_reads_each_token_once_until_the_context_is_full():
    model, read = model_of(), []
    model.register_forward_pre_hook(lambda module, given: read.append(given[0].shape[1]))
    list(sample(model, [1, 2, 3], 16, CONTEXT))
    assert read == [3, *[1] * 13, 16, 16]


def test_a_model_without_a_cache_can_be_sampled_too():
    class Alone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model_of()

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.inner(tokens)

    assert isinstance(model_of(), Decoder) and not isinstance(Alone(), Decoder)
    assert list(sample(Alone(), [5], 20, CONTEXT)) == list(sample(model_of(), [5], 20, CONTEXT))

"""What every encoder-decoder keeps to: what a position may see, and that a target may be read in pieces."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.models.encdec import EncDec
from lmexp.models.lstm_encdec import LSTMEncDec
from tests.models import test_encdec, test_lstm_encdec
from tests.models.test_encdec import SOURCES, TARGETS, pairs, valid_of

Model = EncDec | LSTMEncDec
MODELS: dict[str, Callable[[], Model]] = {
    "encdec": test_encdec.model_of,
    "encdec with norms first": lambda: test_encdec.model_of(test_encdec.tiny(pre_norm=True)),
    "lstm_encdec": test_lstm_encdec.model_of,
}
of_every_family = pytest.mark.parametrize("name", MODELS)


@of_every_family
@settings(max_examples=20, deadline=None)
@given(position=st.integers(1, TARGETS - 1), token=st.integers(0, 30))
@torch.no_grad()
def test_a_later_target_token_changes_no_earlier_logit(name: str, position: int, token: int):
    model, (sources, inputs) = MODELS[name](), pairs(1)
    changed = inputs.clone()
    changed[0, position] = token
    before, after = (model(sources, None, tokens)[:, :position] for tokens in (inputs, changed))
    assert torch.equal(before, after)


@of_every_family
@settings(max_examples=20, deadline=None)
@given(data=st.data(), length=st.integers(1, SOURCES - 1), token=st.integers(0, 18))
@torch.no_grad()
def test_a_padded_source_position_changes_nothing(name: str, data: st.DataObject, length: int, token: int):
    model, (sources, inputs) = MODELS[name](), pairs(1)
    changed = sources.clone()
    changed[0, data.draw(st.integers(length, SOURCES - 1))] = token
    before, after = (model(tokens, valid_of(length), inputs) for tokens in (sources, changed))
    assert torch.equal(before, after)


@of_every_family
@torch.no_grad()
def test_every_source_position_that_is_no_padding_changes_something(name: str):
    model, (sources, inputs) = MODELS[name](), pairs(1)
    for position in range(5):
        changed = sources.clone()
        changed[0, position] = (changed[0, position] + 1) % 19
        before, after = (model(tokens, valid_of(5), inputs) for tokens in (sources, changed))
        assert (before - after).abs().amax(-1).gt(1e-4).all()


@of_every_family
@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.tuples(st.integers(1, SOURCES), st.integers(1, TARGETS)), min_size=1, max_size=4))
@torch.no_grad()
def test_a_pair_gets_the_same_logits_padded_in_a_batch_and_alone(name: str, lengths: list[tuple[int, int]]):
    model, (sources, inputs) = MODELS[name](), pairs(len(lengths))
    batch = model(sources, valid_of(*[source for source, _ in lengths]), inputs)
    for row, (source, target) in enumerate(lengths):
        alone = model(sources[row : row + 1, :source], None, inputs[row : row + 1, :target])
        torch.testing.assert_close(batch[row : row + 1, :target], alone, atol=1e-5, rtol=1e-5)


@of_every_family
def test_a_source_of_nothing_but_padding_gives_numbers_and_gradients(name: str):
    model, (sources, inputs) = MODELS[name](), pairs(2)
    logits = model(sources, valid_of(0, 3), inputs)
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@of_every_family
@settings(max_examples=30, deadline=None)
@given(cuts=st.sets(st.integers(1, TARGETS - 1)), lengths=st.lists(st.integers(1, SOURCES), min_size=1, max_size=3))
@torch.no_grad()
def test_a_target_read_in_any_pieces_gets_the_scores_of_one_reading(name: str, cuts: set[int], lengths: list[int]):
    model, (sources, inputs), valid = MODELS[name](), pairs(len(lengths)), valid_of(*lengths)
    expected = model(sources, valid, inputs)
    state = model.new_state(sources, valid, TARGETS)
    for start, end in pairwise([0, *sorted(cuts), TARGETS]):
        logits = model.next_logits(inputs[:, start:end], state)
        torch.testing.assert_close(logits, expected[:, end - 1], atol=1e-5, rtol=1e-5)


@of_every_family
@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.integers(0, 2), min_size=1, max_size=5), at=st.integers(1, TARGETS - 1))
@torch.no_grad()
def test_sequences_may_be_reordered_dropped_and_doubled_on_the_way(name: str, rows: list[int], at: int):
    model, (sources, inputs), valid = MODELS[name](), pairs(3), valid_of(9, 2, 5)
    expected = model(sources, valid, inputs)
    state = model.new_state(sources, valid)
    model.next_logits(inputs[:, :at], state)
    state.select(torch.tensor(rows))
    logits = model.next_logits(inputs[rows, at:], state)
    torch.testing.assert_close(logits, expected[rows, -1], atol=1e-5, rtol=1e-5)

"""The LSTM family: equal to torch's own modules put together by hand, causal, of the published sizes."""

import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.models.base import ModelSection
from lmexp.config.models.lstm import LSTMConfig
from lmexp.config.tasks.classify import ClassifyConfig
from lmexp.cost.flops import count_model
from lmexp.inference.measure import BatchShape, read_bytes_per_step
from lmexp.models.base import Decoder
from lmexp.models.build import build_model
from lmexp.models.lstm import LSTM
from lmexp.models.sampling import sample

CONTEXT, VOCAB = 16, 61


def tiny(**changes: object) -> LSTMConfig:
    values = {"name": "t", "n_layers": 2, "d_model": 24, "context": CONTEXT, "vocab_size": VOCAB}
    return LSTMConfig.model_validate({"_target_": "lmexp.models.lstm.LSTM", **values, **changes})


def model_of(seed: int = 0, **changes: object) -> LSTM:
    """A model with weights large enough for gates to open and shut, and for a swap of any two to show."""
    model = build_model(tiny(**changes), seed)
    assert isinstance(model, LSTM)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model.eval()


def tokens_of(batch: int, length: int = CONTEXT) -> torch.Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(7))


HEADS = {
    "tied": {},
    "tied through a projection": {"d_embedding": 10},
    "untied": {"tie_embeddings": False},
    "untied and narrow": {"tie_embeddings": False, "d_embedding": 10},
}


@pytest.mark.parametrize("changes", HEADS.values(), ids=HEADS)
def test_logits_equal_torchs_lstm_put_together_by_hand(changes: dict):
    ours, tokens = model_of(**changes), tokens_of(3)
    weights = ours.state_dict()
    table = weights["embedding.weight"]
    theirs = nn.LSTM(table.shape[1], 24, num_layers=2, batch_first=True)
    theirs.load_state_dict({name.removeprefix("lstm."): w for name, w in weights.items() if name.startswith("lstm.")})
    with torch.no_grad():
        states, _ = theirs(F.embedding(tokens, table))
        if "projection.weight" in weights:
            states = states @ weights["projection.weight"].T
        head = table if changes.get("tie_embeddings", True) else weights["head.weight"]
        torch.testing.assert_close(ours(tokens), states @ head.T, atol=1e-6, rtol=1e-6)


def test_dropout_lies_on_the_embedding_between_layers_and_on_the_output():
    plain = model_of()
    tokens = tokens_of(2)
    for name in ("dropout_embedding", "dropout", "dropout_output"):
        model = model_of(**{name: 0.5})
        assert torch.equal(model(tokens), plain(tokens)), f"{name} does something when a model is used"
        model.train()
        torch.manual_seed(1)
        once = model.hidden(tokens)
        torch.manual_seed(2)
        again = model.hidden(tokens)
        dropped = (once == 0) != (again == 0)
        assert not torch.equal(once, again), f"{name} does nothing"
        # On the output, and nowhere else, what is dropped is seen as zeros.
        assert bool(dropped.any()) == (name == "dropout_output")


def test_one_layer_has_nothing_between_layers_to_drop_and_torch_has_nothing_to_warn_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, tokens = model_of(n_layers=1, dropout=0.5).train(), tokens_of(1)
    assert torch.equal(model(tokens), model(tokens))


def test_without_its_head_a_model_has_the_same_hidden_states_and_nothing_of_the_head():
    model, tokens = model_of(d_embedding=10), tokens_of(1)
    before = model.hidden(tokens)
    model.drop_head()
    assert torch.equal(model.hidden(tokens), before) and before.shape[-1] == model.width
    assert not any("head" in name or "projection" in name for name in model.state_dict())
    assert list(model.layers()) == [model.lstm]


@settings(max_examples=20, deadline=None)
@given(position=st.integers(1, CONTEXT - 1), token=st.integers(0, VOCAB - 1), head=st.sampled_from(list(HEADS)))
def test_a_later_token_changes_no_earlier_logit(position: int, token: int, head: str):
    model = model_of(**HEADS[head])
    before = torch.arange(CONTEXT)[None] % VOCAB
    after = before.clone()
    after[0, position] = token
    with torch.no_grad():
        assert torch.equal(model(before)[:, :position], model(after)[:, :position])


def test_an_earlier_token_changes_every_later_logit():
    model, before = model_of(), tokens_of(1)
    after = before.clone()
    after[0, 3] = (after[0, 3] + 1) % VOCAB
    with torch.no_grad():
        changed = (model(before) != model(after)).any(-1)[0]
    assert changed.tolist() == [position >= 3 for position in range(CONTEXT)]


@torch.no_grad()
def test_padding_changes_nothing_before_it():
    model, tokens = model_of(), tokens_of(2)
    valid = torch.arange(CONTEXT) < torch.tensor([[9], [16]])
    padded = model(torch.where(valid, tokens, 0), valid=valid)
    torch.testing.assert_close(padded[0, :9], model(tokens[:1, :9])[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(padded[1], model(tokens[1:])[0], atol=1e-6, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(cuts=st.sets(st.integers(1, CONTEXT - 1)), batch=st.integers(1, 3))
def test_a_text_read_in_any_pieces_gets_the_scores_of_one_reading(cuts: set[int], batch: int):
    model, tokens = model_of(), tokens_of(batch)
    with torch.no_grad():
        cache = model.new_cache(batch)
        pieces = [model(tokens[:, a:b], cache) for a, b in pairwise([0, *sorted(cuts), CONTEXT])]
        assert [layer.length for layer in cache] == [CONTEXT] * 2
        torch.testing.assert_close(torch.cat(pieces, 1), model(tokens), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_a_token_past_the_context_is_refused_and_harms_nothing():
    model, tokens = model_of(), tokens_of(1)
    cache = model.new_cache(1)
    model(tokens[:, :-1], cache)
    with pytest.raises(ValueError, match="17 tokens are more than the model's context of 16"):
        model(tokens[:, :2], cache)
    torch.testing.assert_close(model(tokens[:, -1:], cache), model(tokens)[:, -1:], atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_the_state_is_two_vectors_a_layer_however_many_tokens_it_has_seen():
    model = model_of().bfloat16()
    cache = model.new_cache(3, capacity=10)
    bytes_held = []
    for token in tokens_of(3, 10).split(1, 1):
        bytes_held.append(sum(layer.nbytes for layer in cache))
        model(token, cache)
    assert set(bytes_held) == {2 * 2 * 3 * 24 * 2}  # hidden and cell, layers, B, C, bytes


def test_a_decode_step_reads_the_whole_state_whatever_it_has_seen():
    model = model_of(tie_embeddings=False)
    weights = sum(weight.numel() for weight in model.parameters()) - VOCAB * 24  # the embedding is looked up
    state = 2 * 2 * 3 * 24
    assert read_bytes_per_step(model, BatchShape(batch=3, prompt=8, new=4), 4 * state) == 4 * (weights + 3 * 24 + state)


def test_sampling_reads_each_token_once_and_draws_what_recomputing_draws():
    model, read = model_of(), []
    assert isinstance(model, Decoder)
    model.register_forward_pre_hook(lambda module, given: read.append(given[0].shape[1]))
    drawn = list(sample(model, [1, 2, 3], 16, CONTEXT, temperature=0))
    assert read == [3, *[1] * 13, 16, 16]
    tokens = [1, 2, 3]
    with torch.no_grad():
        for _ in range(16):
            tokens.append(int(model(torch.tensor([tokens[-CONTEXT:]]))[0, -1].argmax()))
    assert drawn == tokens[3:]


def test_weights_start_uniform_and_forget_gates_open():
    model = build_model(tiny(d_embedding=10), 3)
    assert isinstance(model, LSTM)
    bound = 24**-0.5
    for name, weight in model.named_parameters():
        if "bias" not in name:
            assert 0.9 * bound < weight.abs().max() <= bound, name
    gates = (model.lstm.bias_ih_l1 + model.lstm.bias_hh_l1).view(4, 24)  # input, forget, cell, output
    assert gates.tolist() == [[g] * 24 for g in (0.0, 1.0, 0.0, 0.0)]
    again, other = (build_model(tiny(d_embedding=10), seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(weight, again[name]) for name, weight in model.state_dict().items())
    assert not torch.equal(model.state_dict()["head.weight"], other["head.weight"])


@pytest.mark.parametrize("changes", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("shape", [{"n_layers": 1, "d_model": 16}, {"n_layers": 3, "d_model": 48, "context": 32}])
def test_training_flops_equal_what_torch_counts_on_meta_tensors(shape: dict, changes: dict):
    config = tiny(**shape, **changes)
    with torch.device("meta"):  # on CPU tensors the counter does not see into an LSTM
        model = LSTM(config)
        tokens = torch.zeros(3, config.context, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
    count = count_model(config)
    assert counter.get_total_flops() == count.flops_per_token * 3 * config.context
    # Six a matrix's parameter, but for the gradient of the empty first state.
    unneeded = 8 * config.n_layers * config.d_model**2 / config.context
    assert count.flops_per_token == 6 * count.n_params_matmul - unneeded


@pytest.mark.parametrize("changes", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("task", [None, "classify"])
def test_counted_parameters_are_the_models(changes: dict, task: str | None):
    config = tiny(n_layers=3, **changes)
    asked = None
    if task:
        asked = ClassifyConfig.model_validate({"_target_": "lmexp.tasks.classify.Classify", "labels": ["a", "b", "c"]})
    count = count_model(config, asked)
    model = build_model(config, 0, asked)
    assert sum(weight.numel() for weight in model.parameters()) == count.n_params
    assert VOCAB * config.embedding_width == count.n_params_embedding


# Parameters with Penn Treebank's 10,000 words, as tables of later papers give them, rounded to millions.
PUBLISHED = {"lstm_zaremba_medium": 20e6, "lstm_zaremba_large": 66e6}


def composed(*words: str) -> ModelSection:
    return Composer(paths.search_roots(), words=list(words)).config({}).model


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_their_published_parameters(name: str):
    count = count_model(composed(f"model={name}", "model.vocab_size=10000"))
    assert round(count.n_params, -6) == PUBLISHED[name]


@pytest.mark.parametrize("size", ["nano", "tiny"])
def test_sizes_for_trying_out_have_as_many_parameters_as_their_gpt(size: str):
    ours, gpt = (count_model(composed(f"model={family}_{size}", "model.vocab_size=257")) for family in ("lstm", "gpt"))
    assert ours.n_params == pytest.approx(gpt.n_params, rel=0.01)

"""Models of the transformers library: theirs to the last bit, by our names, and no code of strangers."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.config.hf import special_tokens
from lmexp.config.models.hf import HFConfig
from lmexp.config.tasks.classify import ClassifyConfig
from lmexp.cost.flops import count_model
from lmexp.cost.hf import describe, fingerprint, measure
from lmexp.errors import UserError
from lmexp.models.base import Decoder
from lmexp.models.build import build_model
from lmexp.models.decoding import decode
from lmexp.models.hf import HFModel, HFSeq2Seq
from lmexp.models.sampling import sample
from tests.models.hf_models import (
    ARCHITECTURES,
    BOTH,
    CONTEXT,
    DECODERS,
    ENCODERS,
    STACK,
    VOCAB,
    fresh,
    model_of,
    pretrained,
    tokens_of,
)

# The library's numbers


@torch.no_grad()
def test_logits_of_a_folder_equal_the_librarys(folders: dict[str, Path]):
    from transformers import BertForMaskedLM, GPT2LMHeadModel, T5ForConditionalGeneration

    tokens, sources = tokens_of(3), tokens_of(3, seed=8)
    valid = torch.arange(CONTEXT) < torch.tensor([[9], [16], [1]])
    causal, masked, pairs = (build_model(pretrained(folders[p], p), 0).eval() for p in ("causal", "masked", "seq2seq"))
    assert torch.equal(causal(tokens), GPT2LMHeadModel.from_pretrained(folders["causal"])(tokens).logits)
    theirs = BertForMaskedLM.from_pretrained(folders["masked"])(tokens, attention_mask=valid.long())
    assert torch.equal(masked(tokens, valid=valid), theirs.logits)
    theirs = T5ForConditionalGeneration.from_pretrained(folders["seq2seq"])(
        input_ids=sources, attention_mask=valid.long(), decoder_input_ids=tokens
    )
    assert torch.equal(pairs(sources, valid, tokens), theirs.logits)


@torch.no_grad()
@pytest.mark.parametrize("name", DECODERS + ENCODERS)
def test_logits_are_those_of_the_hidden_states(name: str):
    model, tokens = model_of(name), tokens_of(2)
    hidden = model.hidden(tokens)
    assert hidden.shape == (2, CONTEXT, model.width)
    torch.testing.assert_close(model.logits(hidden), model(tokens), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.logits(hidden[1, 3]), model(tokens)[1, 3], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model(tokens, last_only=True), model(tokens)[:, -1:], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=5, deadline=None)
@given(position=st.integers(1, CONTEXT - 1), token=st.integers(0, VOCAB - 1))
def test_a_later_token_changes_no_earlier_logit(name: str, position: int, token: int):
    model, before = model_of(name), tokens_of(1)
    after = before.clone()
    after[0, position] = token
    with torch.no_grad():
        torch.testing.assert_close(model(before)[:, :position], model(after)[:, :position], atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", DECODERS + ENCODERS)
def test_padding_changes_nothing_before_it(name: str):
    model, tokens = model_of(name), tokens_of(2)
    valid = torch.arange(CONTEXT) < torch.tensor([[9], [16]])
    padded = model(torch.where(valid, tokens, 0), valid=valid)
    torch.testing.assert_close(padded[0, :9], model(tokens[:1, :9])[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(padded[1], model(tokens[1:])[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=5, deadline=None)
@given(cuts=st.sets(st.integers(1, CONTEXT - 1)), batch=st.integers(1, 3))
def test_a_text_read_in_any_pieces_gets_the_scores_of_one_reading(name: str, cuts: set[int], batch: int):
    model, tokens = model_of(name), tokens_of(batch)
    with torch.no_grad():
        cache = model.new_cache(batch)
        pieces = [model(tokens[:, a:b], cache) for a, b in pairwise([0, *sorted(cuts), CONTEXT])]
        torch.testing.assert_close(torch.cat(pieces, 1), model(tokens), atol=1e-5, rtol=1e-5)
    assert [layer.length for layer in cache] == [CONTEXT] * 2


def test_a_cache_holds_the_bytes_of_the_keys_and_values_it_has_seen():
    model = model_of("llama")
    cache = model.new_cache(3)
    with torch.no_grad():
        model.hidden(tokens_of(3, 5), cache)
    assert [layer.nbytes for layer in cache] == [2 * 3 * 5 * 16 * 4] * 2  # k and v, B, T, 2 heads of 8, bytes
    assert [layer.length for layer in cache] == [5, 5]


def test_a_token_past_the_context_is_refused():
    model = model_of("gpt2")
    cache = model.new_cache(1)
    with torch.no_grad():
        model(tokens_of(1, 15), cache)
    with pytest.raises(ValueError, match="17 tokens are more than the model's context of 16"):
        model(tokens_of(1, 2), cache)
    with pytest.raises(ValueError, match="17 tokens are more than the model's context of 16"):
        model_of("t5")(tokens_of(1), None, tokens_of(1, 17))


def test_sampling_reads_each_token_once_until_the_context_is_full():
    model, read = model_of("gpt2"), []
    assert isinstance(model, Decoder)
    model.register_forward_pre_hook(lambda module, given: read.append(given[0].shape[1]))
    list(sample(model, [1, 2, 3], 16, CONTEXT))
    assert read == [3, *[1] * 13, 16, 16]


@torch.no_grad()
@pytest.mark.parametrize("name", BOTH)
def test_a_target_written_token_by_token_gets_the_scores_of_one_reading(name: str):
    model, sources, targets = model_of(name), tokens_of(2), tokens_of(2, seed=8)
    assert isinstance(model, HFSeq2Seq)
    valid = torch.arange(CONTEXT) < torch.tensor([[9], [16]])
    whole = model(sources, valid, targets)
    torch.testing.assert_close(whole[:1], model(sources[:1, :9], None, targets[:1]), atol=1e-5, rtol=1e-5)
    assert model.encode(sources, valid).shape == (2, CONTEXT, model.width)
    rows = torch.tensor([1, 0, 0])
    state = model.new_state(sources, valid)
    state.select(rows)
    for position in range(5):
        scores = model.next_logits(targets[rows, position : position + 1], state)
        torch.testing.assert_close(scores, whole[rows, position], atol=1e-5, rtol=1e-5)
        state.select(torch.tensor([0, 2, 1]))
    assert state.length == 5


def test_greedy_decoding_writes_what_the_library_writes(folders: dict[str, Path]):
    model = build_model(pretrained(folders["seq2seq"], "seq2seq"), 0).eval()
    sources, valid = tokens_of(3), torch.arange(CONTEXT) < torch.tensor([[9], [16], [4]])
    ours = decode(model, sources, valid, torch.zeros(3, dtype=torch.int64), eos=1, limit=8)
    theirs = model.model.generate(
        sources,
        attention_mask=valid.long(),
        max_new_tokens=8,
        do_sample=False,
        decoder_start_token_id=0,
        eos_token_id=1,
    )
    written = [row.tolist()[1:] for row in theirs]
    assert ours == [row[: row.index(1)] if 1 in row else row for row in written]


# How it starts


def test_fresh_weights_are_a_function_of_the_seed_and_start_to_be_trained():
    first, again, other = (build_model(fresh("gpt2"), seed) for seed in (3, 3, 4))
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in first.state_dict().items())
    assert not torch.equal(first.model.lm_head.weight, other.model.lm_head.weight)
    assert all(module.training for module in first.modules())


def test_pretrained_weights_are_read_in_float32_and_with_their_dropout_on(folders: dict[str, Path]):
    from transformers import GPT2LMHeadModel

    half = GPT2LMHeadModel.from_pretrained(folders["causal"], dtype=torch.bfloat16)
    half.save_pretrained(folders["causal"])
    model = build_model(pretrained(folders["causal"]), 0)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert torch.equal(model.model.lm_head.weight, half.lm_head.weight.float())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("name", ENCODERS)
def test_no_token_of_a_fresh_model_is_left_untrained(name: str):
    model = build_model(fresh(name), 0)
    model.hidden(torch.zeros(1, 4, dtype=torch.int64)).square().sum().backward()
    assert model.model.get_input_embeddings().weight.grad[0].abs().sum() > 0


@pytest.mark.parametrize("name", DECODERS + ENCODERS)
def test_layers_are_the_transformers_blocks(name: str):
    model = model_of(name)
    assert len(list(model.layers())) == 2
    blocks = sum(weight.numel() for layer in model.layers() for weight in layer.parameters())
    outside = {id(w) for layer in model.layers() for w in layer.parameters()}
    left = [name for name, weight in model.named_parameters() if id(weight) not in outside]
    assert blocks and all(any(word in name for word in OUTSIDE) for name in left), left


OUTSIDE = ("embed", "wte", "wpe", "ln_f", "norm", "head", "cls", "vocab", "project")


def test_another_head_takes_the_place_of_the_librarys():
    labels = ClassifyConfig.model_validate({"_target_": "lmexp.tasks.classify.Classify", "labels": ["a", "b", "c"]})
    for name in DECODERS + ENCODERS:
        config = describe(fresh(name))
        config = config.model_copy(update={"size": measure(config)})
        model = build_model(config, 0, labels)
        assert model(tokens_of(2), torch.ones(2, CONTEXT, dtype=torch.bool)).shape == (2, 3)
        assert sum(weight.numel() for weight in model.parameters()) == count_model(config, labels).n_params, name


@pytest.mark.parametrize("predicts", ["causal", "masked"])
def test_a_finished_model_needs_its_folder_no_more(folders: dict[str, Path], tmp_path: Path, predicts: str):
    config = pretrained(folders[predicts], predicts)
    model = build_model(config, 0).eval()
    kept = describe(config.model_copy(update={"fingerprint": fingerprint(config)})).model_dump_json()
    folders[predicts].rename(tmp_path / "gone")
    alone = build_model(HFConfig.model_validate_json(kept).without_weights(), 1).eval()
    assert {name: w.shape for name, w in model.named_parameters()} == {n: w.shape for n, w in alone.named_parameters()}
    alone.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model(tokens_of(2)), alone(tokens_of(2)))


def test_targets_of_a_pretrained_model_start_and_end_as_its_config_says(folders: dict[str, Path], tmp_path: Path):
    config = pretrained(folders["seq2seq"], "seq2seq")
    found = describe(config.model_copy(update={"fingerprint": fingerprint(config)}))
    folders["seq2seq"].rename(tmp_path / "gone")
    assert special_tokens(found) == (0, 1)


def test_a_config_that_does_not_say_what_starts_a_target_is_named(folders: dict[str, Path]):
    file = folders["seq2seq"] / "config.json"
    published = json.loads(file.read_text())
    del published["decoder_start_token_id"]
    file.write_text(json.dumps(published))
    config = pretrained(folders["seq2seq"], "seq2seq")
    found = describe(config.model_copy(update={"fingerprint": fingerprint(config)}))
    with pytest.raises(UserError, match="its config lacks decoder_start_token_id"):
        special_tokens(found)


# Positions that are told by the padding

BY_PADDING = {
    "roberta": {},
    "mpnet": {},
    "xlm-roberta": {},
    "longformer": {"attention_window": 4},
    "esm": {"vocab_size": VOCAB, "mask_token_id": 2, "pad_token_id": 1, "emb_layer_norm_before": False},
}


def by_padding(name: str, positions: int, **changes: object) -> HFConfig:
    config = {**STACK, "max_position_embeddings": positions, **BY_PADDING[name]}
    return fresh("roberta", model_type=name, config=config, **changes)


@torch.no_grad()
@pytest.mark.parametrize("name", BY_PADDING)
def test_in_a_fresh_model_the_padding_token_is_a_token_like_others(name: str):
    model = build_model(by_padding(name, CONTEXT + 2), 0).eval()
    assert isinstance(model, HFModel)
    table = model.model.get_input_embeddings().weight
    table[1] = table[7]  # 1 is the library's padding token
    tokens = torch.where(tokens_of(2) < 20, 7, tokens_of(2))
    assert (tokens == 7).any()
    theirs = model(torch.where(tokens == 7, 1, tokens))
    torch.testing.assert_close(model(tokens), theirs, atol=1e-6, rtol=1e-5)
    # And the positions are those that the library gives a text without that token.
    library = model.model(input_ids=tokens).logits
    torch.testing.assert_close(theirs, library, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", BY_PADDING)
def test_positions_before_the_first_tokens_are_none_to_use(name: str):
    config = by_padding(name, CONTEXT)
    for what in (measure, lambda config: build_model(config, 0)):
        with pytest.raises(
            UserError, match=rf"context={CONTEXT} is more than the {CONTEXT - 2} positions of this {name}"
        ):
            what(config)
    with torch.no_grad():
        model = build_model(by_padding(name, CONTEXT, context=CONTEXT - 2), 0)
        assert model(tokens_of(1, CONTEXT - 2)).isfinite().all()


@torch.no_grad()
def test_a_decoder_whose_positions_are_told_by_the_padding_reads_a_text_in_pieces():
    config = fresh("roberta", predicts="causal", config={**ARCHITECTURES["roberta"][1], "is_decoder": True})
    model, tokens = build_model(config, 0).eval(), tokens_of(2)
    tokens[:, 3] = 1
    cache = model.new_cache(2)
    pieces = torch.cat([model(piece, cache) for piece in tokens.split(5, 1)], 1)
    torch.testing.assert_close(pieces, model(tokens), atol=1e-5, rtol=1e-5)

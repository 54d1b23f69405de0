"""Models of the transformers library: theirs to the last bit, by our names, and no code of strangers."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lmexp.config import paths
from lmexp.config.compose import Composer
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
from lmexp.train.training import _model as first_model

CONTEXT, VOCAB = 16, 61
STACK = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
T5 = {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 64}
PAIRS = {f"{side}_{part}": n for side in ("encoder", "decoder")
         for part, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))}  # fmt: skip
ARCHITECTURES: dict[str, tuple[str, dict]] = {
    "gpt2": ("causal", {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": CONTEXT}),
    "llama": ("causal", {**STACK, "num_key_value_heads": 2}),
    "gemma2": ("causal", {**STACK, "num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 0.1}),
    "opt": ("causal", {**STACK, "ffn_dim": 64, "word_embed_proj_dim": 24}),
    "mixtral": ("causal", {**STACK, "num_key_value_heads": 2, "num_local_experts": 4}),
    "bert": ("masked", STACK),
    "roberta": ("masked", {**STACK, "max_position_embeddings": CONTEXT + 2}),  # two come before the first token's
    "distilbert": ("masked", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    "t5": ("seq2seq", T5),
    "bart": ("seq2seq", {"d_model": 32, **PAIRS}),
}
DECODERS = [name for name, (predicts, _) in ARCHITECTURES.items() if predicts == "causal"]
ENCODERS = [name for name, (predicts, _) in ARCHITECTURES.items() if predicts == "masked"]
BOTH = [name for name, (predicts, _) in ARCHITECTURES.items() if predicts == "seq2seq"]


def fresh(name: str, **changes: object) -> HFConfig:
    predicts, config = ARCHITECTURES[name]
    config = {key: value for key, value in config.items() if not (name == "opt" and key == "intermediate_size")}
    values = {"name": name, "model_type": name, "predicts": predicts, "config": config, "vocab_size": VOCAB}
    return HFConfig.model_validate({"_target_": "lmexp.models.hf.HFModel", "context": CONTEXT, **values, **changes})


def pretrained(folder: Path | str, predicts: str = "causal", **changes: object) -> HFConfig:
    values = {"name": "hf", "pretrained": str(folder), "predicts": predicts, "context": CONTEXT}
    return HFConfig.model_validate({"_target_": "lmexp.models.hf.HFModel", **values, **changes})


def model_of(name: str, **changes: object) -> HFModel:
    """A model with weights large enough for attention to look somewhere, and for a wrong mask to show."""
    model = build_model(fresh(name, **changes), seed=0).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def tokens_of(batch: int, length: int = CONTEXT, seed: int = 7) -> torch.Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


PUBLISHED = {
    "causal": {"n_ctx": CONTEXT, "task_specific_params": {"text-generation": {"do_sample": True}}},
    "masked": {"gradient_checkpointing": False, "directionality": "bidi", "pooler_type": "first_token_transform"},
    "seq2seq": {
        "n_positions": 512,
        "output_past": True,
        "task_specific_params": {"summarization": {"num_beams": 4}},
        "decoder_start_token_id": 0,
    },
}
"""What published files of such models say besides, which the library's classes do not know."""


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Models that the library itself has made and saved."""
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        GPT2Config,
        GPT2LMHeadModel,
        T5Config,
        T5ForConditionalGeneration,
    )

    torch.manual_seed(5)
    made = {
        "causal": GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, **ARCHITECTURES["gpt2"][1])),
        "masked": BertForMaskedLM(BertConfig(vocab_size=VOCAB, **STACK)),
        "seq2seq": T5ForConditionalGeneration(T5Config(vocab_size=VOCAB, **T5)),
    }
    for name, model in made.items():
        model.save_pretrained(tmp_path / name)
        config = tmp_path / name / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | PUBLISHED[name]))
    return {name: tmp_path / name for name in made}


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


# What is refused


def test_pickles_are_not_read(folders: dict[str, Path]):
    weights = folders["causal"] / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    for what in (lambda config: build_model(config, 0), fingerprint):
        with pytest.raises(UserError, match=r"has pytorch_model.bin, which is not read: pickles can run code"):
            what(pretrained(folders["causal"]))
    weights.with_name("pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="has no weights"):
        build_model(pretrained(folders["causal"]), 0)


CODE = """
from pathlib import Path
from transformers import GPT2Config, GPT2LMHeadModel
Path({marker!r}).touch()
class OwnConfig(GPT2Config):
    model_type = "own"
class OwnModel(GPT2LMHeadModel):
    config_class = OwnConfig
"""


def test_code_that_comes_with_a_model_runs_only_where_the_config_says_so(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import transformers.dynamic_module_utils

    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, marker = folders["causal"], tmp_path / "ran"
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": code}))
    for what in (describe, lambda config: build_model(config, 0)):
        with pytest.raises(UserError, match=r"needs code .*: own.py. model.trust_remote_code=true runs it, and it can"):
            what(pretrained(folder))
    assert not marker.exists()
    with torch.no_grad():
        assert build_model(pretrained(folder, trust_remote_code=True), 0)(tokens_of(1)).shape == (1, CONTEXT, VOCAB)
    assert marker.exists()
    trained = build_model(pretrained(folder, trust_remote_code=True), 0).eval()
    known = describe(pretrained(folder, trust_remote_code=True, fingerprint="x"))
    again = build_model(known.without_weights(), 1).eval()  # as a finished run builds it, before it reads its weights
    assert not torch.equal(again(tokens_of(1)), trained(tokens_of(1)))
    again.load_state_dict(trained.state_dict())
    assert torch.equal(again(tokens_of(1)), trained(tokens_of(1)))


def test_code_that_is_not_needed_is_not_run(folders: dict[str, Path]):
    config = json.loads((folders["causal"] / "config.json").read_text())
    code = {"AutoModelForCausalLM": "nowhere.Model"}
    (folders["causal"] / "config.json").write_text(json.dumps(config | {"auto_map": code}))
    assert type(build_model(pretrained(folders["causal"]), 0).model).__name__ == "GPT2LMHeadModel"


def test_a_kernel_of_the_hub_is_code_too(folders: dict[str, Path]):
    path = folders["causal"] / "config.json"
    plain = json.loads(path.read_text())
    for asked in (
        {"_attn_implementation": "some/kernel"},
        {"attn_implementation": {"": "paged|some/kernel"}},
        {"experts_implementation": "some/kernel"},
        {"text_config": {"_attn_implementation_internal": "some/kernel"}},
    ):
        path.write_text(json.dumps(plain | asked))
        for what in (describe, lambda config: build_model(config, 0)):
            with pytest.raises(
                UserError, match=r"asks for code of the hub: .*some/kernel.*model.trust_remote_code=true"
            ):
                what(pretrained(folders["causal"]))
    path.write_text(json.dumps(plain))
    asked = {"_attn_implementation": "some/kernel"}
    for config in (
        pretrained(folders["causal"], config=asked),
        fresh("gpt2", config=asked),
        fresh("gpt2", config=asked, fingerprint="of a folder that is gone"),
    ):
        with pytest.raises(UserError, match=r"model.trust_remote_code=true runs it"):
            build_model(config, 0)
    path.write_text(json.dumps(plain | {"_attn_implementation": "eager"}))
    build_model(pretrained(folders["causal"]), 0)


def test_an_encoder_that_would_see_what_it_predicts_is_refused():
    for what in (measure, lambda config: build_model(config, 0)):
        with pytest.raises(UserError, match="this bert would see the tokens that it predicts"):
            what(fresh("bert", predicts="causal"))
    assert build_model(fresh("bert", predicts="causal", config={**STACK, "is_decoder": True}), 0)
    # One whose modules do not say so.
    xlnet = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}
    with pytest.raises(UserError, match="this xlnet would see the tokens that it predicts"):
        build_model(fresh("gpt2", model_type="xlnet", config=xlnet), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": None}, "needs model.model_type .* or model.pretrained"),
        ({"model_type": "gpt2x"}, "model.model_type=gpt2x is no architecture of transformers. Did you mean 'gpt2'?"),
        ({"config": {"n_layr": 2}}, "model.config.n_layr: gpt2 has no such key. Did you mean 'n_layer'?"),
        ({"config": {"n_layer": "two"}}, "model.config does not make a gpt2: .*n_layer.* expected int, got str"),
        ({"predicts": "masked"}, "model.predicts=masked: transformers .* has no such head for gpt2"),
        ({"context": 17}, "model.context=17 is more than the 16 positions of this gpt2"),
        (
            {"config": {"vocab_size": 60, "n_positions": 16}},
            "model.vocab_size=61, and the model's own vocabulary has 60 tokens",
        ),
    ],
)
def test_a_wrong_request_is_one_short_message(changes: dict, message: str):
    with pytest.raises(UserError, match=message) as raised:
        build_model(fresh("gpt2", **changes), 0)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_a_folder_that_cannot_be_read_is_one_short_message(folders: dict[str, Path], tmp_path: Path):
    with pytest.raises(UserError, match="no such folder"):
        build_model(pretrained(tmp_path / "nothing"), 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"the folder has no config.json"):
        build_model(pretrained(tmp_path / "empty"), 0)
    with pytest.raises(UserError, match=r"model.model_type=bert, and .* is a gpt2"):
        build_model(pretrained(folders["causal"], model_type="bert"), 0)
    with pytest.raises(UserError, match="cannot load "):
        (folders["causal"] / "model.safetensors").write_bytes(b"broken")
        build_model(pretrained(folders["causal"]), 0)


def test_weights_that_are_missing_are_not_drawn_in_silence(folders: dict[str, Path]):
    for name, head in (("masked", "cls."), ("seq2seq", "lm_head.")):  # the second is tied
        file = folders[name] / "model.safetensors"
        weights = load_file(file)
        without_head = {name: weight for name, weight in weights.items() if not name.startswith(head)}
        save_file(without_head, file, {"format": "pt"})
        drawn = build_model(pretrained(folders[name], name), 0).drawn
        assert set(drawn) >= weights.keys() - without_head.keys() and all(name.startswith(head) for name in drawn)
        body = next(name for name in weights if "layer.1." in name or "block.1." in name)
        save_file({key: weight for key, weight in weights.items() if key != body}, file, {"format": "pt"})
        with pytest.raises(UserError, match=f"has no weights for {body}"):
            build_model(pretrained(folders[name], name), 0)


def test_training_says_that_a_head_starts_fresh(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]):
    file = folders["masked"] / "model.safetensors"
    weights = {name: weight for name, weight in load_file(file).items() if not name.startswith("cls.")}
    save_file(weights, file, {"format": "pt"})
    words = ["model=hf_pretrained", f"model.pretrained={folders['masked']}", "model.predicts=masked"]
    config = Composer(paths.search_roots(), words=[*words, "model.context=16", "task=masked_lm"]).config({})
    first_model(config)
    assert "has no weights for its head over the vocabulary: it starts fresh" in capsys.readouterr().out


def test_a_masked_model_continues_no_text():
    with pytest.raises(UserError, match="bert keeps no keys and values"):
        model_of("bert").new_cache(1)


def test_the_library_leaves_nothing_in_the_log(folders: dict[str, Path]):
    """Special tokens outside of the vocabulary, heads without weights and long texts make it talk elsewhere."""
    code = """
import torch
from lmexp.config.models.hf import HFConfig
from lmexp.cost.hf import describe, measure
from lmexp.models.build import build_model
known = {"_target_": "lmexp.models.hf.HFModel", "name": "t", "context": 16, "predicts": "causal"}
shape = {"n_layer": 1, "n_embd": 8, "n_head": 2}
fresh = HFConfig.model_validate({**known, "model_type": "gpt2", "vocab_size": 61, "config": shape})
measure(describe(fresh))
build_model(fresh, 0)(torch.zeros(1, 16, dtype=torch.int64)).sum().backward()
build_model(HFConfig.model_validate({**known, "pretrained": FOLDER}), 0)(torch.zeros(1, 16, dtype=torch.int64))
"""
    code = code.replace("FOLDER", repr(str(folders["causal"])))
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

"""BERT there and back: equal logits through the files that transformers writes and reads."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig as TheirConfig
from transformers import BertForMaskedLM, BertForPreTraining

from lmexp.errors import UserError
from lmexp.models.bert import Bert
from lmexp.models.exchange.bert import from_hf, to_hf
from lmexp.models.stacked import split_parts
from tests.models.test_bert import disturbed, padded

TOKENS = torch.randint(61, (3, 16), generator=torch.Generator().manual_seed(0))
VALID = padded([16, 9, 1], 16)


def their_model(kind: type = BertForMaskedLM, **changes: Any) -> Any:
    """A model of theirs, whose biases, norms and segments are away from 0 and 1."""
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    torch.manual_seed(0)
    model = kind(TheirConfig(**{"vocab_size": 61, "max_position_embeddings": 16, **sizes, **changes})).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")


def loaded(settings: dict[str, Any], weights: dict[str, Tensor]) -> Bert:
    config, state = from_hf(settings, weights)
    model = Bert(config).eval()
    model.load_state_dict(state)
    return model


@torch.no_grad()
def assert_equal_logits(ours: Bert, theirs: BertForMaskedLM) -> None:
    expected = theirs(TOKENS, attention_mask=VALID.long()).logits[VALID]
    torch.testing.assert_close(ours(TOKENS, valid=VALID)[VALID], expected, atol=1e-5, rtol=1e-5)


def test_our_model_is_read_by_transformers_with_equal_logits(tmp_path: Path):
    ours = disturbed(d_ff=40, norm_eps=1e-3)
    settings, weights = to_hf(ours)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    theirs, said = BertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"] and not said["mismatched_keys"]
    assert_equal_logits(ours, theirs.eval())


def test_their_model_is_read_by_us_with_equal_logits(tmp_path: Path):
    theirs = their_model(layer_norm_eps=1e-3, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    theirs.save_pretrained(tmp_path)
    ours = loaded(*read(tmp_path))
    assert (ours.config.norm_eps, ours.config.dropout, ours.config.d_ff) == (1e-3, 0.2, 40)
    assert_equal_logits(ours, theirs)


def test_there_and_back_is_the_same_model(tmp_path: Path):
    ours = disturbed()
    settings, weights = to_hf(ours)
    theirs = BertForMaskedLM(TheirConfig(**settings))
    theirs.load_state_dict(weights, strict=False)
    theirs.tie_weights()
    theirs.save_pretrained(tmp_path)
    config, state = from_hf(*read(tmp_path), name="t")
    assert config == ours.config.model_copy(update={"d_ff": ours.config.d_feed_forward})
    expected = split_parts(ours.state_dict(), ours)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], weight) for name, weight in expected.items())


def test_weights_of_pretraining_under_their_first_names_are_read(tmp_path: Path):
    theirs = their_model(BertForPreTraining)
    theirs.save_pretrained(tmp_path)
    settings, weights = read(tmp_path)
    first = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for name in list(weights):
        for new, old in first.items():
            if name.endswith(new):
                weights[name.replace(new, old)] = weights.pop(name)
    assert any(name.endswith("gamma") for name in weights) and "bert.pooler.dense.weight" in weights
    with torch.no_grad():
        expected = theirs(TOKENS).prediction_logits
        torch.testing.assert_close(loaded(settings, weights)(TOKENS), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_act": "relu"}, "hidden_act=relu is not supported, only gelu"),
        ({"model_type": "roberta"}, "model_type=roberta is not supported, only bert"),
        ({"is_decoder": True}, "is_decoder=True is not supported, only False"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type=relative_key"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ({"hidden_dropout_prob": 0.3}, "attention_probs_dropout_prob=0.1 differs from hidden_dropout_prob=0.3"),
        ({"hidden_sise": 24}, "'hidden_sise' is unknown here. Did you mean 'hidden_size'?"),
    ],
)
def test_a_setting_that_is_not_done_here_is_refused_by_name(changes: dict, said: str):
    settings, weights = to_hf(disturbed())
    with pytest.raises(UserError) as refused:
        from_hf(settings | changes, weights)
    assert said in str(refused.value)


@pytest.mark.parametrize("key", ["hidden_size", "max_position_embeddings", "vocab_size"])
def test_a_size_that_is_missing_is_named(key: str):
    settings, weights = to_hf(disturbed())
    del settings[key]
    with pytest.raises(UserError, match=f"'{key}' is missing"):
        from_hf(settings, weights)


def test_a_weight_that_is_missing_misshapen_or_unknown_is_named():
    settings, weights = to_hf(disturbed())
    layer = "bert.encoder.layer.1.intermediate.dense.weight"
    with pytest.raises(UserError, match=r"lack 'blocks.1.up.weight'"):
        from_hf(settings, {name: weight for name, weight in weights.items() if name != layer})
    with pytest.raises(UserError, match=r"'blocks.1.up.weight' is \(3, 24\), and \(96, 24\) by the config"):
        from_hf(settings, weights | {layer: torch.zeros(3, 24)})
    with pytest.raises(UserError, match=r"'bert.encoder.layer.2.output.dense.bias' is unknown"):
        from_hf(settings, weights | {"bert.encoder.layer.2.output.dense.bias": torch.zeros(24)})
    without_head = {name: weight for name, weight in weights.items() if name.startswith("bert.")}
    with pytest.raises(UserError, match=r"lack 'head"):
        from_hf(settings, without_head)

"""GPT there and back: equal logits through the files that transformers writes and reads."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from lmexp.errors import UserError
from lmexp.models.build import build_model
from lmexp.models.exchange.gpt import from_hf, to_hf
from lmexp.models.gpt import GPT
from tests.models.test_gpt import tiny

TOKENS = torch.randint(61, (3, 16), generator=torch.Generator().manual_seed(0))


def disturbed(**changes: object) -> GPT:
    """A model whose biases and norms are away from 0 and 1, so that a swap would show."""
    model = build_model(tiny(**changes), seed=1).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    assert isinstance(model, GPT)
    return model


def their_model(**changes: Any) -> GPT2LMHeadModel:
    sizes = {"vocab_size": 61, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 3}
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**{**sizes, **changes})).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")


def loaded(settings: dict[str, Any], weights: dict[str, Tensor]) -> GPT:
    config, state = from_hf(settings, weights)
    model = GPT(config).eval()
    model.load_state_dict(state)
    return model


@torch.no_grad()
def assert_equal_logits(ours: GPT, theirs: GPT2LMHeadModel) -> None:
    torch.testing.assert_close(ours(TOKENS), theirs(TOKENS).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tie", [True, False])
def test_our_model_is_read_by_transformers_with_equal_logits(tmp_path: Path, tie: bool, bias: bool):
    ours = disturbed(d_ff=40, tie_embeddings=tie, bias=bias)
    settings, weights = to_hf(ours)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    theirs, said = GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"] and not said["mismatched_keys"]
    assert_equal_logits(ours, theirs.eval())


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("n_inner", [None, 40])
def test_their_model_is_read_by_us_with_equal_logits(tmp_path: Path, n_inner: int | None, tie: bool):
    theirs = their_model(n_inner=n_inner, tie_word_embeddings=tie)
    theirs.save_pretrained(tmp_path)
    ours = loaded(*read(tmp_path))
    assert ours.config.tie_embeddings is tie and ours.config.dropout == 0.1
    assert_equal_logits(ours, theirs)


@pytest.mark.parametrize("tie", [True, False])
def test_there_and_back_is_the_same_model(tmp_path: Path, tie: bool):
    ours = disturbed(tie_embeddings=tie)
    settings, weights = to_hf(ours)
    theirs = GPT2LMHeadModel(GPT2Config(**settings))
    theirs.load_state_dict(weights, strict=False)
    theirs.tie_weights()
    theirs.save_pretrained(tmp_path)
    config, state = from_hf(*read(tmp_path), name="t")
    assert config == ours.config.model_copy(update={"d_ff": ours.config.d_feed_forward})
    assert state.keys() == ours.state_dict().keys()
    assert all(torch.equal(state[name], weight) for name, weight in ours.state_dict().items())


def test_weights_as_they_were_first_published_are_read(tmp_path: Path):
    theirs = their_model()
    theirs.save_pretrained(tmp_path)
    settings, weights = read(tmp_path)
    first = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    first |= {f"h.{layer}.attn.bias": torch.ones(1, 1, 16, 16).tril() for layer in range(2)}  # causal masks
    assert_equal_logits(loaded(settings | {"n_ctx": 16}, first), theirs)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activation_function": "relu"}, "activation_function=relu is not supported, only gelu_new or"),
        ({"model_type": "gpt_neo"}, "model_type=gpt_neo is not supported, only gpt2"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon=1e-06 is not supported, only 1e-05"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ({"scale_attn_weights": False}, "scale_attn_weights=False"),
        ({"attn_pdrop": 0.3}, "attn_pdrop=0.3 differs from resid_pdrop=0.0"),
        ({"n_embed": 24}, "'n_embed' is unknown here. Did you mean 'n_embd'?"),
    ],
)
def test_a_setting_that_is_not_done_here_is_refused_by_name(changes: dict, said: str):
    settings, weights = to_hf(disturbed())
    with pytest.raises(UserError) as refused:
        from_hf(settings | changes, weights)
    assert said in str(refused.value)


def test_settings_that_libraries_leave_behind_are_no_obstacle():
    settings, weights = to_hf(disturbed())
    left = {"_attn_implementation_autoset": True, "max_sequence_length": 1024}
    assert from_hf(settings | left, weights)[0] == from_hf(settings, weights)[0]


def test_a_weight_that_is_missing_misshapen_or_unknown_is_named():
    settings, weights = to_hf(disturbed())
    layer = "transformer.h.1.mlp.c_fc.weight"
    with pytest.raises(UserError, match=r"lack 'blocks.1.feed_forward.up.weight'"):
        from_hf(settings, {name: weight for name, weight in weights.items() if name != layer})
    with pytest.raises(UserError, match=r"'blocks.1.feed_forward.up.weight' is \(96, 3\), and \(96, 24\)"):
        from_hf(settings, weights | {layer: torch.zeros(3, 96)})
    with pytest.raises(UserError, match=r"'transformer.h.2.ln_1.bias' is unknown"):
        from_hf(settings, weights | {"transformer.h.2.ln_1.bias": torch.zeros(24)})
    with pytest.raises(UserError, match=r"lack 'head.weight'"):
        from_hf(settings | {"tie_word_embeddings": False}, weights)

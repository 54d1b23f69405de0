"""Llama and the mixture of experts to and from transformers: folders of either side, the same logits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.models.llama import LlamaConfig
from lmexp.config.models.moe import MoEConfig
from lmexp.errors import UserError
from lmexp.models.build import build_model
from lmexp.models.exchange.llama import from_hf, to_hf
from lmexp.models.llama import Llama
from lmexp.models.moe import MoE

SIZES = {"name": "t", "n_layers": 2, "d_model": 24, "n_heads": 4, "d_ff": 20, "context": 16, "vocab_size": 61}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {"rope_theta": 300.0, "norm_eps": 1e-3}),
    "llama_grouped": ("LlamaForCausalLM", {"n_kv_heads": 2, "head_size": 10}),
    "llama_tied": ("LlamaForCausalLM", {"tie_embeddings": True}),
    "llama_odd": ("MistralForCausalLM", {"n_heads": 5, "head_size": 4}),  # heads that do not divide the width
    "llama_window": ("MistralForCausalLM", {"window": 5, "n_kv_heads": 2}),
    "llama_qk_norm": ("Qwen3ForCausalLM", {"qk_norm": True, "n_kv_heads": 2, "rope_theta": 300.0}),
    "llama_qk_norm_window": ("Qwen3ForCausalLM", {"qk_norm": True, "window": 5, "head_size": 10}),
    "moe": ("MixtralForCausalLM", {"n_experts": 3, "n_kv_heads": 1, "rope_theta": 300.0, "balance": 0.5}),
    "moe_window": ("MixtralForCausalLM", {"n_experts": 4, "window": 5, "tie_embeddings": True, "balance": 0.25}),
    "moe_qk_norm": ("Qwen3MoeForCausalLM", {"n_experts": 3, "qk_norm": True, "experts_per_token": 1, "balance": 0.5}),
    "moe_qk_norm_window": ("Qwen3MoeForCausalLM", {"n_experts": 3, "qk_norm": True, "window": 5, "head_size": 10}),
}


def config_of(case: str) -> LlamaConfig | MoEConfig:
    values = {**SIZES, **OURS[case][1]}
    if case.startswith("moe"):
        return MoEConfig.model_validate({"_target_": "lmexp.models.moe.MoE", **values})
    return LlamaConfig.model_validate({"_target_": "lmexp.models.llama.Llama", **values})


def model_of(config: LlamaConfig | MoEConfig) -> Llama:
    """A model whose every weight makes a difference, norms included."""
    model = build_model(config, seed=1).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    assert isinstance(model, Llama)
    return model


def tokens_of() -> torch.Tensor:
    return torch.randint(61, (3, 16), generator=torch.Generator().manual_seed(7))


def in_transformers(model: Llama, folder: Path) -> Any:
    """The model as transformers loads it from a folder of what we export. Every weight must be found."""
    from transformers import AutoModelForCausalLM

    settings, weights = to_hf(model)
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    theirs, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(told[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return theirs.eval()


def from_folder(folder: Path) -> Llama:
    """Our model of what transformers saved."""
    settings = json.loads((folder / "config.json").read_text())
    config, weights = from_hf(settings, load_file(folder / "model.safetensors"))
    model = build_model(config, seed=0).eval()
    model.load_state_dict(weights)
    assert isinstance(model, Llama)
    return model


@pytest.mark.parametrize("case", OURS)
def test_there_and_back_through_a_folder_all_logits_are_equal(case: str, tmp_path: Path):
    config, tokens = config_of(case), tokens_of()
    model = model_of(config)
    theirs = in_transformers(model, tmp_path)
    assert type(theirs).__name__ == OURS[case][0]
    theirs.save_pretrained(tmp_path / "theirs")
    again = from_folder(tmp_path / "theirs")
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, model(tokens), atol=1e-5, rtol=1e-5)
        assert torch.equal(again(tokens), model(tokens))
    assert again.config.model_copy(update={"name": "t"}) == config


def test_names_are_those_of_published_files():
    _, weights = to_hf(model_of(config_of("moe")))
    assert "model.layers.0.block_sparse_moe.experts.2.w3.weight" in weights
    assert "lm_head.weight" in weights
    assert "lm_head.weight" not in to_hf(model_of(config_of("llama_tied")))[1]


# Configs as they stand in folders of the hub, in what matters here; sizes are ours.
PLAIN: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
    "vocab_size": 61,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "pretraining_tp": 1,
    "rope_scaling": None,
    "torch_dtype": "float16",
    "use_cache": True,
}
QWEN = PLAIN | {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 6}
MIXTRAL = PLAIN | {
    "model_type": "mixtral",
    "num_key_value_heads": 2,
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
    "router_aux_loss_coef": 0.02,
    "sliding_window": None,
}
QWEN_MOE = QWEN | {
    "model_type": "qwen3_moe",
    "num_experts": 3,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}


def read(settings: dict[str, Any]) -> LlamaConfig | MoEConfig:
    """The config that settings give, with weights of the shapes that transformers says they have."""
    config, _ = from_hf(settings, weights_of(settings))
    return config


def weights_of(settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    changes: dict[str, Any] = {"qk_norm": settings["model_type"].startswith("qwen3")}
    changes |= {"n_kv_heads": settings.get("num_key_value_heads")}
    if "num_experts_per_tok" in settings:
        config: Any = MoEConfig.model_validate({"_target_": "lmexp.models.moe.MoE", **SIZES, "n_experts": 3, **changes})
    else:
        config = LlamaConfig.model_validate({"_target_": "lmexp.models.llama.Llama", **SIZES, **changes})
    return to_hf(model_of(config))[1]


def test_what_an_old_config_leaves_out_is_what_transformers_takes_for_it():
    assert read(PLAIN).rope_theta == 10_000 and read(PLAIN).kv_heads == 4 and not read(PLAIN).tie_embeddings
    assert read(MIXTRAL).rope_theta == 1_000_000
    mistral = PLAIN | {"model_type": "mistral", "num_key_value_heads": 2}
    assert read(mistral).window == 4096
    assert read(mistral | {"sliding_window": None}).window is None
    assert read(PLAIN | {"rope_theta": 5e5}).rope_theta == 5e5
    section = {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}
    assert read(PLAIN | section).rope_theta == read(PLAIN | section | {"rope_theta": 1e4}).rope_theta == 5e5
    without = {key: value for key, value in MIXTRAL.items() if key != "router_aux_loss_coef"}
    assert read(without).balance == 0.001 / 2  # shared out over the layers


def test_heads_of_an_unnamed_width_are_as_wide_as_in_transformers():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    settings = {key: value for key, value in QWEN.items() if key != "head_dim"}
    config, _ = from_hf(settings, Qwen3ForCausalLM(Qwen3Config(**settings)).state_dict())
    assert config.head_size == 128


def test_an_expert_is_as_wide_as_its_own_setting_says():
    assert read(QWEN_MOE | {"intermediate_size": 99}).d_ff == 20


def test_the_type_of_the_weights_is_told():
    model = model_of(config_of("llama"))
    assert to_hf(model)[0]["dtype"] == "float32" and to_hf(model.bfloat16())[0]["dtype"] == "bfloat16"


def test_rotary_frequencies_in_old_files_are_left_out():
    weights = weights_of(PLAIN) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3)}
    config, imported = from_hf(PLAIN, weights, "old")
    build_model(config, 0).load_state_dict(imported)
    assert config.name == "old"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (PLAIN | {"model_type": "gemma"}, "model_type=gemma"),
        (PLAIN | {"attention_bias": True}, "attention_bias=True"),
        (PLAIN | {"mlp_bias": True}, "mlp_bias=True"),
        (PLAIN | {"hidden_act": "gelu"}, "hidden_act=gelu"),
        (PLAIN | {"attention_dropout": 0.1}, "attention_dropout=0.1"),
        (PLAIN | {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling="),
        (PLAIN | {"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn"}}, "rope_parameters.rope_type=yarn"),
        (PLAIN | {"rope_parameters": {"rope_theta": 1e4, "factor": 8.0}}, "rope_parameters.factor=8.0"),
        (PLAIN | {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        (PLAIN | {"quantization_config": {"bits": 4}}, "quantization_config"),
        (PLAIN | {"sliding_window": 5}, "sliding_window"),  # LlamaForCausalLM has none
        (MIXTRAL | {"router_jitter_noise": 0.1}, "router_jitter_noise=0.1"),
        (QWEN_MOE | {"norm_topk_prob": False}, "norm_topk_prob=False"),
        ({key: QWEN_MOE[key] for key in QWEN_MOE if key != "norm_topk_prob"}, "'norm_topk_prob' is missing"),
        (QWEN_MOE | {"decoder_sparse_step": 2}, "decoder_sparse_step=2"),
        (QWEN_MOE | {"mlp_only_layers": [1]}, "mlp_only_layers="),
        (QWEN | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}, "max_window_layers=1"),
        (QWEN | {"use_sliding_window": True, "sliding_window": 5}, "max_window_layers=28"),
        (QWEN | {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types="),
        ({key: QWEN[key] for key in QWEN if key != "num_key_value_heads"}, "'num_key_value_heads' is missing"),
        ({key: PLAIN[key] for key in PLAIN if key != "rms_norm_eps"}, "'rms_norm_eps' is missing"),
        ({key: PLAIN[key] for key in PLAIN if key != "model_type"}, "'model_type' is missing"),
    ],
)
def test_what_cannot_be_represented_is_refused_by_its_key(settings: dict[str, Any], said: str):
    with pytest.raises(UserError, match=r"config\.json") as told:
        from_hf(settings, {})
    assert said in str(told.value)


def test_settings_that_change_nothing_are_read_over():
    off = {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 36, "bos_token_id": 1}
    assert read(QWEN | off).window is None
    assert isinstance(read(QWEN_MOE | off | {"output_router_logits": False}), MoEConfig)


def test_weights_that_do_not_fit_the_config_are_refused():
    weights = weights_of(PLAIN)
    lacking = {key: weight for key, weight in weights.items() if "up_proj" not in key}
    with pytest.raises(UserError, match=r"lack 'blocks\.0\.feed_forward\.up\.weight'"):
        from_hf(PLAIN, lacking)
    with pytest.raises(UserError, match=r"self_attn\.q_proj\.bias' is unknown"):
        from_hf(PLAIN, weights | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(24)})
    with pytest.raises(UserError, match=r"is \(61, 24\), and \(62, 24\) by the config"):
        from_hf(PLAIN | {"vocab_size": 62}, weights)


def test_shared_experts_cannot_be_exported():
    config = config_of("moe").model_copy(update={"n_shared_experts": 1})
    with pytest.raises(UserError, match="n_shared_experts=1"):
        to_hf(model_of(config))


def test_the_balance_pulls_as_hard_where_layers_are_alike():
    settings, _ = to_hf(model_of(config_of("moe")))
    assert settings["router_aux_loss_coef"] == 1.0  # 0.5 for each of two layers
    assert read(MIXTRAL).balance == 0.01


# config.json of mistralai/Mixtral-8x7B-v0.1, less what changes no shape and no loss.
PUBLISHED_MIXTRAL = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.02,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}


def test_the_shipped_mixtral_is_the_published_one():
    config = Composer(paths.search_roots(), words=["model=mixtral_8x7b", "model.vocab_size=32000"]).config({}).model
    assert isinstance(config, MoEConfig)
    with torch.device("meta"):
        settings, weights = to_hf(MoE(config))
    assert {key: settings[key] for key in PUBLISHED_MIXTRAL} == PUBLISHED_MIXTRAL
    read, _ = from_hf(PUBLISHED_MIXTRAL, weights, name="mixtral_8x7b")
    assert read == config

"""Llama and the mixture of experts to and from the architectures of transformers that they are, setting by setting.

| here | there |
| --- | --- |
| llama | LlamaForCausalLM |
| llama with a window | MistralForCausalLM |
| llama with QK norm | Qwen3ForCausalLM |
| moe | MixtralForCausalLM |
| moe with QK norm | Qwen3MoeForCausalLM |

Weights are named as in published files: one matrix for each expert, a tied table once. Their load-balancing loss pools
the tokens of all layers where ours adds the layers up, so its weight is `balance` times the number of layers: the
same pull where layers are alike.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lmexp.config.models.llama import LlamaConfig, LlamaSection
from lmexp.config.models.moe import MoEConfig
from lmexp.errors import UserError
from lmexp.models.exchange.settings import check_settings, check_weights, required
from lmexp.models.llama import Llama
from lmexp.models.moe import MoE
from lmexp.models.mup import weights_without_mup
from lmexp.models.stacked import split_parts

CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
"""The library's class for each `model_type`."""
QK_NORM, EXPERTS = ("qwen3", "qwen3_moe"), ("mixtral", "qwen3_moe")
FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": tuple(CLASSES),
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "attention_dropout": (0.0,),
    "rope_scaling": (None,),
    "partial_rotary_factor": (1.0,),
}
FIXED_OF: dict[str, dict[str, tuple[Any, ...]]] = {
    "mixtral": {"router_jitter_noise": (0.0,)},
    "qwen3_moe": {"norm_topk_prob": (True,), "decoder_sparse_step": (1,), "mlp_only_layers": ([], None)},
}
SIZES = {
    "n_layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "context": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "norm_eps": "rms_norm_eps",
}
READ = {
    *SIZES.values(),
    *("intermediate_size", "num_key_value_heads", "head_dim", "tie_word_embeddings", "rope_theta", "rope_parameters"),
    "pretraining_tp",  # how matrices were cut up in training
}
READ_OF = {
    "mistral": {"sliding_window"},
    "qwen3": {"sliding_window", "use_sliding_window", "max_window_layers", "layer_types"},
    "mixtral": {"sliding_window", "num_local_experts", "num_experts_per_tok"},
    "qwen3_moe": {
        *("sliding_window", "use_sliding_window", "max_window_layers"),
        *("num_local_experts", "num_experts", "num_experts_per_tok", "moe_intermediate_size"),
    },
}
BALANCE = {"router_aux_loss_coef", "output_router_logits"}
OUTER = {"token_embedding": "model.embed_tokens", "norm": "model.norm"}
HEAD = "lm_head.weight"
INNER = {
    "norm_attention": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "norm_feed_forward": "post_attention_layernorm",
}
NORMS = {"attention.norm_query": "self_attn.q_norm", "attention.norm_key": "self_attn.k_norm"}
SWIGLU = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
MIXTRAL_SWIGLU = {"gate": "w1", "up": "w3", "down": "w2"}


def to_hf(model: Llama) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the settings and the weights of a model of transformers with equal logits.

    The weights are the model's own or parts of them, not copies, except for those that take in muP's multipliers. A
    head that was dropped is left out. Dropout is left out too, because transformers has it for attention only. So are
    the ids of special tokens: the caller adds them, since it knows the tokenizer.

    Raises UserError: a model with shared experts, which none of the architectures has in this form.
    """
    config, weights = model.config, split_parts(weights_without_mup(model, model.config), model)
    model_type = _type_of(config)
    settings: dict[str, Any] = {
        "architectures": [CLASSES[model_type]],
        "model_type": model_type,
        **{theirs: getattr(config, ours) for ours, theirs in SIZES.items()},
        "intermediate_size": config.d_feed_forward,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.d_head,
        "hidden_act": "silu",
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "dtype": str(weights["norm.weight"].dtype).removeprefix("torch."),
    }
    if model_type != "llama":
        settings["sliding_window"] = config.window
    if model_type in QK_NORM:
        slides = config.window is not None
        # The second is the first layer that slides.
        settings |= {"use_sliding_window": slides, "max_window_layers": 0 if slides else config.n_layers}
    if isinstance(config, MoEConfig):
        settings["num_local_experts" if model_type == "mixtral" else "num_experts"] = config.n_experts
        settings["num_experts_per_tok"] = config.experts_per_token
        settings["router_aux_loss_coef"] = config.balance * config.n_layers
    if model_type == "qwen3_moe":
        settings |= {"moe_intermediate_size": config.d_feed_forward, "norm_topk_prob": True}
    exported = {theirs: weights[ours] for ours, theirs in _names(config, model_type).items()}
    if not config.tie_embeddings and "head.weight" in weights:
        exported[HEAD] = weights["head.weight"]
    return settings, exported


def from_hf(
    settings: Mapping[str, Any], weights: Mapping[str, Tensor], name: str | None = None
) -> tuple[LlamaConfig | MoEConfig, dict[str, Tensor]]:
    """Return the config and the weights of a Llama or MoE with the logits of a model of transformers.

    Args:
        settings: what its config.json holds, as written by any version of the library.
        weights: by the names in its safetensors.
        name: the config's; None: the architecture's.

    Raises UserError: a setting that is unknown or not supported here, a weight that is missing, of a wrong shape
    or unknown.
    """
    model_type: str = required(settings, "model_type")
    read = READ | READ_OF.get(model_type, set()) | (BALANCE if model_type in EXPERTS else set())
    check_settings(settings, FIXED | FIXED_OF.get(model_type, {}), read)
    config = _config_of(settings, model_type, name or model_type)
    renamed = {theirs: ours for ours, theirs in _names(config, model_type).items()} | {HEAD: "head.weight"}
    # Old files hold the rotary frequencies.
    imported = {
        renamed.get(key, key): weight for key, weight in weights.items() if not key.endswith("rotary_emb.inv_freq")
    }
    if config.tie_embeddings and "token_embedding.weight" in imported:
        imported["head.weight"] = imported["token_embedding.weight"]
    check_weights(imported, MoE if isinstance(config, MoEConfig) else Llama, config)
    return config, imported


def _config_of(settings: Mapping[str, Any], model_type: str, name: str) -> LlamaConfig | MoEConfig:
    """Return our config of an architecture with these settings. Raises UserError for one that is missing."""
    sizes = {ours: required(settings, theirs) for ours, theirs in SIZES.items()}
    n_heads = sizes["n_heads"]
    # The first Llama's config does not name them; those of the others, whose defaults differ, all do.
    named = model_type != "llama"
    n_kv_heads = required(settings, "num_key_value_heads") if named else settings.get("num_key_value_heads")
    head_size = settings.get("head_dim", 128 if model_type == "qwen3" else None)
    known: dict[str, Any] = sizes | {
        "name": name,
        "n_kv_heads": None if n_kv_heads == n_heads else n_kv_heads,
        "head_size": None if head_size is None or head_size * n_heads == sizes["d_model"] else head_size,
        "d_ff": required(settings, "moe_intermediate_size" if model_type == "qwen3_moe" else "intermediate_size"),
        "rope_theta": _rope_theta(settings),
        "qk_norm": model_type in QK_NORM,
        "window": _window(settings),
        "tie_embeddings": settings.get("tie_word_embeddings", False),
    }
    if model_type in EXPERTS:
        experts = "num_experts" if "num_experts" in settings else "num_local_experts"
        known["n_experts"] = required(settings, experts)
        known["experts_per_token"] = required(settings, "num_experts_per_tok")
        known["balance"] = settings.get("router_aux_loss_coef", 0.001) / sizes["n_layers"]
        if model_type == "qwen3_moe":
            required(settings, "norm_topk_prob")  # off where it is not named
        return MoEConfig(target="lmexp.models.moe.MoE", **known)
    return LlamaConfig(target="lmexp.models.llama.Llama", **known)


def _type_of(config: LlamaSection) -> str:
    """Return the architecture that a config is one of."""
    if isinstance(config, MoEConfig):
        if config.n_shared_experts:
            raise UserError(
                f"model.n_shared_experts={config.n_shared_experts}: transformers' Mixtral has no shared experts"
            )
        return "qwen3_moe" if config.qk_norm else "mixtral"
    if config.qk_norm:
        return "qwen3"
    # Llama's config insists that heads divide the width; Mistral's without a window is the same model.
    return "mistral" if config.window is not None or config.d_model % config.n_heads else "llama"


def _rope_theta(settings: Mapping[str, Any]) -> float:
    """Return the rotary base, which version 5 of the library writes into a section.

    Raises UserError for scaled positions.
    """
    default = 1e6 if settings["model_type"] == "mixtral" else 1e4
    section = settings.get("rope_parameters") or {}
    for key, value in section.items():
        if key != "rope_theta" and (key, value) not in (("rope_type", "default"), ("partial_rotary_factor", 1.0)):
            raise UserError(f"config.json: rope_parameters.{key}={value} is not supported, only plain rotary positions")
    return section.get("rope_theta", settings.get("rope_theta", default))


def _window(settings: Mapping[str, Any]) -> int | None:
    """Return the window of all layers. Raises UserError where only some have one."""
    model_type = settings["model_type"]
    if model_type not in QK_NORM:
        return settings.get("sliding_window", 4096 if model_type == "mistral" else None)
    slides = bool(settings.get("use_sliding_window", False))
    kind = "sliding_attention" if slides else "full_attention"
    kinds = settings.get("layer_types")
    if kinds is not None and any(each != kind for each in kinds):
        raise UserError(f"config.json: layer_types={kinds} is not supported: one kind of attention is for all layers")
    if not slides:
        return None
    first = settings.get("max_window_layers", 28 if model_type == "qwen3" else 0)
    if kinds is None and first:
        raise UserError(f"config.json: max_window_layers={first} is not supported: one window is for all layers")
    return required(settings, "sliding_window")


def _names(config: LlamaSection, model_type: str) -> dict[str, str]:
    """Return their name for each of our weights, but for the head's."""
    inner = INNER | (NORMS if config.qk_norm else {})
    if isinstance(config, MoEConfig):
        mixtral = model_type == "mixtral"
        place, parts = ("block_sparse_moe", MIXTRAL_SWIGLU) if mixtral else ("mlp", SWIGLU)
        inner["feed_forward.router"] = f"{place}.gate"
        inner |= {
            f"feed_forward.experts.{expert}.{ours}": f"{place}.experts.{expert}.{theirs}"
            for expert in range(config.n_experts)
            for ours, theirs in parts.items()
        }
    else:
        inner |= {f"feed_forward.{ours}": f"mlp.{theirs}" for ours, theirs in SWIGLU.items()}
    modules = OUTER | {
        f"blocks.{layer}.{ours}": f"model.layers.{layer}.{theirs}"
        for layer in range(config.n_layers)
        for ours, theirs in inner.items()
    }
    return {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in modules.items()}

"""GPT to and from transformers' GPT2LMHeadModel, which stores the matrices of its blocks transposed.

Biases that a model here may do without are zeros there. An untied head is a matrix of its own in both.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lmexp.config.models.gpt import GPTConfig
from lmexp.models.exchange.settings import check_settings, check_weights, one_dropout, required
from lmexp.models.gpt import GPT
from lmexp.models.mup import weights_without_mup

FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),  # both are the tanh form
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
SIZES = {
    "vocab_size": "vocab_size",
    "d_model": "n_embd",
    "n_layers": "n_layer",
    "n_heads": "n_head",
    "context": "n_positions",
}
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
INDIFFERENT = {
    "n_ctx",
    "reorder_and_upcast_attn",  # of rounding in half precision
    "summary_activation",  # this and what follows: of heads over labels
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
}
OUTER = {"token_embedding": "wte", "position_embedding": "wpe", "norm": "ln_f"}
INNER = {
    "norm_attention": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "norm_feed_forward": "ln_2",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}
HEAD = "lm_head.weight"
PREFIX = "transformer."


def to_hf(model: GPT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the settings and the weights of a GPT2LMHeadModel with equal logits.

    A tied head's matrix is there once, as in the library's own files, and a head that was dropped is not. The caller
    adds the ids of special tokens, since it knows the tokenizer.
    """
    config, weights = model.config, weights_without_mup(model, model.config)
    exported = {}
    for ours, theirs in _names(config.n_layers).items():
        weight = weights.get(ours)
        if weight is None:  # a bias that is left out
            matrix = weights[ours.replace(".bias", ".weight")]
            exported[theirs] = matrix.new_zeros(matrix.shape[0])
        else:
            exported[theirs] = (weight.T if _is_transposed(ours) else weight).clone(
                memory_format=torch.contiguous_format
            )
    if not config.tie_embeddings and "head.weight" in weights:
        exported[HEAD] = weights["head.weight"].clone()
    settings = {
        "architectures": ["GPT2LMHeadModel"],
        **{key: allowed[0] for key, allowed in FIXED.items()},
        **{theirs: getattr(config, ours) for ours, theirs in SIZES.items()},
        "n_inner": config.d_feed_forward,
        **dict.fromkeys(DROPOUTS, config.dropout),
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
        "dtype": str(weights["token_embedding.weight"].dtype).removeprefix("torch."),
    }
    return settings, exported


def from_hf(
    settings: Mapping[str, Any], weights: Mapping[str, Tensor], name: str = "gpt"
) -> tuple[GPTConfig, dict[str, Tensor]]:
    """Return the config and the weights of a GPT with the logits of a GPT2LMHeadModel.

    Raises UserError: a setting that is unknown or not supported here, a weight that is missing, of a wrong shape
    or unknown.
    """
    check_settings(settings, FIXED, {*SIZES.values(), *DROPOUTS, *INDIFFERENT, "n_inner", "tie_word_embeddings"})
    config = GPTConfig(
        target="lmexp.models.gpt.GPT",
        name=name,
        **{ours: required(settings, theirs) for ours, theirs in SIZES.items()},
        d_ff=settings.get("n_inner"),
        dropout=one_dropout(settings, DROPOUTS),
        tie_embeddings=settings.get("tie_word_embeddings", True),
    )
    ours = {theirs.removeprefix(PREFIX): name for name, theirs in _names(config.n_layers).items()} | {
        HEAD: "head.weight"
    }
    imported = {}
    for key, weight in weights.items():
        short = key.removeprefix(PREFIX)  # the first published weights are without it
        if short.endswith((".attn.bias", ".attn.masked_bias")):  # their causal masks
            continue
        known = ours.get(short, key)
        imported[known] = weight.T.contiguous() if _is_transposed(known) else weight
    if config.tie_embeddings and "token_embedding.weight" in imported:
        imported["head.weight"] = imported["token_embedding.weight"]
    check_weights(imported, GPT, config, stacked=True)
    return config, imported


def _names(n_layers: int) -> dict[str, str]:
    """Return their name for each of our weights, but for the head's."""
    modules = OUTER | {
        f"blocks.{layer}.{ours}": f"h.{layer}.{theirs}" for layer in range(n_layers) for ours, theirs in INNER.items()
    }
    names = {
        f"{ours}.{part}": f"{PREFIX}{theirs}.{part}" for ours, theirs in modules.items() for part in ("weight", "bias")
    }
    for table in ("token_embedding", "position_embedding"):
        del names[f"{table}.bias"]
    return names


def _is_transposed(ours: str) -> bool:
    """Whether one of our weights is a matrix of a block."""
    return ours.startswith("blocks.") and ours.endswith(".weight") and "norm" not in ours

"""BERT to and from transformers' BertForMaskedLM.

There a second table holds an embedding for each segment of the input. The model here has one segment: on the way in,
the first segment's embedding is added to every position's; on the way out the table is zeros.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lmexp.config.models.bert import BertConfig
from lmexp.models.bert import Bert
from lmexp.models.exchange.settings import check_settings, check_weights, one_dropout, required
from lmexp.models.stacked import split_parts

FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("bert",),
    "hidden_act": ("gelu",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
    "position_embedding_type": ("absolute",),
}
SIZES = {
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "context": "max_position_embeddings",
}
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
INDIFFERENT = {
    "type_vocab_size",
    "classifier_dropout",
    # What published configs say of heads for sentence pairs.
    "directionality",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
}
DROPPED = ("bert.pooler.", "cls.seq_relationship.", "bert.embeddings.position_ids", "cls.predictions.decoder.")
"""What the masked language model does not have, or has by another name."""
SEGMENTS = "bert.embeddings.token_type_embeddings.weight"
OUTER = {
    "token_embedding": "bert.embeddings.word_embeddings",
    "position_embedding": "bert.embeddings.position_embeddings",
    "norm": "bert.embeddings.LayerNorm",
    "head_transform": "cls.predictions.transform.dense",
    "head_norm": "cls.predictions.transform.LayerNorm",
}
INNER = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.out": "attention.output.dense",
    "norm_attention": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm_feed_forward": "output.LayerNorm",
}


def to_hf(model: Bert) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the settings and the weights of a BertForMaskedLM with equal logits.

    The weights are named and tied as in the library's own files: the table is there once, and a head that was dropped
    is left out. The ids of special tokens
    are left out: the caller adds them, since it knows the tokenizer.
    """
    config, weights = model.config, split_parts(model.state_dict(), model)
    table = weights["token_embedding.weight"]
    names = _names(config.n_layers)
    exported = {theirs: weights[ours].clone() for ours, theirs in names.items() if ours in weights}
    exported[SEGMENTS] = table.new_zeros(2, config.d_model)
    settings = {
        "architectures": ["BertForMaskedLM"],
        **{key: allowed[0] for key, allowed in FIXED.items()},
        **{theirs: getattr(config, ours) for ours, theirs in SIZES.items()},
        "intermediate_size": config.d_feed_forward,
        "type_vocab_size": 2,
        "layer_norm_eps": config.norm_eps,
        **dict.fromkeys(DROPOUTS, config.dropout),
        "pad_token_id": None,
        "dtype": str(table.dtype).removeprefix("torch."),
    }
    return settings, exported


def from_hf(
    settings: Mapping[str, Any], weights: Mapping[str, Tensor], name: str = "bert"
) -> tuple[BertConfig, dict[str, Tensor]]:
    """Return the config and the weights of a Bert with the logits of a BertForMaskedLM.

    Weights of the heads that pretraining has besides are left out; a BertModel alone lacks the head for masks.

    Raises UserError: a setting that is unknown or not supported here, a weight that is missing, of a wrong shape
    or unknown.
    """
    check_settings(settings, FIXED, {*SIZES.values(), *DROPOUTS, *INDIFFERENT, "layer_norm_eps"})
    config = BertConfig(
        target="lmexp.models.bert.Bert",
        name=name,
        **{ours: required(settings, theirs) for ours, theirs in SIZES.items()},
        norm_eps=settings.get("layer_norm_eps", 1e-12),
        dropout=one_dropout(settings, DROPOUTS),
    )
    ours = {theirs: name for name, theirs in _names(config.n_layers).items()}
    imported = {ours.get(_modern(key), key): weight for key, weight in weights.items() if not key.startswith(DROPPED)}
    segments = imported.pop(SEGMENTS, None)
    if segments is not None and "position_embedding.weight" in imported:
        imported["position_embedding.weight"] = imported["position_embedding.weight"] + segments[0]
    if "token_embedding.weight" in imported:
        imported["head.weight"] = imported["token_embedding.weight"]
    check_weights(imported, Bert, config)
    return config, imported


def _names(n_layers: int) -> dict[str, str]:
    """Return their name for each of our weights, but for the tied table's second one."""
    modules = OUTER | {
        f"blocks.{layer}.{ours}": f"bert.encoder.layer.{layer}.{theirs}"
        for layer in range(n_layers)
        for ours, theirs in INNER.items()
    }
    names = {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in modules.items() for part in ("weight", "bias")}
    for table in ("token_embedding", "position_embedding"):
        del names[f"{table}.bias"]
    return names | {"head.bias": "cls.predictions.bias"}


def _modern(key: str) -> str:
    """Return a weight's name as it is today: norms of the first published weights have a gamma and a beta."""
    return key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")

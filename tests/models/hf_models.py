"""Small models of the transformers library, fresh ones and saved ones, for the tests of our models of its classes."""

from pathlib import Path

import torch

from lmexp.config.models.hf import HFConfig
from lmexp.models.build import build_model
from lmexp.models.hf import HFModel

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

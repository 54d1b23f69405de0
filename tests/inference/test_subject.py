"""Pretrained models by their folders: how much they read, where a document ends for them, and what they must have."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lmexp.config.hf import quiet
from lmexp.errors import UserError
from lmexp.inference.subject import end_ids, load_subject
from tests.data.test_library_files import bert_like

STACK = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
POSITIONS = 40
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], int]] = {
    "roberta": ("MaskedLM", {**STACK, "max_position_embeddings": POSITIONS + 2}, POSITIONS),  # two before the first
    "xlm-roberta": ("MaskedLM", {**STACK, "max_position_embeddings": POSITIONS + 2}, POSITIONS),
    "mpnet": ("MaskedLM", {**STACK, "max_position_embeddings": POSITIONS + 2}, POSITIONS),
    "bert": ("MaskedLM", {**STACK, "max_position_embeddings": POSITIONS}, POSITIONS),
    "gpt2": ("CausalLM", {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": POSITIONS}, POSITIONS),
    "opt": (
        "CausalLM",
        {**STACK, "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": POSITIONS},
        POSITIONS,
    ),
    "mpt": ("CausalLM", {"d_model": 16, "n_layers": 1, "n_heads": 2, "max_seq_len": POSITIONS}, POSITIONS),
    "bloom": ("CausalLM", {"hidden_size": 16, "n_layer": 1, "n_head": 2}, 1024),  # no limit but ours
}


def made(folder: Path, model_type: str, **changes: Any) -> Path:
    """Make a pretrained model with a tokenizer, as the library saves it."""
    tokenizer = bert_like(folder)
    head, shape, _ = ARCHITECTURES[model_type]
    shape = {key: value for key, value in shape.items() if key != "intermediate_size" or model_type != "opt"}
    special = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 1}
    with quiet():
        import transformers

        config = transformers.AutoConfig.for_model(
            model_type, vocab_size=tokenizer.vocab_size, **shape, **(special | changes)
        )
        torch.manual_seed(0)
        getattr(transformers, f"AutoModelFor{head}").from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_pretrained_model_reads_as_much_as_it_has_positions_for(model_type: str, tmp_path: Path):
    loaded = load_subject(f"hf:{made(tmp_path / 'model', model_type)}", tmp_path)
    context = ARCHITECTURES[model_type][2]
    assert loaded.config.model.context == context
    with torch.no_grad():
        assert loaded.model(torch.full((1, context), 5)).isfinite().all()


def test_a_document_ends_at_what_the_tokenizer_or_the_config_names(tmp_path: Path):
    folder = made(tmp_path / "model", "gpt2", eos_token_id=[6, 7])
    assert end_ids(load_subject(f"hf:{folder}", tmp_path)) == {2, 6, 7}
    said = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(said | {"eos_token": "[SEP]"}))
    assert end_ids(load_subject(f"hf:{folder}", tmp_path)) == {2, 3, 6, 7}


def test_a_model_whose_head_would_be_drawn_at_random_is_refused(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = made(tmp_path / "model", "bert")
    weights = load_file(folder / "model.safetensors")
    body = {name: weight for name, weight in weights.items() if not name.startswith("cls.")}
    save_file(body, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"no weights for its head over the vocabulary, such as cls.* train it first"):
        load_subject(f"hf:{folder}", tmp_path)


def test_a_model_with_a_head_over_labels_is_none_that_predicts_tokens(tmp_path: Path):
    """Its body was trained for the labels, and where the head over the vocabulary is tied, nothing is missing."""
    folder = made(tmp_path / "model", "gpt2")
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | {"architectures": ["GPT2ForSequenceClassification"]}))
    with pytest.raises(UserError, match="holds a GPT2ForSequenceClassification, which has no head over a vocabulary"):
        load_subject(f"hf:{folder}", tmp_path)

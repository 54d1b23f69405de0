"""Folders of the transformers library's own models."""

import json
from pathlib import Path

import pytest
import torch

from tests.models.hf_models import ARCHITECTURES, PUBLISHED, STACK, T5, VOCAB


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

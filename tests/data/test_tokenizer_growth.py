"""A tokenizer.json that would make gigabytes of a sentence is refused when it is read; published ones are not."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from lmexp.config.tokenizers import HFTokenizerConfig
from lmexp.data.tokenizers.build import load_tokenizer
from lmexp.data.tokenizers.growth import MAX_GROWTH, growth
from lmexp.data.tokenizers.others import load_hf
from lmexp.errors import UserError

DOUBLE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
BETWEEN = {"type": "Replace", "pattern": {"Regex": ""}, "content": "a"}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
MAP = base64.b64encode((4).to_bytes(4, "little") + b"trie" + b"a" * 30 + b"\0b\0").decode()


def library(**parts: Any) -> str:
    """Return a tokenizer.json with the given normalizer, pre_tokenizer or decoder."""
    return json.dumps(
        {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None}
        | {"post_processor": None, "decoder": None}
        | {
            "added_tokens": [
                dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
                | {"id": 0, "content": "<s>"}
            ]
        }
        | {"model": {"type": "WordLevel", "vocab": {"<s>": 0, "a": 1}, "unk_token": "a"}}
        | parts
    )


BOMBS = {
    "doubling": {"normalizer": {"type": "Sequence", "normalizers": [DOUBLE] * 30}},
    "nested": {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [DOUBLE] * 5}] * 6}
    },
    "between characters": {"normalizer": {"type": "Sequence", "normalizers": [BETWEEN] * 30}},
    "one long text": {"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}},
    "a long prefix": {"normalizer": {"type": "Prepend", "prepend": "a" * 1000}},
    "bytes of bytes": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 30}},
    "a map's texts": {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": MAP}] * 5}
    },
    "when decoding": {"decoder": {"type": "Sequence", "decoders": [DOUBLE] * 30}},
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_steps_that_multiply_a_text_are_refused_wherever_the_file_lies(tmp_path: Path, bomb: str):
    (tmp_path / "tokenizer.json").write_text(library(**BOMBS[bomb]))
    with pytest.raises(UserError, match="times as long"):
        load_hf(HFTokenizerConfig(kind="hf", name=str(tmp_path)))
    saved = tmp_path / "saved.json"  # as in a run directory
    saved.write_text(json.dumps({"kind": "hf", "library": library(**BOMBS[bomb]), "bos": "<s>", "mask": None}))
    with pytest.raises(UserError, match="times as long"):
        load_tokenizer(saved)


def test_what_published_tokenizers_do_is_allowed():
    spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}
    precompiled = {"type": "Precompiled", "precompiled_charsmap": MAP}
    llama = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, DOUBLE | {"content": "b"}]}
    for normalizer, pre_tokenizer in (
        ({"type": "Sequence", "normalizers": [precompiled, spaces]}, {"type": "Metaspace"}),  # XLM-R, mBART, T5
        (llama, None),
        ({"type": "BertNormalizer"}, {"type": "BertPreTokenizer"}),
        ({"type": "NFC"}, {"type": "Sequence", "pretokenizers": [{"type": "Split"}, {"type": "Digits"}, BYTES]}),
        (None, None),
    ):
        assert growth(normalizer) * growth(pre_tokenizer) < MAX_GROWTH

"""Text to ids and back."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.config.schema import BPETokenizerConfig, ByteTokenizerConfig, CharTokenizerConfig
from lmexp.data import tokenizers
from lmexp.data.tokenizers import DOCUMENT_TOKEN, CharTokenizer, build_tokenizer, load_tokenizer
from lmexp.errors import UserError

SENTENCES = "the cat sat on the mat, isn't it? 1234 cats; d\u00e9j\u00e0 vu  \n\tthe end. the cats' mats " * 20
DOCUMENTS = [("train", SENTENCES), ("validation", "zebra \u03a9 " * 500)]

BYTE = build_tokenizer(ByteTokenizerConfig(kind="byte"), DOCUMENTS)
CHAR = build_tokenizer(CharTokenizerConfig(kind="char"), DOCUMENTS)
BPE = build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=290), DOCUMENTS)
ALL = pytest.mark.parametrize("tokenizer", [BYTE, CHAR, BPE], ids=["byte", "char", "bpe"])

WORDS = st.text(alphabet="thecas1_' \n\t.\r\u00e9\u00a0\u2028\x1c", max_size=40)


@given(st.text())
def test_byte_and_bpe_give_any_text_back(text):
    for tokenizer in (BYTE, BPE):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text(alphabet=CHAR.characters))
def test_char_gives_any_text_of_its_characters_back(text):
    assert CHAR.decode(CHAR.encode(text)) == text


@given(st.lists(st.text(alphabet=CHAR.characters), max_size=5))
def test_a_batch_is_encoded_as_its_texts_are_one_by_one(texts):
    for tokenizer in (BYTE, CHAR, BPE):
        batch = tokenizer.encode_batch(texts)
        assert [ids.tolist() for ids in batch] == [tokenizer.encode(text).tolist() for text in texts]


@ALL
def test_ids_fill_the_vocabulary_and_the_last_begins_documents(tokenizer):
    assert tokenizer.bos_id == tokenizer.vocab_size - 1
    assert tokenizer.decode([tokenizer.bos_id]) == DOCUMENT_TOKEN
    ids = np.concatenate([tokenizer.encode(text) for _, text in DOCUMENTS])
    assert ids.max() < tokenizer.bos_id


@pytest.mark.parametrize("tokenizer", [BYTE, BPE, CharTokenizer("<|endoftext|> x")], ids=["byte", "bpe", "char"])
def test_a_text_that_spells_the_document_token_is_a_text(tokenizer):
    text = f"x {DOCUMENT_TOKEN}{DOCUMENT_TOKEN} x"
    ids = tokenizer.encode(text)
    assert tokenizer.bos_id not in ids
    assert tokenizer.decode(ids) == text


@ALL
def test_the_saved_form_gives_the_same_tokenizer(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    again = load_tokenizer(path)
    assert type(again) is type(tokenizer)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.vocab_size == tokenizer.vocab_size
    assert again.encode(SENTENCES).tolist() == tokenizer.encode(SENTENCES).tolist()


def test_fingerprints_tell_tokenizers_apart():
    other = build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=289), DOCUMENTS)
    assert len({t.fingerprint for t in (BYTE, CHAR, BPE, other, CharTokenizer("ab"))}) == 5


def test_byte_ids_are_the_bytes():
    assert BYTE.encode("a\u00e9").tolist() == [0x61, 0xC3, 0xA9]
    assert BYTE.vocab_size == 257


def test_char_ids_are_sorted_characters_of_both_splits():
    assert list(CHAR.characters) == sorted(set(SENTENCES) | set("zebra \u03a9"))
    assert CHAR.encode("\u03a9").tolist() == [CHAR.bos_id - 1]


def test_char_names_a_character_it_does_not_know():
    with pytest.raises(UserError, match="the character 'Q' is not among"):
        CHAR.encode("the Quick \U0010ffff")


@ALL
def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"holds '\\ud800', which is no character"):
        tokenizer.encode("a\ud800")


@given(st.lists(st.integers(0, 310)))
def test_any_ids_decode_to_a_text(ids):
    for tokenizer in (BYTE, CHAR, BPE):
        tokenizer.decode(ids).encode()


def test_invalid_bytes_and_unknown_ids_decode_to_replacement_characters():
    assert BYTE.decode([0x61, 0xFF, 0x62, 999]) == "a\ufffdb\ufffd"


def test_bpe_merges_frequent_words_of_the_training_split_only():
    assert b" the" in BPE.pieces
    assert not any(b"zeb" in piece for piece in BPE.pieces)


def test_bpe_training_is_deterministic():
    config = BPETokenizerConfig(kind="bpe", vocab_size=290)
    prints = {build_tokenizer(config, DOCUMENTS).fingerprint for _ in range(5)}
    assert prints == {BPE.fingerprint}


def test_every_byte_has_its_own_entry():
    assert sorted(piece for piece in BPE.pieces if len(piece) == 1) == [bytes([b]) for b in range(256)]


@given(st.lists(st.integers(0, BPE.bos_id - 1)))
def test_pieces_are_what_the_librarys_own_decoder_gives(ids):
    from tokenizers import decoders

    assert BPE.decode(ids) == decoders.ByteLevel().decode([BPE.tokens[i] for i in ids])


@given(WORDS, st.integers(0, 3))
def test_a_long_text_cut_into_parts_has_the_ids_of_the_whole(text, length):
    whole = BPE.encode(text).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizers, "_CUT_LENGTH", length)
        parts = list(tokenizers._cut(text))
        assert "".join(parts) == text
        assert BPE.encode(text).tolist() == whole


def test_a_long_text_is_cut():
    assert len(list(tokenizers._cut("word " * 50_000))) > 5


def test_a_vocabulary_larger_than_the_text_supports_is_refused_with_the_size_that_is_not():
    with pytest.raises(UserError, match="a vocabulary of 50000 is larger than the text supports") as raised:
        build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=50_000), DOCUMENTS)
    possible = int(str(raised.value).split("tokenizer.vocab_size=")[1].split()[0])
    largest = build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=possible), DOCUMENTS)
    assert largest.vocab_size == possible
    with pytest.raises(UserError):
        build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=possible + 1), DOCUMENTS)


def test_a_text_without_any_pair_is_sent_to_bytes():
    with pytest.raises(UserError, match="257 entries found; use tokenizer=byte"):
        build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=258), [("train", "x")])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a saved tokenizer"),
        ("[]", "not a saved tokenizer"),
        (json.dumps({"kind": "bpe", "tokens": ["a"], "merges": [["b", "c"]]}), "not a saved tokenizer"),
        (json.dumps({"kind": "bpe", "tokens": ["\n"], "merges": []}), "not a saved tokenizer"),
        (json.dumps({"kind": "char"}), "not a saved tokenizer"),
        (json.dumps({"kind": "pickle"}), "unknown kind of tokenizer 'pickle'; there are byte, char, bpe"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_tokenizer(path)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load_tokenizer(tmp_path / "missing.json")

"""Text to ids and back."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.config.tokenizers import (
    BPETokenizerConfig,
    ByteTokenizerConfig,
    CharTokenizerConfig,
    HFTokenizerConfig,
    WordPieceTokenizerConfig,
)
from lmexp.data.scripts import separated
from lmexp.data.tokenizers import lossless
from lmexp.data.tokenizers.base import DOCUMENT_TOKEN
from lmexp.data.tokenizers.build import build_tokenizer, load_tokenizer, with_fingerprint
from lmexp.data.tokenizers.lossless import CharTokenizer
from lmexp.errors import UserError

SENTENCES = "the cat sat on the mat, isn't it? 1234 cats; d\u00e9j\u00e0 vu  \n\tthe end. the cats' mats " * 20
DOCUMENTS = [("train", SENTENCES), ("validation", "zebra \u03a9 " * 500)]

BYTE = build_tokenizer(ByteTokenizerConfig(kind="byte"), DOCUMENTS)
CHAR = build_tokenizer(CharTokenizerConfig(kind="char"), DOCUMENTS)
BPE = build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=290), DOCUMENTS)
ALL = pytest.mark.parametrize("tokenizer", [BYTE, CHAR, BPE], ids=["byte", "char", "bpe"])
CHINESE = (
    "\u5b66\u800c\u65f6\u4e60\u4e4b\uff0c\u4e0d\u4ea6\u8bf4\u4e4e\uff1f\u6709\u670b\u81ea\u8fdc\u65b9\u6765\u3002" * 20
)
CHINESE_DOCUMENTS = [("train", CHINESE), ("train", "the cat \u5b66\u4e60 2024\u5e74 " * 20)]
CHINESE_CHAR = build_tokenizer(CharTokenizerConfig(kind="char"), CHINESE_DOCUMENTS)
CHINESE_BPE = build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=315), CHINESE_DOCUMENTS)
WORDPIECE_CONFIG = WordPieceTokenizerConfig.model_construct(kind="wordpiece", vocab_size=60)
WORDPIECE = build_tokenizer(WORDPIECE_CONFIG, DOCUMENTS)

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
        patch.setattr(lossless, "_CUT_LENGTH", length)
        parts = list(lossless.cut(text))
        assert "".join(parts) == text
        assert BPE.encode(text).tolist() == whole


def test_a_long_text_is_cut():
    assert len(list(lossless.cut("word " * 50_000))) > 5


def test_a_vocabulary_larger_than_the_text_supports_is_refused_with_the_size_that_is_not():
    with pytest.raises(UserError, match="a vocabulary of 50000 is larger than the text supports") as raised:
        build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=50_000), DOCUMENTS)
    possible = int(str(raised.value).split("tokenizer.vocab_size=")[1].split()[0])
    largest = build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=possible), DOCUMENTS)
    assert largest.vocab_size == possible
    with pytest.raises(UserError):
        build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=possible + 1), DOCUMENTS)


def test_a_text_without_any_pair_is_sent_to_bytes():
    with pytest.raises(UserError, match="supports 257 entries, and bpe needs 258; use tokenizer=byte"):
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


@given(st.text(alphabet=CHINESE_CHAR.characters))
def test_chinese_text_comes_back_by_byte_character_and_bpe(text):
    for tokenizer in (BYTE, CHINESE_CHAR, CHINESE_BPE):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(CHINESE_CHAR.encode(text)) == len(text)


def test_bpe_spells_a_chinese_character_that_it_never_met_in_bytes():
    assert len(CHINESE_BPE.encode("\u9f98")) == 3
    assert CHINESE_BPE.decode(CHINESE_BPE.encode("\u9f98\U00020000")) == "\u9f98\U00020000"


@pytest.mark.parametrize("tokenizer", [BYTE, CHAR, BPE, WORDPIECE], ids=lambda tokenizer: tokenizer.kind)
def test_the_mask_is_the_id_past_the_vocabulary(tokenizer):
    assert tokenizer.mask_id == tokenizer.vocab_size


@settings(deadline=None)  # the library's first batch starts its threads
@given(st.lists(st.text(alphabet="the ca1'\u5b66\u4e60\u3002\u00e9-", min_size=1, max_size=4), max_size=6))
def test_words_begin_at_the_token_with_their_first_character(words):
    words = ["".join(word.split()) or "x" for word in words]
    for tokenizer in (BYTE, BPE, CHINESE_BPE):
        ((ids, starts),) = tokenizer.encode_words([words])
        assert tokenizer.decode(ids) == "".join(separated(words))
        assert len(starts) == len(words)
        for word, start in zip(words, starts, strict=True):
            begins = b"".join(tokenizer.pieces[i] for i in ids[start:]).removeprefix(b" ")
            assert begins.startswith(word.encode())


def test_a_token_never_crosses_from_one_word_into_the_next():
    text = "\u5b66\u800c\u65f6\u4e60\u4e4b"
    assert len(CHINESE_BPE.encode(text)) < 5
    ((_, starts),) = CHINESE_BPE.encode_words([list(text)])
    assert len(set(starts.tolist())) == 5


def test_wordpiece_spells_words_as_bert_does():
    from transformers import BertTokenizerFast  # an implementation that is not ours

    vocabulary = {token: i for i, token in enumerate(WORDPIECE.tokens)}
    reference = BertTokenizerFast(vocab=vocabulary, do_lower_case=False, strip_accents=False)
    for text in (SENTENCES, "The cat!? zz\u5b66\u4e60cat\tmat", "unaffable (cats)", "a\u0000b\u200b"):
        assert WORDPIECE.encode(text).tolist() == reference.encode(text, add_special_tokens=False)


def test_wordpiece_is_trained_on_the_training_split_and_knows_the_unknown():
    assert (WORDPIECE.vocab_size, WORDPIECE.bos_id) == (60, 59)
    assert "the" in WORDPIECE.tokens and "cat" in WORDPIECE.tokens
    assert not any("z" in token for token in WORDPIECE.tokens)
    assert WORDPIECE.decode(WORDPIECE.encode("the zebra sat")) == "the [UNK] sat"
    assert WORDPIECE.decode([WORDPIECE.bos_id]) == DOCUMENT_TOKEN
    assert WORDPIECE.bos_id not in WORDPIECE.encode(f"{DOCUMENT_TOKEN} [UNK]")


def test_wordpiece_training_is_deterministic():
    assert {build_tokenizer(WORDPIECE_CONFIG, DOCUMENTS).fingerprint for _ in range(5)} == {WORDPIECE.fingerprint}


def test_wordpiece_writes_chinese_without_spaces():
    tokenizer = build_tokenizer(
        WordPieceTokenizerConfig.model_construct(kind="wordpiece", vocab_size=43), CHINESE_DOCUMENTS
    )
    text = "\u5b66\u4e60\u3002\u6709 the cat \u670b"
    assert tokenizer.decode(tokenizer.encode(text)) == "\u5b66\u4e60\u3002\u6709the cat\u670b"


@pytest.mark.parametrize(
    ("vocab_size", "message"),
    [(100_000, r"larger than the text supports: \d+ entries found"), (20, r"set tokenizer\.vocab_size=\d+ or higher")],
)
def test_a_size_that_wordpiece_cannot_have_is_refused_with_one_that_it_can(vocab_size, message):
    config = WordPieceTokenizerConfig.model_construct(kind="wordpiece", vocab_size=vocab_size)
    words = " ".join(f"{one}{two}" for one in "abcdefghijkl" for two in "mnopqrstuvwxyz")
    documents = [*DOCUMENTS, ("train", f"{words} {words}")]
    with pytest.raises(UserError, match=message) as raised:
        build_tokenizer(config, documents)
    possible = int(str(raised.value).split("tokenizer.vocab_size=")[1].split()[0])
    possible_config = config.model_copy(update={"vocab_size": possible})
    assert build_tokenizer(possible_config, documents).vocab_size == possible


def test_a_text_that_supports_fewer_entries_than_wordpiece_may_have_is_sent_to_characters():
    config = WordPieceTokenizerConfig(kind="wordpiece", vocab_size=100)
    with pytest.raises(UserError, match=r"it supports \d+ entries, and wordpiece needs 100; use tokenizer=char"):
        build_tokenizer(config, [("train", "the cat " * 9)])


@pytest.fixture
def hf(tmp_path):
    """Return a function that writes a tokenizer as others have them into a folder, and the config that reads it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    def write(model, special: dict[str, str], described: bool = True) -> HFTokenizerConfig:
        tokenizer = Tokenizer(model)
        if isinstance(model, models.BPE):
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.add_special_tokens(list(special.values()))
        first = next(iter(special.values()))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, tokenizer.token_to_id(first))]
        )
        tokenizer.enable_truncation(4)
        tokenizer.enable_padding(length=8)
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        if described:
            roles = {role: token if role == "mask_token" else {"content": token} for role, token in special.items()}
            (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"x": "evil.py"}} | roles))
        return HFTokenizerConfig(kind="hf", name=str(tmp_path))

    return write


def bert_like():
    from tokenizers import models

    return models.WordPiece(vocab={"[UNK]": 0, "the": 1, "cat": 2, "##s": 3, ".": 4}, unk_token="[UNK]")


def gpt_like():
    from tokenizers import models

    return models.BPE(vocab={t: i for i, t in enumerate(BPE.tokens)}, merges=BPE.merges)


def test_a_tokenizer_of_others_keeps_its_ids_and_its_special_tokens(hf):
    config = hf(bert_like(), {"cls_token": "[CLS]", "mask_token": "[MASK]"})
    tokenizer = build_tokenizer(config, [])
    assert tokenizer.encode("the cats . the cats .").tolist() == [1, 2, 3, 4, 1, 2, 3, 4]  # uncut, unpadded, bare
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.mask_id) == (7, 5, 6)
    assert not {5, 6} & set(tokenizer.encode("[CLS] the [MASK]").tolist())
    assert [starts.tolist() for _, starts in tokenizer.encode_words([["cats", "the"], []])] == [[0, 2], []]


def test_a_byte_level_tokenizer_of_others_gives_the_ids_of_ours(hf):
    tokenizer = build_tokenizer(hf(gpt_like(), {"eos_token": "</s>"}), [])
    assert tokenizer.encode(SENTENCES).tolist() == BPE.encode(SENTENCES).tolist()
    assert tokenizer.decode(tokenizer.encode("d\u00e9j\u00e0 vu\n")) == "d\u00e9j\u00e0 vu\n"
    words = [["the", "qq", "\u5b66", "\u4e60", "cat"], ["x"]]
    for (ids, starts), (expected, places) in zip(tokenizer.encode_words(words), BPE.encode_words(words), strict=True):
        assert (ids.tolist(), starts.tolist()) == (expected.tolist(), places.tolist())
    with pytest.raises(UserError, match="no token for what is hidden"):
        _ = tokenizer.mask_id


@pytest.mark.parametrize(
    ("special", "begins"),
    [
        ({"eos_token": "</s>", "cls_token": "[CLS]", "bos_token": "<s>"}, "<s>"),
        ({"eos_token": "</s>", "cls_token": "[CLS]"}, "[CLS]"),
        ({"eos_token": "</s>"}, "</s>"),
    ],
)
@pytest.mark.parametrize("described", [True, False])
def test_a_document_begins_with_its_bos_or_cls_or_eos(hf, special, begins, described):
    tokenizer = build_tokenizer(hf(bert_like(), special, described), [])
    assert tokenizer.decode([tokenizer.bos_id]) == begins


def test_a_tokenizer_of_others_is_saved_and_known_by_its_content(hf, tmp_path):
    config = hf(bert_like(), {"cls_token": "[CLS]", "mask_token": "[MASK]"})
    known = with_fingerprint(config)
    tokenizer = build_tokenizer(known, [])
    tokenizer.save(tmp_path / "saved.json")
    again = load_tokenizer(tmp_path / "saved.json")
    assert again.fingerprint == tokenizer.fingerprint == known.fingerprint
    assert (again.bos_id, again.mask_id, again.encode("cats").tolist()) == (5, 6, [2, 3])
    hf(gpt_like(), {"cls_token": "[CLS]"})
    assert with_fingerprint(config).fingerprint != known.fingerprint
    with pytest.raises(UserError, match="has changed since this config was resolved"):
        build_tokenizer(known, [])


def test_a_folder_that_holds_no_tokenizer_is_one_message(hf, tmp_path):
    config = HFTokenizerConfig(kind="hf", name=str(tmp_path))
    with pytest.raises(UserError, match=r"no tokenizer\.json in this folder"):
        build_tokenizer(config, [])
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"not a tokenizer of Hugging Face|no token to begin"):
        build_tokenizer(config, [])
    with pytest.raises(UserError, match="no token to begin a document with: no bos, cls or eos"):
        build_tokenizer(hf(bert_like(), {"mask_token": "[MASK]"}), [])
    with pytest.raises(UserError, match="no such folder"):
        build_tokenizer(HFTokenizerConfig(kind="hf", name=str(tmp_path / "nothing")), [])

"""The example store: what is in it, in which order, and that it is made once."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from lmexp.config.data import CleanConfig, GeneratedData, LabelData, PairData, TagData
from lmexp.config.tokenizers import (
    BPETokenizerConfig,
    ByteTokenizerConfig,
    CharTokenizerConfig,
    WordPieceTokenizerConfig,
)
from lmexp.data.example_writing import prepare_examples
from lmexp.data.examples import NO_TAG, ExampleStore, Ragged
from lmexp.data.prepare import warnings
from lmexp.data.sources import with_fingerprints
from lmexp.data.split import SplitExamples
from lmexp.data.store import Store
from lmexp.errors import UserError

BYTE = ByteTokenizerConfig(kind="byte")
CHAR = CharTokenizerConfig(kind="char")
CHINESE = "\u5b66\u800c\u65f6\u4e60\u4e4b\u4e0d\u4ea6\u8bf4\u4e4e\u6709\u670b\u81ea\u8fdc\u65b9\u6765"


@pytest.fixture
def pairs(tmp_path) -> PairData:
    """Chinese sources and English targets, the third blank."""
    rows = [(f"{CHINESE[i : i + 4]}{i}", f"line {i} caf\u00e9") for i in range(12)]
    text = "zh\ten\n" + "".join(f"{source}\t{target}\n" for source, target in rows)
    (tmp_path / "a.tsv").write_text(text.replace(rows[2][0], " "))
    path = str(tmp_path / "a.tsv")
    return PairData(source="pairs", path=path, source_field="zh", target_field="en", split="tail", validation=0.3)


@pytest.fixture
def tags(tmp_path) -> TagData:
    sentences = ["the O\nbig B-A\ncat I-A", "\u5317 B-L\n\u4eac I-L\nis O\nbig B-A", "big B-A\nis O"]
    (tmp_path / "a.conll").write_text("\n\n".join(sentences))
    (tmp_path / "v.conll").write_text("is O\nbig B-A\ncat I-A\n")
    return TagData(source="tags", path=str(tmp_path / "a.conll"), validation_path=str(tmp_path / "v.conll"))


def labelled(folder: Path, train: str, validation: str) -> LabelData:
    """Return data of two files of texts and labels, given the lines of each."""
    (folder / "a.csv").write_text(f"text,label\n{train}")
    (folder / "v.csv").write_text(f"text,label\n{validation}")
    return LabelData(source="labels", path=str(folder / "a.csv"), validation_path=str(folder / "v.csv"))


def rows(ragged: Ragged) -> list[list[int]]:
    return [ragged[i].tolist() for i in range(len(ragged))]


def test_pairs_come_back_out_of_their_store(pairs, tmp_path):
    store = prepare_examples(pairs, BYTE, CHAR, tmp_path / "stores")
    assert (store.holds, store.labels, store.vocab_size) == ("pairs", [], 257)
    source, target = store.tokenizer(), store.target_tokenizer()
    assert (source.kind, target.kind, target.vocab_size) == ("byte", "char", store.target_vocab_size)
    assert (store.bos_id, store.target_bos_id) == (source.bos_id, target.bos_id) == (256, store.target_vocab_size - 1)
    for split in store.splits:
        expected = [example for side, example in SplitExamples(pairs) if side == split]
        assert (
            store.documents(split) == len(expected) == len(store.source(split)) == {"train": 7, "validation": 4}[split]
        )
        assert list(store.texts(split)) == [example.source for example in expected]
        assert list(store.references(split)) == [example.target for example in expected]
        assert [source.decode(row) for row in rows(store.source(split))] == list(store.texts(split))
        assert [target.decode(row) for row in rows(store.target(split))] == list(store.references(split))
        assert [store.where(split, i) for i in range(len(expected))] == [example.where for example in expected]
        assert store.bytes(split) == sum(len(example.target.encode()) for example in expected)
        assert store.tokens(split) == sum(map(len, rows(store.source(split)) + rows(store.target(split))))
        assert store.source(split).lengths.tolist() == [len(text.encode()) for text in store.texts(split)]
    assert store.where("train", 2) == f"{pairs.path}:5"
    assert store.references("train")[-1] == "line 7 caf\u00e9"
    assert store.references("train")[1:3] == ["line 1 caf\u00e9", "line 3 caf\u00e9"]


def test_one_tokenizer_is_built_from_sources_and_targets(pairs, tmp_path):
    one = prepare_examples(pairs, CHAR, None, tmp_path / "stores")
    characters = one.tokenizer().characters
    assert CHINESE[0] in characters and "\u00e9" in characters
    assert one.target_tokenizer().fingerprint == one.tokenizer().fingerprint == one.tokenizer_fingerprint
    assert (one.bos_id, one.vocab_size) == (one.target_bos_id, one.target_vocab_size)
    two = prepare_examples(pairs, CHAR, CHAR, tmp_path / "stores")
    assert CHINESE[0] not in two.target_tokenizer().characters
    assert "\u00e9" not in two.tokenizer().characters
    assert two.path != one.path and two.tokenizer_fingerprint != one.tokenizer_fingerprint


def test_learned_tokenizers_see_training_sources_and_targets_only(tmp_path):
    train = "".join(f"aaaa bbbb{i}\tcccc dddd\n" for i in range(40))
    (tmp_path / "a.tsv").write_text("source\ttarget\n" + train)
    (tmp_path / "v.tsv").write_text("source\ttarget\n" + "zzzz\tzzzz zzzz\n" * 99)
    data = PairData(source="pairs", path=str(tmp_path / "a.tsv"), validation_path=str(tmp_path / "v.tsv"))
    store = prepare_examples(data, BPETokenizerConfig(kind="bpe", vocab_size=267), None, tmp_path / "stores")
    pieces = store.tokenizer().pieces
    assert b"aaaa" in pieces and b"cccc" in pieces
    assert not any(b"zz" in piece for piece in pieces)


def test_labels_that_differ_only_in_capital_letters_are_named(tmp_path):
    data = labelled(tmp_path, "one,Good\ntwo,good\nthree,bad\n", "four,good\n")
    said: list[str] = []
    store = prepare_examples(data, BYTE, None, tmp_path / "stores", said.append)
    assert store.labels == ["Good", "bad", "good"], "nothing is changed"
    assert "warning: these labels differ only in capital letters, and count as different: Good and good" in said


def test_labels_are_numbers_in_the_order_of_their_names(tmp_path):
    data = labelled(tmp_path, "one,neg\ntwo \u4e8c,pos\nthree,mid\n", "four,pos\n")
    said: list[str] = []
    store = prepare_examples(data, BYTE, None, tmp_path / "stores", said.append)
    assert "warning: the validation split lacks 2 of 3 labels: mid, neg" in said
    assert store.labels == ["mid", "neg", "pos"]
    assert (store.label("train").tolist(), store.label("validation").tolist()) == ([1, 2, 0], [2])
    assert list(store.texts("train")) == ["one", "two \u4e8c", "three"]
    assert store.bytes("train") == store.tokens("train") == 3 + 7 + 5
    assert store.where("validation", 0).endswith("v.csv:2")
    with pytest.raises(ValueError, match="a store of labels has no target"):
        store.target("train")


def test_a_tag_stands_at_the_first_token_of_its_word(tags, tmp_path):
    store = prepare_examples(tags, BYTE, None, tmp_path / "stores")
    assert store.labels == ["O", "B-A", "B-L", "I-A", "I-L"]
    assert list(store.texts("train")) == ["the big cat", "\u5317\u4eacis big", "big is"]
    assert [bytes(row).decode() for row in rows(store.source("train"))] == list(store.texts("train"))
    n = NO_TAG
    assert rows(store.target("train")) == [
        # t h e _ b i g _ c a t: the space in front of a word is no part of it
        [0, n, n, n, 1, n, n, n, 3, n, n],
        # three bytes each of the Chinese characters, between which there is no space
        [2, n, n, 4, n, n, 0, n, n, 1, n, n],
        [1, n, n, n, 0, n],
    ]
    assert rows(store.target("validation")) == [[0, n, n, 1, n, n, n, 3, n, n]]
    assert store.tokens("train") == store.bytes("train") == 11 + 12 + 6


@pytest.mark.parametrize(
    "config",
    [
        BYTE,
        CHAR,
        BPETokenizerConfig(kind="bpe", vocab_size=400),
        WordPieceTokenizerConfig(kind="wordpiece", vocab_size=180),
    ],
    ids=lambda config: config.kind,
)
def test_every_word_keeps_its_tag_under_every_tokenizer(config, tmp_path):
    data = GeneratedData(source="generated", rule="roles", count=300)
    store = prepare_examples(data, config, None, tmp_path / "stores")
    for split in store.splits:
        expected = [example.target for side, example in SplitExamples(data) if side == split]
        found = [[store.labels[tag] for tag in row if tag != NO_TAG] for row in rows(store.target(split))]
        assert found == [list(tags) for tags in expected]
        assert store.target(split).lengths.tolist() == store.source(split).lengths.tolist()


def test_wordpiece_without_a_token_for_a_word_names_its_line(tmp_path):
    (tmp_path / "a.conll").write_text("aa O\naa O\n\nbb O\nbb O\n\u200b O\n")
    data = TagData(source="tags", path=str(tmp_path / "a.conll"), split="tail", validation=0.5)
    config = WordPieceTokenizerConfig(kind="wordpiece", vocab_size=100)
    with pytest.raises(UserError, match=r"too small for tokenizer\.kind=wordpiece: it supports 5 entries"):
        prepare_examples(data, config, None, tmp_path / "stores")
    config = config.model_construct(kind="wordpiece", vocab_size=5)
    with pytest.raises(UserError, match=r"a\.conll:4: the tokenizer makes no token of the word '\\u200b'"):
        prepare_examples(data, config, None, tmp_path / "stores")


def test_what_is_stored_is_the_cleaned_text(pairs, tmp_path):
    clean = CleanConfig(stop_words="chinese", lowercase=True, min_characters=4)
    store = prepare_examples(pairs.model_copy(update={"clean": clean}), BYTE, None, tmp_path / "stores")
    plain = prepare_examples(pairs, BYTE, None, tmp_path / "stores")
    assert store.path != plain.path
    assert plain.texts("train")[1].startswith("\u800c\u65f6\u4e60\u4e4b")
    assert store.texts("train")[0] == "\u5b66\u65f6\u4e600"  # without \u800c
    assert "\u65f6\u4e601" not in store.texts("train")  # three characters are left


def test_a_store_is_made_once_and_found_again_without_its_source(pairs, tmp_path):
    first = prepare_examples(pairs, BYTE, None, tmp_path / "stores")
    resolved = with_fingerprints(pairs)
    moved = Path(pairs.path).rename(tmp_path / "moved.tsv")
    said: list[str] = []
    assert prepare_examples(resolved, BYTE, None, tmp_path / "stores", said.append) == first
    moved = pairs.model_copy(update={"path": str(moved)})
    assert prepare_examples(moved, BYTE, None, tmp_path / "stores", said.append) == first
    assert said == []


def test_a_store_of_text_and_a_store_of_examples_are_told_apart(pairs, byte_store, tmp_path):
    store = prepare_examples(pairs, BYTE, None, tmp_path / "stores")
    with pytest.raises(UserError, match="a store of pairs, not of text"):
        Store.open(store.path)
    with pytest.raises(UserError, match=r"the manifest is damaged|a store of"):
        ExampleStore.open(byte_store(500, 50).path)


def test_examples_that_changed_since_their_fingerprint_was_taken_are_refused(pairs, tmp_path):
    resolved = with_fingerprints(pairs)
    Path(pairs.path).write_text("zh\ten\na\tb\n" * 3)
    with pytest.raises(UserError, match="the data has changed since this config was resolved"):
        prepare_examples(resolved, BYTE, None, tmp_path / "stores")


def test_examples_that_train_and_validate_are_counted(tmp_path):
    data = labelled(tmp_path, "x,a\ny,b\nz,b\n", "x,a\ny,a\nw,b\nx,a\n")  # y has another label there
    store = prepare_examples(data, BYTE, None, tmp_path / "stores")
    assert store.validation_seen == 2 / 4
    assert warnings(store)[0].startswith("50.0% of the 4 validation examples are in the training split too")


def test_what_validates_is_known_by_texts_and_labels_and_not_by_tokens(tmp_path):
    prints = []
    for label, config in (("b", BYTE), ("b", CHAR), ("c", BYTE)):
        data = labelled(tmp_path, f"x,a\ny,{label}\n", "w,a\n")
        prints.append(prepare_examples(data, config, None, tmp_path / "stores").validation_fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_truncation_is_no_part_of_what_is_stored(pairs, tmp_path):
    cut = pairs.model_copy(update={"truncate": True})
    stores = [prepare_examples(data, BYTE, None, tmp_path / "stores") for data in (pairs, cut)]
    assert stores[0].path == stores[1].path


def test_damage_is_noticed_when_a_store_is_opened(pairs, tmp_path):
    store = prepare_examples(pairs, BYTE, None, tmp_path / "stores")
    with (store.path / "validation.reference.bin").open("r+b") as file:
        file.truncate(10)
    with pytest.raises(UserError, match=r"validation\.reference\.bin: damaged, 10 bytes instead of \d+"):
        prepare_examples(pairs, BYTE, None, tmp_path / "stores")
    (store.path / "manifest.json").write_text('{"format_version": 1, "holds": "pairs"}')
    with pytest.raises(UserError, match="the manifest is damaged"):
        ExampleStore.open(store.path)


@pytest.mark.parametrize("name", ["validation.reference.bin", "train.line.npy", "tokenizer.json"])
def test_a_file_that_was_overwritten_in_place_is_noticed(pairs, tmp_path, name):
    store = prepare_examples(pairs, BYTE, None, tmp_path / "stores")
    raw = bytearray((store.path / name).read_bytes())
    raw[-1] ^= 1
    (store.path / name).write_bytes(raw)
    with pytest.raises(UserError, match=rf"{name}: its content was changed after the store was made"):
        ExampleStore.open(store.path)


def test_the_same_examples_have_the_same_fingerprint_and_others_another(pairs, tmp_path):
    stores = [prepare_examples(pairs, BYTE, None, tmp_path / name) for name in "ab"]
    assert stores[0].fingerprint == stores[1].fingerprint
    path = Path(pairs.path)
    path.write_text(path.read_text().replace("line 3", "line x"))
    assert prepare_examples(pairs, BYTE, None, tmp_path / "a").fingerprint != stores[0].fingerprint


def test_arrays_are_read_only_maps_that_do_not_travel(pairs, tmp_path):
    store = prepare_examples(pairs, BYTE, None, tmp_path / "stores")
    values = store.source("train").values
    assert isinstance(values, np.memmap) and store.source("train").values is values
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1
    assert store._opened
    again = pickle.loads(pickle.dumps(store))
    assert again == store and not again._opened
    assert rows(again.source("train")) == rows(store.source("train"))


def test_a_tokenizer_for_targets_needs_targets(tags, tmp_path):
    with pytest.raises(UserError, match=r"target_tokenizer is for the targets of pairs"):
        prepare_examples(tags, BYTE, BYTE, tmp_path / "stores")

"""Canaries: what is planted where, and what stays as it was."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lmexp.config.data import CanariesConfig, GeneratedData
from lmexp.config.tokenizers import (
    BPETokenizerConfig,
    ByteTokenizerConfig,
    CharTokenizerConfig,
    WordPieceTokenizerConfig,
)
from lmexp.data.canaries import canaries_of, planted, references_of
from lmexp.data.prepare import warnings
from lmexp.data.store import Store, prepare
from lmexp.errors import UserError

TOKENIZERS = {
    "byte": ByteTokenizerConfig(kind="byte"),
    "char": CharTokenizerConfig(kind="char"),
    "bpe": BPETokenizerConfig(kind="bpe", vocab_size=290),
    "wordpiece": WordPieceTokenizerConfig(kind="wordpiece", vocab_size=110),
}
WORDS = "a quick brown fox jumps over the lazy dog by xabcdefghijklm and xnopqrstuvwxyz".split()  # noqa: SIM905
"""All letters begin a word or stand inside of one, which WordPiece tells apart."""
LINES = "\n".join(f"{' '.join(WORDS[(i * k) % len(WORDS)] for k in range(1, 8))} {i}" for i in range(100))
SOME = CanariesConfig(count=2, repeats=[0, 1, 5])


def decoded(store: Store, split: str) -> list[str]:
    """Return the texts of a split's documents."""
    ids, tokenizer = store.array(split), store.tokenizer()
    return [tokenizer.decode(ids[i + 1 : j]) for i, j in pairwise(store.bounds(split))]


@given(
    count=st.integers(1, 3),
    repeats=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
    documents=st.lists(
        st.tuples(st.sampled_from(["train", "train", "validation", "test"]), st.text("AB ", min_size=1, max_size=9)),
        max_size=8,
    ).map(lambda others: [("train", "A first document"), *others]),
)
def test_planting_adds_each_canary_as_often_as_it_says_and_changes_no_document(count, repeats, seed, documents):
    config = CanariesConfig(count=count, repeats=repeats, seed=seed)
    texts = {canary.text: canary.repeats for canary in canaries_of(config)}
    characters = sum(len(text) for split, text in documents if split == "train")
    result = list(planted(documents, config, characters))
    assert [each for each in result if each[1] not in texts] == documents
    assert {text: result.count(("train", text)) for text in texts} == texts
    assert len(result) == len(documents) + config.copies
    assert result == list(planted(documents, config, characters))


def test_copies_are_spread_over_the_characters_of_the_training_split():
    documents = [("train", "A" * 10)] * 100 + [("train", "A" * 1000)] * 100
    result = list(planted(documents, CanariesConfig(count=10, repeats=[100]), 101_000))
    among_short = sum(len(text) == 24 for _, text in result[: result.index(("train", "A" * 1000))])
    assert 0 <= among_short < 30  # 1 % of the characters: 9.9 of 1,000 are expected
    counts = np.diff([i for i, (_, text) in enumerate(result) if len(text) == 1000]) - 1
    assert counts.max() < 30 and (counts == 0).sum() < 10  # 9.9 are expected behind each long document


def test_a_canary_depends_on_its_seed_repeats_and_number_alone():
    few, more = (canaries_of(CanariesConfig(count=n, repeats=r, seed=3)) for n, r in ((2, [4]), (5, [1, 4])))
    assert few == [canary for canary in more if canary.repeats == 4][:2]
    assert len({canary.text for canary in more}) == len(more) == 10
    assert not {c.text for c in few} & {c.text for c in canaries_of(CanariesConfig(count=2, repeats=[4], seed=4))}
    assert canaries_of(CanariesConfig(count=1, repeats=[1]))[0].text == "tnqdxtyefpvaszwassehsouw"  # for ever


def test_references_are_1023_texts_of_the_same_form_whose_letters_are_equally_likely():
    references = references_of(SOME)
    assert len(set(references)) == len(references) == 1023
    assert {len(text) for text in references} == {24}
    assert not {canary.text for canary in canaries_of(SOME)} & set(references)
    counts = np.unique(list("".join(references)), return_counts=True)[1]
    expected = 1023 * 24 / 26
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert len(counts) == 26 and chi_squared < 52.6  # the 99.9th percentile with 25 degrees of freedom


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_store_with_canaries_differs_in_its_training_split_alone(files, tmp_path, kind):
    plain, with_canaries = (
        prepare(
            files("a.txt", LINES, document="line", validation=0.2, test=0.2, canaries=canaries),
            TOKENIZERS[kind],
            tmp_path / "stores",
        )
        for canaries in (CanariesConfig(), SOME)
    )
    assert plain.path != with_canaries.path and plain.fingerprint != with_canaries.fingerprint
    for split in ("validation", "test"):
        assert plain.array(split).tolist() == with_canaries.array(split).tolist()
    for same in ("tokenizer_fingerprint", "validation_fingerprint", "test_fingerprint", "validation_seen"):
        assert getattr(plain, same) == getattr(with_canaries, same)
    texts = {canary.text: canary.repeats for canary in canaries_of(SOME)}
    own, all_ = ([text.replace(" ", "") for text in decoded(s, "train")] for s in (plain, with_canaries))
    assert [text for text in all_ if text not in texts] == own
    assert {text: all_.count(text) for text in texts} == texts
    assert plain.canary_tokens is None
    assert with_canaries.canary_tokens == with_canaries.tokens("train") - plain.tokens("train") > 12
    assert Store.open(with_canaries.path) == with_canaries


def test_a_single_text_keeps_its_end_for_validation_and_is_not_cut_for_canaries(files, tmp_path):
    text = LINES.replace("\n", " ")
    data = files("a.txt", text, split="tail", validation=0.1, canaries=SOME)
    store = prepare(data, TOKENIZERS["byte"], tmp_path / "stores")
    first, *canaries = decoded(store, "train")
    assert first + "".join(decoded(store, "validation")) == text
    assert len(canaries) == 12 and set(canaries) == {c.text for c in canaries_of(SOME) if c.repeats}
    (warning,) = warnings(store)
    assert "1 document for 12 copies" in warning and "data.document=" in warning


def test_a_text_with_letters_of_another_script_still_spells_canaries(files, tmp_path):
    text = "\n".join("".join(chr(0x4E00 + (i * k) % 120) for k in range(9)) for i in range(120))
    data = files("a.txt", text, document="line", validation=0.2, canaries=SOME)
    assert prepare(data, TOKENIZERS["char"], tmp_path / "stores").canary_tokens == 12 * 25
    with pytest.raises(UserError, match="cannot spell 24 random letters"):
        prepare(data, WordPieceTokenizerConfig(kind="wordpiece", vocab_size=107), tmp_path / "stores")


def test_equal_sets_of_canaries_are_equal_configs():
    assert CanariesConfig(count=1, repeats=[4, 1, 4]) == CanariesConfig(count=1, repeats=[1, 4])
    data = GeneratedData(source="generated", rule="reverse", canaries={"count": 0, "repeats": [3], "seed": 9})
    assert data == GeneratedData(source="generated", rule="reverse")


def test_what_cannot_be_planted_is_refused():
    with pytest.raises(ValidationError, match="planted into running text, and this source has pairs"):
        GeneratedData(source="generated", rule="reverse", canaries={"count": 1})
    with pytest.raises(ValidationError, match="at most 1,000,000"):
        CanariesConfig(count=1000, repeats=[1001])
    with pytest.raises(ValidationError, match="at least one number"):
        CanariesConfig(count=1, repeats=[])

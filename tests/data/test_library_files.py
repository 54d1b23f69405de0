"""Tokenizers as transformers reads them: the ids of a run, whatever the text, and those of others as they came."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.config.tokenizers import BPETokenizerConfig, HFTokenizerConfig, WordPieceTokenizerConfig
from lmexp.data.tokenizers.base import Tokenizer
from lmexp.data.tokenizers.build import build_tokenizer, load_tokenizer
from lmexp.data.tokenizers.lossless import ByteTokenizer, CharTokenizer
from lmexp.data.tokenizers.others import HFTokenizer
from lmexp.files import hash_text

WORDS = "The cat's mat, the 12 cats' hats\n\n\tin it: naïve 中文 hats! हिंदी <|endoftext|> [UNK] [MASK] <|mask|> \r\n "
TEXTS = [("train", WORDS * 20), ("train", "the cat sat on a hat; the hat sat on the cat. " * 20)]


def hf(folder: Path) -> Tokenizer:
    """A tokenizer of others, which puts tokens around texts, cuts them off and changes their letters."""
    from tokenizers import Tokenizer as LibraryTokenizer
    from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

    made = LibraryTokenizer(models.BPE(unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "</s>", "<unk>", "<mask>"]
    made.train_from_iterator([text for _, text in TEXTS], trainers.BpeTrainer(special_tokens=special, vocab_size=150))
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    made.enable_truncation(5)
    made.enable_padding(length=9)
    made.save(str(folder / "tokenizer.json"))
    return build_tokenizer(HFTokenizerConfig.model_validate({"kind": "hf", "name": str(folder)}), [])


def bert_like(folder: Path) -> Tokenizer:
    """A tokenizer of others that comes with all its files, and has a token for each role."""
    from tokenizers import Tokenizer as LibraryTokenizer
    from tokenizers import models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *sorted(set(WORDS.split()) - set(special))]
    made = LibraryTokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    roles = {f"{word[1:-1].lower()}_token": word for word in special}
    PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=512, **roles).save_pretrained(folder)
    return build_tokenizer(HFTokenizerConfig.model_validate({"kind": "hf", "name": str(folder)}), [])


MAKE: dict[str, Callable[[], Tokenizer]] = {
    "byte": ByteTokenizer,
    "char": lambda: CharTokenizer(WORDS + "".join(map(chr, range(300))) + "\u0301\u200d\U0001f600"),
    "bpe": lambda: build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=280), TEXTS),  # type: ignore[arg-type]
    "wordpiece": lambda: build_tokenizer(WordPieceTokenizerConfig(kind="wordpiece", vocab_size=105), TEXTS),  # type: ignore[arg-type]
    "hf": lambda: hf(Path(mkdtemp())),
    "hf with all files": lambda: bert_like(Path(mkdtemp())),
}
CONTEXT = 64


@cache
def both(kind: str, with_mask: bool = True) -> tuple[Tokenizer, Any]:
    from transformers import AutoTokenizer

    ours, folder = MAKE[kind](), Path(mkdtemp())
    for name, content in ours.library_files(with_mask, CONTEXT).items():
        (folder / name).write_text(content, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))  # as beside a model
    return ours, AutoTokenizer.from_pretrained(folder)


def texts_of(kind: str) -> st.SearchStrategy[str]:
    known = list(CharTokenizer(MAKE[kind]().characters).characters) if kind == "char" else None  # type: ignore[attr-defined]
    letters = st.sampled_from(known) if known else st.characters(exclude_categories=["Cs"])
    pieces = st.sampled_from(
        [word + " " for word in WORDS.split()] + ["<|endoftext|>", "<s>", "  ", "\n", "\r\n", "\t"]
    )
    return st.lists(st.one_of(pieces, st.text(letters, max_size=8)), max_size=12).map("".join)


@pytest.mark.parametrize("kind", MAKE)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_text_begins_there_as_in_a_run_and_has_the_same_ids(kind: str, data: st.DataObject):
    ours, theirs = both(kind)
    text = data.draw(texts_of(kind))
    assert theirs(text)["input_ids"] == [ours.bos_id, *ours.encode(text).tolist()]


@pytest.mark.parametrize("kind", ["byte", "char", "bpe"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_lossless_ones_give_the_text_back_there_too(kind: str, data: st.DataObject):
    ours, theirs = both(kind)
    text = data.draw(texts_of(kind))
    assert theirs.decode(ours.encode(text).tolist()) == text


@pytest.mark.parametrize("kind", MAKE)
def test_documents_begin_and_end_with_our_token_and_the_mask_is_ours(kind: str):
    ours, theirs = both(kind)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos_id, ours.bos_id)
    assert theirs.mask_token_id == ours.mask_id
    assert theirs.decode([ours.bos_id]) == ours.decode([ours.bos_id])
    assert len(theirs) == max(ours.vocab_size, ours.mask_id + 1)
    ours, theirs = both(kind, with_mask=False)
    assert theirs.mask_token_id is None and len(theirs) == ours.vocab_size


@pytest.mark.parametrize("kind", MAKE)
def test_a_batch_is_padded_and_cut_there_to_what_the_model_reads(kind: str):
    ours, theirs = both(kind)
    batch = theirs(["the cat", "the " * CONTEXT], padding=True, truncation=True)
    assert sorted(batch) == ["attention_mask", "input_ids"]
    said = json.loads(ours.library_files(with_mask=True, context=CONTEXT)["tokenizer_config.json"])
    assert said["model_input_names"] == ["input_ids", "attention_mask"]  # version 4 would add numbers of segments
    short, long = batch["input_ids"]
    assert len(short) == len(long) == CONTEXT and sum(batch["attention_mask"][1]) == CONTEXT
    kept = [ours.bos_id, *ours.encode("the cat").tolist()]
    assert short == [*kept, *[theirs.pad_token_id] * (CONTEXT - len(kept))]


def test_a_tokenizer_of_others_keeps_its_roles_and_comes_back_as_it_came(tmp_path: Path):
    from transformers import AutoTokenizer

    ours = bert_like(tmp_path / "theirs")
    assert isinstance(ours, HFTokenizer)
    ours.save(tmp_path / "saved.json")
    again = load_tokenizer(tmp_path / "saved.json")
    assert isinstance(again, HFTokenizer) and again.fingerprint == ours.fingerprint
    files = again.original_files(with_mask=True, context=CONTEXT)
    assert files == {file.name: file.read_text() for file in (tmp_path / "theirs").iterdir()}
    theirs = AutoTokenizer.from_pretrained(tmp_path / "theirs")
    assert theirs("the cat")["input_ids"] == [2, *ours.encode("the cat").tolist(), 3]
    roles = both("hf with all files")[1].special_tokens_map
    assert theirs.special_tokens_map.items() <= roles.items()  # where it has none, [CLS] begins and ends a document


def test_files_that_came_with_a_tokenizer_change_no_fingerprint(tmp_path: Path):
    """Runs have a name that holds it, and their tokenizers were saved without these files before."""
    ours = bert_like(tmp_path / "theirs")
    ours.save(tmp_path / "saved.json")
    state = json.loads((tmp_path / "saved.json").read_text())
    assert state.pop("files")
    (tmp_path / "saved.json").write_text(json.dumps(state, ensure_ascii=False))
    older = load_tokenizer(tmp_path / "saved.json")
    assert older.fingerprint == ours.fingerprint == hash_text(json.dumps(state, ensure_ascii=False))
    assert isinstance(older, HFTokenizer)
    files = older.original_files(with_mask=True, context=CONTEXT)
    assert files["tokenizer.json"] == (tmp_path / "theirs" / "tokenizer.json").read_text()
    assert json.loads(files["tokenizer_config.json"])["mask_token"] == "[MASK]"


def test_an_unknown_character_is_refused_there_too():
    theirs = both("char")[1]
    with pytest.raises(Exception, match="Missing"):
        theirs("ж")

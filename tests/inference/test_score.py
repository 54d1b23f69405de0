"""How likely words are: sums of their tokens, by every kind of tokenizer and model."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.data.tokenizers.base import Tokenizer
from lmexp.data.tokenizers.build import build_tokenizer
from lmexp.data.tokenizers.lossless import _BYTE_OF, BPETokenizer, ByteTokenizer, CharTokenizer
from lmexp.errors import UserError
from lmexp.inference.score import read_sentences, score
from lmexp.models.build import build_model
from lmexp.train.checkpoint import Loaded

TEXT = "the cat sat on a mat; 我们在这里 and naïve café 😀 words\n" * 40


MERGES = [("æ", "Ī"), ("æĪ", "ĳ"), ("ä", "»"), ("ä»", "¬"), ("æĪĳ", "ä»¬")]
"""Merges of the bytes of 我 and 们, in GPT-2's alphabet, until both are one token."""


def chr_of(byte: int) -> str:
    """Return the character that stands for a byte in GPT-2's alphabet."""
    return next(character for character, value in _BYTE_OF.items() if value == byte)


def tokenizer_of(kind: str) -> Tokenizer:
    from lmexp.config.tokenizers import BPETokenizerConfig, WordPieceTokenizerConfig

    if kind == "byte":
        return ByteTokenizer()
    if kind == "char":
        return CharTokenizer(TEXT)
    documents = [("train", TEXT)]
    if kind == "bpe":
        return build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=300), documents)
    return build_tokenizer(WordPieceTokenizerConfig.model_construct(kind="wordpiece", vocab_size=58), documents)


def loaded(family: str = "gpt", kind: str = "byte", task: str = "causal_lm", **sizes) -> Loaded:
    """Return a model with fresh weights, as load_final returns a trained one."""
    tokenizer = tokenizer_of(kind)
    words = [f"model={family}_nano", "model.d_model=16", "model.context=96", f"task={task}"]
    config = Composer(paths.search_roots(), words=words).config({})
    update = {"vocab_size": tokenizer.vocab_size + 1} | sizes
    config = config.model_copy(update={"model": config.model.model_copy(update=update)})
    model = build_model(config.model, 0, config.task).eval()
    with torch.no_grad():
        for weight in model.parameters():  # fresh weights find everything equally likely
            weight.mul_(4)
    return Loaded(config, model, tokenizer, tokenizer)


def loaded_tagger() -> Loaded:
    """Return a model with a fresh head over two tags."""
    tokenizer = tokenizer_of("byte")
    words = ["model=bert_nano", "model.context=96", "model.vocab_size=257", "task=tag", "task.labels=[O,B-A]"]
    config = Composer(paths.search_roots(), words=words).config({})
    return Loaded(config, build_model(config.model, 0, config.task).eval(), tokenizer, tokenizer)


CASES = {kind: loaded(kind=kind) for kind in ("byte", "char", "bpe", "wordpiece")}
ALPHABET = sorted(set(TEXT) - {"\n"})


@pytest.mark.parametrize("kind", CASES)
@settings(max_examples=40)
@given(data=st.data())
def test_words_add_up_to_the_sentence_and_are_all_of_it(kind: str, data: st.DataObject):
    text = data.draw(st.text(ALPHABET, min_size=1, max_size=20).filter(str.strip))
    subject = CASES[kind]
    found = score(subject, text)
    ids = torch.tensor(subject.tokenizer.encode(text).tolist())
    inputs = torch.cat([torch.tensor([subject.tokenizer.bos_id]), ids[:-1]])[None]
    with torch.inference_mode():
        nll = F.cross_entropy(subject.model(inputs)[0].double(), ids, reduction="sum")
    assert found.log_probability == pytest.approx(-float(nll), abs=1e-4)
    assert "".join(word.text for word in found.words) == "".join(text.split())
    assert found.tokens == len(ids) and 0 < found.plausibility <= 1
    assert found.perplexity == pytest.approx(math.exp(float(nll) / len(ids)), rel=1e-4)
    assert found.bits_per_byte == pytest.approx(float(nll) / math.log(2) / len(text.encode()), rel=1e-4)


def test_a_token_counts_for_the_word_that_its_first_letter_is_in():
    subject = CASES["byte"]
    text = " ab  cd "
    each = -F.cross_entropy(
        subject.model(torch.tensor([[subject.tokenizer.bos_id, *text.encode()[:-1]]]))[0].detach(),
        torch.tensor(list(text.encode())),
        reduction="none",
    )
    # A space belongs to the word after it, and the last one to the last word.
    first, second = score(subject, text).words
    assert first.log_probability == pytest.approx(float(each[:3].sum()), abs=1e-5)
    assert second.log_probability == pytest.approx(float(each[3:].sum()), abs=1e-5)
    assert first.surprisal == pytest.approx(-first.log_probability / math.log(2))


def test_each_chinese_character_is_a_word_and_its_bytes_belong_together():
    found = score(CASES["byte"], "在这里 and 我们")
    assert [word.text for word in found.words] == ["在", "这", "里", "and", "我", "们"]
    assert found.tokens == len("在这里 and 我们".encode())
    assert [word.text for word in score(CASES["byte"], "ที่ ok กา").words] == ["ที่", "ok", "ก", "า"]


def test_words_that_share_a_token_are_shown_as_one_and_each_counts():
    tokenizer = BPETokenizer([*map(chr_of, range(256)), "æĪ", "æĪĳ", "ä»", "ä»¬", "æĪĳä»¬"], MERGES)
    subject = dataclasses.replace(loaded(vocab_size=264), tokenizer=tokenizer, target_tokenizer=tokenizer)
    found = score(subject, "我们在 and 我")
    assert [(word.text, word.count) for word in found.words] == [("我们", 2), ("在", 1), ("and", 1), ("我", 1)]
    assert found.plausibility == pytest.approx(math.exp(found.log_probability / 5))
    assert all(word.log_probability < 0 for word in found.words)


def test_a_sentence_of_a_file_ends_at_a_line_feed_and_nowhere_else(tmp_path):
    (tmp_path / "two.txt").write_bytes("\ufeffriver stone\u2028lamp\r\n\nriver\x0clamp\x85".encode())
    found = read_sentences(["given"], str(tmp_path / "two.txt"))
    assert found == ["given", "river stone\u2028lamp", "river\x0clamp\x85"]


def test_an_encoder_scores_each_token_by_all_others():
    subject = loaded("bert", task="masked_lm", vocab_size=258)
    found = score(subject, "ab cd")
    ids, tokenizer = list(b"ab cd"), subject.tokenizer
    expected = 0.0
    for place, token in enumerate(ids):
        hidden = torch.tensor([[tokenizer.bos_id, *ids]])
        hidden[0, 1 + place] = tokenizer.mask_id
        with torch.inference_mode():
            expected += float(subject.model(hidden)[0, 1 + place].log_softmax(-1)[token])
    assert found.log_probability == pytest.approx(expected, abs=1e-4)


def test_a_target_is_scored_given_its_source():
    subject = loaded("encdec", task="seq2seq", input_vocab_size=257, vocab_size=257)
    one, other = score(subject, "cba", source="abc"), score(subject, "cba", source="xyz")
    assert one.log_probability != other.log_probability and one.tokens == 3


def test_what_cannot_be_scored_is_said():
    for subject, text, options, said in (
        (CASES["byte"], "   ", {}, "has no word to score"),
        (CASES["byte"], "", {}, "has no word to score"),
        (CASES["byte"], "a" * 97, {}, "has 97 tokens, more than the 96"),
        (CASES["char"], "Zebra", {}, "the character 'Z' is not among"),
        (CASES["byte"], "a", {"source": "b"}, "--source is for encoder-decoders"),
        (loaded("encdec", task="seq2seq", input_vocab_size=257), "a", {}, "needs --source"),
        (loaded("bert", task="masked_lm", vocab_size=257), "a", {}, "was not trained with a mask"),
    ):
        with pytest.raises(UserError, match=said):
            score(subject, text, **options)

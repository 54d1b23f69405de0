"""What models generate: text token by token, targets, labels and tags; and which options they refuse."""

import math

import pytest

from lmexp.errors import UserError
from lmexp.inference import generate
from lmexp.inference.generate import predict, write
from tests.inference.test_score import CASES, loaded, loaded_tagger


def test_the_same_seed_draws_the_same_text_and_no_temperature_draws_nothing():
    subject = CASES["byte"]
    greedy = [list(write(subject, "the", 20, temperature=0.0, seed=seed)) for seed in (1, 2)]
    assert greedy[0] == greedy[1] and len("".join(greedy[0]).encode()) > 0
    drawn = ["".join(write(subject, "the", 20, temperature=1.0, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_one_token_is_always_the_most_likely_with_top_k_1_and_with_a_small_top_p():
    subject = CASES["byte"]
    greedy = "".join(write(subject, "the", 12, temperature=0.0))
    assert "".join(write(subject, "the", 12, temperature=1.0, top_k=1)) == greedy
    assert "".join(write(subject, "the", 12, temperature=1.0, top_p=1e-6)) == greedy


def test_characters_are_written_whole_and_nothing_is_lost():
    subject = CASES["byte"]
    pieces = list(write(subject, "我", 60, temperature=1.0, seed=1))
    whole = "".join(pieces)
    assert len(whole.encode()) >= 60 - 4  # a torn character may be written as one that is not known
    assert pieces and list(write(subject, "我", 60, temperature=1.0, seed=1)) == pieces
    assert "".join(write(subject, "我", 60, temperature=1.0, seed=2)) != whole


def test_a_text_ends_where_the_document_does_or_before_a_stop(monkeypatch: pytest.MonkeyPatch):
    subject = CASES["byte"]
    ids = [*b"a cat. ", subject.tokenizer.bos_id, *b"next"]
    monkeypatch.setattr(generate, "sample", lambda *ignored: iter(ids))
    assert "".join(write(subject, "")) == "a cat. "
    assert "".join(write(subject, "", no_stop=True)) == "a cat. <|endoftext|>next"
    assert "".join(write(subject, "", stop=["xyz", "t."])) == "a ca"
    pieces = list(write(subject, "", stop=["cats", "cut"]))
    assert "".join(pieces) == "a cat. " and pieces[:2] == ["a", " "]  # what may be a stop's beginning waits


@pytest.mark.parametrize(
    ("text", "words"),
    [("我们在这里", list("我们在这里")), ("我们 在 这里", ["我们", "在", "这里"]), ("the cat", ["the", "cat"])],
)
def test_words_that_get_tags_are_those_between_spaces_or_else_chinese_characters(text: str, words: list[str]):
    lines = list(write(loaded_tagger(), text))
    assert [line.split("\t")[0] for line in lines] == words
    assert {line.split("\t")[1] for line in lines} <= {"O\n", "B-A\n"}


def test_a_prediction_has_the_tags_that_are_written_with_their_probabilities():
    predicted = predict(loaded_tagger(), "the cat")
    assert [f"{word}\t{tag}\n" for word, tag in zip(predicted["input"], predicted["guess"], strict=True)] == list(
        write(loaded_tagger(), "the cat")
    )
    assert len(predicted["scores"]) == 2 and all(0.5 <= score <= 1 for score in predicted["scores"])  # of two tags
    continued = predict(CASES["byte"], "the", tokens=5, temperature=0.0)
    assert continued == {"input": "the", "guess": "".join(write(CASES["byte"], "the", 5, temperature=0.0))}


def test_options_that_do_not_go_with_a_model_are_refused():
    pairs = loaded("encdec", task="seq2seq", input_vocab_size=257)
    assert isinstance("".join(write(pairs, "abc", 10, beams=3)), str)
    for subject, options, said in (
        (CASES["byte"], {"beams": 2}, "--beams is for encoder-decoders"),
        (CASES["byte"], {"top_p": 0.0}, "--top-p 0: expected a number above 0"),
        (CASES["byte"], {"top_p": 1.5}, "--top-p 1.5"),
        (CASES["byte"], {"top_p": math.nan}, "--top-p nan"),
        (CASES["byte"], {"temperature": math.nan}, "--temperature nan: expected a number of at least 0"),
        (CASES["byte"], {"temperature": math.inf}, "--temperature inf"),
        (CASES["byte"], {"temperature": -1.0}, "--temperature -1"),
        (pairs, {"temperature": 0.5}, "--temperature: an encoder-decoder"),
        (pairs, {"beams": 0}, "--beams 0"),
        (pairs, {"stop": ["a"]}, "--stop is for models that continue a text"),
        (loaded_tagger(), {"no_stop": True}, "--no-stop: a model with a head over labels writes no text"),
        (loaded_tagger(), {"temperature": 0.0}, "--temperature: a model with a head over labels"),
        (loaded("bert", task="masked_lm"), {}, "is an encoder and cannot continue a text"),
    ):
        with pytest.raises(UserError, match=said):
            list(write(subject, "abc", 5, **options))
    with pytest.raises(UserError, match="--top-k: a model with a head over labels writes no text"):
        predict(loaded_tagger(), "a b", tokens=5, top_k=3, no_stop=False)
    with pytest.raises(UserError, match="the source has 200 tokens; the model reads 1 to"):
        list(write(pairs, "a" * 200, 5))

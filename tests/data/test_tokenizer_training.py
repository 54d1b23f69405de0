"""Training a tokenizer takes bounded words, says that it is alive, and can be interrupted."""

import _thread
import contextvars
import random
import re
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.config.tokenizers import BPETokenizerConfig
from lmexp.data.tokenizers import training
from lmexp.data.tokenizers.build import build_tokenizer
from lmexp.data.tokenizers.training import MAX_WORD, bounded, train_patiently

GPT2 = re.compile(r" ?[^\W\d_]+| ?\d+| ?(?:[^\w\s]|_)+|\s+")
"""GPT-2's words, but for contractions and letters of rare kinds."""


@given(st.lists(st.tuples(st.sampled_from("aB\u5b66 \n7.-_\u0e01"), st.integers(1, 12))))
def test_parts_join_to_the_text_and_have_no_long_word(runs):
    text = "".join(character * count for character, count in runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "MAX_WORD", 4)
        patch.setattr(training, "_LONG_SPACE", re.compile(r"\s{5}"))
        patch.setattr(training, "_LONG_WORD", re.compile(training._LONG_WORD.pattern.replace(str(MAX_WORD + 1), "5")))
        parts = list(bounded(text))
    assert "".join(parts) == text
    assert max((len(word.strip(" ")) for part in parts for word in GPT2.findall(part)), default=0) <= 4
    assert len(parts) <= 1 + len(text) // 4


@pytest.mark.parametrize("text", ["", "a" * MAX_WORD, ("word, " * 2000), "\u5b66\u800c\u65f6\u4e60\u4e4b\uff0c" * 2000])
def test_a_text_without_long_words_is_one_part(text):
    assert list(bounded(text)) == [text]


def test_a_word_of_a_megabyte_is_learned_from_in_a_moment():
    letters = "".join(random.Random(5).choices("ACGT", k=1_000_000))
    started = time.process_time()
    tokenizer = build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=400), [("train", letters)])
    assert time.process_time() - started < 10  # minutes, if the word is not cut
    assert tokenizer.decode(tokenizer.encode(letters[:5000]).tolist()) == letters[:5000]


def test_long_work_gives_signs_of_life_and_returns_its_result_or_error(monkeypatch):
    monkeypatch.setattr(training, "SIGN_SECONDS", 0.05)
    said: list[str] = []
    assert train_patiently(lambda: time.sleep(0.3) or "done", said.append) == "done"
    assert said and all(line.startswith("building the tokenizer: 0 s so far") for line in said)
    with pytest.raises(ZeroDivisionError):
        train_patiently(lambda: 1 // 0, said.append)


def test_work_sees_the_context_of_its_caller():
    trusted = contextvars.ContextVar("trusted", default=False)
    trusted.set(True)
    assert train_patiently(trusted.get, print)


def test_an_interrupt_is_heard_while_a_library_is_at_work():
    release = threading.Event()

    def work() -> None:
        _thread.interrupt_main()
        release.wait(30)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        train_patiently(work, print)
    release.set()
    assert time.monotonic() - started < 10

"""What the training of tokenizers has in common: words of bounded length, signs of life, and an interrupt.

The Hugging Face trainers count words and then merge pairs inside them. The time of a merge grows with the length of the
words that it is in, so one word of a megabyte, such as a genome or Chinese without punctuation, takes hours.
"""

import contextvars
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, TypeVar

from lmexp.errors import UserError
from lmexp.messages import Say

T = TypeVar("T")

MAX_WORD = 1024
"""Characters of a word in training. Entries are far shorter, so that few of the pairs in a longer word are lost."""
SIGN_SECONDS = 10.0
"""Time between two signs of life."""
_LONG_SPACE = re.compile(rf"\s{{{MAX_WORD + 1}}}")
# Runs of letters, of digits, of other characters and of white space: GPT-2's regex and BERT's put no word across these.
_LONG_WORD = re.compile(
    "|".join(rf"{kind}{{{MAX_WORD + 1},}}" for kind in (r"[^\W\d_]", r"\d", r"(?:[^\w\s]|_)", r"\s"))
)


Key = Literal["tokenizer", "target_tokenizer"]
"""The section of a config that describes a tokenizer."""


class UnsupportedSize(UserError):
    """The training text does not support a vocabulary of this size."""

    def __init__(self, problems: Mapping[Key, tuple[int, str]]) -> None:
        """`problems` are, for each tokenizer, the nearest number of entries that its text supports, and a message."""
        super().__init__("; ".join(message for _, message in problems.values()))
        self.problems = problems


def other_kind(key: Key, kind: str) -> str:
    """Return the override that chooses another kind of tokenizer."""
    return f"tokenizer={kind}" if key == "tokenizer" else f"target_tokenizer='{{kind: {kind}}}'"


def too_small_a_text(kind: str, least: int, entries: int, key: Key, instead: str) -> UserError:
    """Return the error of a training text that does not support the least vocabulary of a kind of tokenizer.

    It does not name the size that was asked for: with `vocab_size=auto`, nobody gave one.
    """
    return UserError(
        f"the training text is too small for {key}.kind={kind}: it supports {entries} entries, and {kind} needs "
        f"{least}; use {other_kind(key, instead)}, or more text"
    )


def bounded(text: str) -> Iterator[str]:
    """Yield a text in parts, so that no word is longer than MAX_WORD; a text without such words is one part."""
    # Two quick looks tell nearly all texts; only the others are searched in full.
    if not any(len(stretch) > MAX_WORD for stretch in text.split()) and not _LONG_SPACE.search(text):
        yield text
        return
    start = 0
    for word in _LONG_WORD.finditer(text):
        for end in range(word.start() + MAX_WORD, word.end(), MAX_WORD):
            yield text[start:end]
            start = end
    yield text[start:]


def train_patiently(train: Callable[[], T], say: Say) -> T:
    """Return what `train` returns; meanwhile say how long it has taken, and let an interrupt through at once.

    Python handles signals in its main thread, between two of its own instructions: a library that computes for minutes
    there would be deaf to them. After an interrupt the thread goes on until the process ends.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(train())
        except BaseException as error:
            errors.append(error)

    started = time.monotonic()
    worker = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
    worker.start()
    signs = 1
    while worker.is_alive():
        worker.join(0.1)
        if time.monotonic() - started > signs * SIGN_SECONDS:
            say(f"building the tokenizer: {time.monotonic() - started:.0f} s so far")
            signs += 1
    if errors:
        raise errors[0]
    return results[0]

"""The probability of a sentence under a model, word by word.

Words are what stands between white space; in scripts that put none between words (Chinese, Japanese, Thai, Lao,
Khmer, Myanmar), each character is one. A word's log-probability is the sum over its tokens. Words that share a token,
such as two Chinese characters, are shown as one, since the model gives them one probability. A sentence's
plausibility is the geometric mean of its words' probabilities, each counted, so that sentences of unequal length can be
compared.
"""

import errno
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lmexp.data.example_feeds import ends_of_pairs
from lmexp.data.scripts import WORD
from lmexp.errors import UserError
from lmexp.files import MAX_BYTES, lines_of, user_path
from lmexp.models.base import LanguageModel
from lmexp.models.labels import LabelModel
from lmexp.tasks.masked_lm import pseudo_log_likelihood
from lmexp.train.checkpoint import Loaded


@dataclass(frozen=True)
class Word:
    """A word and the natural logarithm of its probability; or several that share a token."""

    text: str
    log_probability: float
    count: int = 1
    """How many words it is."""

    @property
    def surprisal(self) -> float:
        """Minus its log-probability, in bits."""
        return -self.log_probability / math.log(2)


@dataclass(frozen=True)
class Sentence:
    """A sentence with its probabilities; logarithms are natural."""

    text: str
    tokens: int
    words: list[Word]

    @property
    def log_probability(self) -> float:
        """Log-probability of all words; of an encoder, the pseudo-log-likelihood."""
        return math.fsum(word.log_probability for word in self.words)

    @property
    def plausibility(self) -> float:
        """Geometric mean of the words' probabilities, at most 1."""
        return math.exp(self.log_probability / sum(word.count for word in self.words))

    @property
    def perplexity(self) -> float:
        """exp of minus the mean log-probability of a token."""
        return math.exp(min(-self.log_probability / self.tokens, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """Bits for each UTF-8 byte."""
        return -self.log_probability / math.log(2) / len(self.text.encode())

    def document(self) -> dict[str, Any]:
        """Return the sentence as plain JSON."""
        words = [
            {"word": word.text, "log_probability": word.log_probability, "surprisal_bits": word.surprisal}
            for word in self.words
        ]
        return {
            "text": self.text,
            "log_probability": self.log_probability,
            "plausibility": self.plausibility,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "tokens": self.tokens,
            "words": words,
        }


def _piped_or_file(path: Path) -> bytes:
    """Return the content of a file, or of what a shell pipes in under a name; never without end, as a device has it."""
    with path.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MAX_BYTES:,} bytes, the most that is read")
    return content


def read_lines(file: str) -> list[str]:
    """Return the lines of a file (`-` for standard input). Raises UserError if it cannot be read."""
    try:
        raw = sys.stdin.buffer.read() if file == "-" else _piped_or_file(user_path(file))
        return lines_of(raw.decode("utf-8-sig"))
    except OSError as error:
        raise UserError(f"--file {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"--file {file}: not UTF-8 at byte {error.start}") from None


def read_sentences(given: list[str], file: str | None) -> list[str]:
    """Return the given sentences and the lines of a file (`-` for standard input) that are not blank.

    Raises UserError if there are none, or the file cannot be read.
    """
    lines = [] if file is None else read_lines(file)
    sentences = [*given, *(line for line in lines if line.strip())]
    if not sentences:
        raise UserError('no sentence to score: give one, as in lmexp score RUN "a sentence", or --file')
    return sentences


def score(loaded: Loaded, text: str, source: str | None = None) -> Sentence:
    """Score one sentence, as a document of its own, or as the target of `source`.

    A decoder gives each token's probability given all before it; an encoder given all others, each hidden in turn
    (pseudo_log_likelihood); an encoder-decoder given the source and all before it, what ends the target left out.
    Raises UserError: a sentence without words or longer than the context, a model with a head over labels, or a source
    that is missing or not asked for.
    """
    config, tokenizer = loaded.config, loaded.target_tokenizer
    if isinstance(loaded.model, LabelModel):
        raise UserError(f"task={config.task.name} predicts labels, not text: `lmexp generate` shows them")
    wants_source = config.model.reads == "source_to_target"
    if wants_source != (source is not None):
        raise UserError("an encoder-decoder needs --source" if wants_source else "--source is for encoder-decoders")
    ids = [int(token) for token in tokenizer.encode(text)]
    words = [(match.start(), match.end()) for match in WORD.finditer(text)]
    if not ids or not words:
        raise UserError(f"{text!r} has no word to score")
    room = config.model.context - (config.model.reads == "both_ways")
    if len(ids) > room:
        raise UserError(f"the sentence has {len(ids)} tokens, more than the {room} that model.context leaves")
    each = _token_scores(loaded, ids, source)
    return Sentence(text, len(ids), _scored_words(text, words, tokenizer.spans(text), each))


def _scored_words(
    text: str, words: list[tuple[int, int]], spans: list[tuple[int, int]], each: list[float]
) -> list[Word]:
    """Return the words of a text, those that share a token as one, with the sums of their tokens' log-probabilities.

    Args:
        words: the first character of each word, and the one after its last.
        spans: the same for each token.
        each: log-probability of each token.
    """
    sums = [0.0] * len(words)
    follows = [False] * len(words)  # whether a word shares a token with the one before it
    for span, log_probability in zip(spans, each, strict=True):
        touched = _words_of(text, span, words)
        sums[touched[0]] += log_probability
        for number in touched[1:]:
            follows[number] = True
    scored: list[Word] = []
    first = 0
    for number, (start, end) in enumerate(words):
        if follows[number]:
            before = scored.pop()
            shared = text[words[first][0] : end]
            scored.append(Word(shared, before.log_probability + sums[number], before.count + 1))
        else:
            first = number
            scored.append(Word(text[start:end], sums[number]))
    return scored


def _words_of(text: str, span: tuple[int, int], words: list[tuple[int, int]]) -> range:
    """Return the numbers of the words that a token is in; a space belongs to the word after it, or to the last."""
    letters = [place for place in range(*span) if not text[place].isspace()] or [span[1], span[1]]
    first, last = (
        next((number for number, (_, end) in enumerate(words) if place < end), len(words) - 1)
        for place in (letters[0], letters[-1])
    )
    return range(first, last + 1)


@torch.inference_mode()
def _token_scores(loaded: Loaded, ids: list[int], source: str | None) -> list[float]:
    """Return the log-probability of each token, in nats."""
    model, config = loaded.model, loaded.config.model
    bos = loaded.target_tokenizer.bos_id
    if config.reads == "both_ways":
        mask = loaded.tokenizer.mask_id
        if mask >= (config.vocab_size or 0):
            raise UserError(f"{config.name} was not trained with a mask, so it cannot score what is hidden")
        assert isinstance(model, LanguageModel)
        return pseudo_log_likelihood(model, ids, mask, bos)
    device = next(model.parameters()).device
    targets = torch.tensor([ids], device=device)
    if source is not None:
        start, _, source_end = ends_of_pairs(config, bos)
        sources = [*map(int, loaded.tokenizer.encode(source)), *([] if source_end is None else [source_end])]
        room, key = config.source_limit
        if not 0 < len(sources) <= room:
            raise UserError(f"the source has {len(sources)} tokens; the model reads 1 to {key}={room}")
        before = torch.tensor([[start, *ids[:-1]]], device=device)
        logits = model(torch.tensor([sources], device=device), None, before)
    else:
        logits = model(torch.tensor([[bos, *ids[:-1]]], device=device))
    each: list[float] = logits.float().log_softmax(-1).gather(-1, targets[..., None])[0, :, 0].tolist()
    return each

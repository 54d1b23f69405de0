"""Tagging: predict a tag for each word of a sentence, and so its spans (entities, semantic roles)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, cast

import numpy as np
from torch import Tensor

from lmexp.config.data import Split
from lmexp.data.example_feeds import Labelled
from lmexp.data.examples import NO_TAG, ExampleStore
from lmexp.data.feeds import Feed
from lmexp.data.tokenizers.base import Tokenizer
from lmexp.tasks.base import Batch, Task, TaskScores
from lmexp.tasks.classify import DIGITS, label_answers, labels_of
from lmexp.tasks.metrics import Answers, LabelAnswers
from lmexp.tasks.predictions import Prediction
from lmexp.tasks.spans import Found, count_spans, is_iob2, total


@dataclass(frozen=True)
class _Sentence:
    """The tags of one sentence of the scored split."""

    example: int
    """Its number in the split."""
    right: list[str]
    guessed: list[str]
    probabilities: list[float]
    """The probability of each guessed tag."""


class Tag(Task):
    """A tag for each word, at the word's first token: in IOB2 where the tags mark spans.

    Batches hold `inputs` (B, T) int64, `valid` (B, T) bool, False where a token is padding, and `targets` (B, T) int64,
    IGNORED where no word begins. A row is a sentence.
    """

    predicts_text = False

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See Task.predict; N = B * T."""
        logits = self.model(batch["inputs"], batch["valid"])  # (B, T, tags)
        return logits.flatten(0, 1), batch["targets"].flatten()

    def own_scores(self, feed: Feed, batch: int, answers: Callable[[], Answers]) -> TaskScores:
        """Return precision, recall and F1 over all spans, by the rules in spans.py.

        In details, the same for each type of span, and how many spans there are (`spans`) and were guessed. Tags of
        single words, such as parts of speech, have the scores of `word_scores` instead.
        """
        known = answers()
        assert isinstance(known, LabelAnswers)
        sentences = list(self._sentences(feed, known))
        if not all(map(is_iob2, labels_of(self))):
            scores, details = word_scores(known, labels_of(self))
            return TaskScores(scores, details, _predictions(sentences, feed))
        counts = count_spans((sentence.right, sentence.guessed) for sentence in sentences)
        micro = total(counts.values())
        each = {
            kind: {
                "precision": of.precision,
                "recall": of.recall,
                "f1": of.f1,
                "spans": of.right,
                "guessed": of.guessed,
            }
            for kind, of in counts.items()
        }
        scores = {"span_precision": micro.precision, "span_recall": micro.recall, "span_f1": micro.f1}
        return TaskScores(scores, {"spans": each}, _predictions(sentences, feed))

    def answers(self, feed: Feed, batch: int) -> LabelAnswers:
        """See Task.answers; with the probability of each predicted tag."""
        return label_answers(self, feed, batch, all_probabilities=False)

    def _sentences(self, feed: Feed, answers: LabelAnswers) -> Iterator[_Sentence]:
        """Yield the tags of each sentence."""
        labels = labels_of(self)
        examples = cast(Labelled, feed).validation_examples.tolist()
        ends = [0, *answers.sizes.cumsum(0).tolist()]  # of each sample's words among the answers
        right, guessed = ([labels[i] for i in tags.tolist()] for tags in (answers.targets, answers.predicted))
        probabilities = answers.probabilities.tolist()
        for example, windows in groupby(range(len(examples)), key=examples.__getitem__):
            samples = list(windows)  # a long sentence is read in several
            words = slice(ends[samples[0]], ends[samples[-1] + 1])
            yield _Sentence(example, right[words], guessed[words], probabilities[words])


def word_scores(answers: LabelAnswers, labels: list[str]) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the share of words with the right tag and the mean F1 of the tags that occur or are guessed.

    In details, `tags` has precision, recall and F1 of each of these, and of how many words it is the tag (`words`) and
    was the guess (`guessed`).
    """
    right, guessed = np.asarray(answers.targets), np.asarray(answers.predicted)
    words, guesses, both = (
        np.bincount(each, minlength=len(labels)).tolist() for each in (right, guessed, right[right == guessed])
    )
    counts = {label: Found(*of) for label, *of in zip(labels, words, guesses, both, strict=True) if of[0] or of[1]}
    each = {
        label: {"precision": of.precision, "recall": of.recall, "f1": of.f1, "words": of.right, "guessed": of.guessed}
        for label, of in counts.items()
    }
    scores = {
        "tag_accuracy": float((right == guessed).mean()),
        "tag_f1_macro": sum(of.f1 for of in counts.values()) / len(counts),
    }
    return scores, {"tags": each}


def _predictions(sentences: list[_Sentence], feed: Feed) -> Iterator[Prediction]:
    """Yield the words of each sentence with their tags, those predicted, and the probabilities of these."""
    store = cast(Labelled, feed).store
    tokenizer = store.tokenizer()
    for sentence in sentences:
        shares = [round(probability, DIGITS) for probability in sentence.probabilities]
        words = _words(store, feed.scored, tokenizer, sentence.example)
        yield Prediction(words, sentence.right, sentence.guessed, shares)


def _words(store: ExampleStore, split: Split, tokenizer: Tokenizer, example: int) -> list[str]:
    """Return the words of a sentence: the store has the sentence as people write it, and its tokens."""
    starts = np.flatnonzero(store.target(split)[example] != NO_TAG)
    words = store.texts(split)[example].split(" ")
    if len(words) == len(starts):
        return words
    ids = store.source(split)[example].tolist()  # without spaces between words, their tokens show the borders
    return [tokenizer.decode(ids[start:end]).strip() for start, end in pairwise([*starts.tolist(), len(ids)])]

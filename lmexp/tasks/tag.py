"""Tagging: predict a tag for each word of a sentence, and so its spans (entities, semantic roles)."""

from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import cast

from torch import Tensor

from lmexp.data.feeds import IGNORED, Feed, Labelled
from lmexp.tasks.base import Batch, Task, TaskScores
from lmexp.tasks.classify import guesses, labels_of
from lmexp.tasks.metrics import Answers
from lmexp.tasks.spans import count_spans, total


class Tag(Task):
    """An IOB2 tag for each word, at the word's first token.

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

        In details, the same for each type of span, and how many spans there are (`spans`) and were guessed.
        """
        counts = count_spans(self._sentences(feed, batch))
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
        return TaskScores(scores, {"spans": each})

    def _sentences(self, feed: Feed, batch: int) -> Iterator[tuple[list[str], list[str]]]:
        """Yield the right tags of each sentence and those guessed."""
        labels = labels_of(self)
        rows = (row for both in guesses(self, feed, batch) for row in zip(*both, strict=True))
        numbered = zip(cast(Labelled, feed).validation_examples, rows, strict=True)
        for _, windows in groupby(numbered, key=itemgetter(0)):  # a long sentence is read in several
            right_tags: list[str] = []
            guessed_tags: list[str] = []
            for _, (guessed, right) in windows:
                words = right != IGNORED
                right_tags += [labels[i] for i in right[words]]
                guessed_tags += [labels[i] for i in guessed[words]]
            yield right_tags, guessed_tags
